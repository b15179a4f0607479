//! Where a STUN datagram goes.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use is::stun::StunMessage;

use super::{Ice, canonical};
use crate::address::is_remote;
use crate::stats::{Drops, Figure};
use crate::stun::{self, Class, Header};

/// Counts a drop.
type Reason = fn(&Drops) -> &Figure;

impl Ice {
    /// Takes a STUN datagram from the WireGuard socket. `local`: the address it was sent to, if the kernel said so.
    pub fn handle_datagram(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        if let Err(reason) = self.receive(now, canonical(remote), local, bytes) {
            reason(&self.shared.stats.dropped).add(1);
        }
        self.gauges();
    }

    fn receive(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) -> Result<(), Reason> {
        if !is_remote(remote, &self.shared.forbidden) {
            return Err(|drops| &drops.source);
        }
        let header = stun::read(bytes).ok_or::<Reason>(|drops| &drops.malformed)?;
        match header.class {
            Class::Request => self.request(now, remote, local, &header, bytes),
            Class::Success if self.gather.handle(remote, &header.transaction, header.mapped, now).is_some() => {
                self.shared.stats.server_answers.add(1);
                self.gather(now);
                Ok(())
            }
            Class::Success | Class::Failure => self.response(now, remote, &header, bytes),
        }
    }

    fn request(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<IpAddr>,
        header: &Header<'_>,
        bytes: &[u8],
    ) -> Result<(), Reason> {
        let known = header.ufrag.and_then(|ufrag| self.fragments.get(ufrag)).copied();
        let peer = known.ok_or::<Reason>(|drops| &drops.unknown)?;
        let destination = self.shared.locals.destination(local, remote.is_ipv4());
        let destination = destination.ok_or::<Reason>(|drops| &drops.local)?;
        let message = parse(header, bytes)?;
        let known = self.agents.get(&peer).is_some_and(|agent| agent.knows(remote));
        if !known && !self.sources.take(remote.ip(), now) {
            return Err(|drops| &drops.budget);
        }
        match self.with(peer, now, |agent, shared| agent.handle_request(remote, destination, message, shared, now)) {
            Some(false) => Err(|drops| &drops.integrity),
            Some(true) | None => Ok(()),
        }
    }

    fn response(&mut self, now: Instant, remote: SocketAddr, header: &Header<'_>, bytes: &[u8]) -> Result<(), Reason> {
        let transaction = self.shared.transactions.get(&header.transaction);
        let expected = transaction.filter(|transaction| {
            let attempt = self.agents.get(&transaction.peer).map(super::Agent::attempt);
            // RFC 8445, section 7.2.5.2.1: a response from elsewhere does not count.
            transaction.remote == remote && attempt == Some(transaction.attempt)
        });
        let transaction = expected.ok_or::<Reason>(|drops| &drops.unexpected)?;
        let message = parse(header, bytes)?;
        let answered = self.with(transaction.peer, now, |agent, shared| {
            let authentic = agent.handle_response(&transaction, header.mapped, message, shared, now)?;
            if authentic {
                shared.transactions.remove(&header.transaction);
            }
            Ok(authentic)
        });
        match answered {
            Some(false) => Err(|drops| &drops.integrity),
            Some(true) | None => Ok(()),
        }
    }
}

fn parse<'m>(header: &Header<'_>, bytes: &'m [u8]) -> Result<StunMessage<'m>, Reason> {
    let message = StunMessage::parse(bytes).ok().filter(|_| !header.foreign);
    message.ok_or(|drops| &drops.malformed)
}
