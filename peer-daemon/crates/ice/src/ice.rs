//! All sessions together.

mod datagram;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use foldhash::{HashMap, HashMapExt as _};
use ipnet::IpNet;
use peer_core::key::PublicKey;
use rand::rngs::StdRng;
use rand::{CryptoRng, SeedableRng as _};

use crate::address::is_remote;
use crate::agent::Agent;
use crate::budget::Sources;
use crate::candidate::{Candidate, Kind};
use crate::early::Early;
use crate::gather::Gather;
use crate::limits::{LOCAL_ADDRESSES, SESSIONS};
use crate::shared::{Local, Shared};
use crate::stats::IceStats;
use crate::types::{DownReason, Event, ExternalIp, PairStatus, Session, Settings, Transmit};

/// The sessions with all peers, and our mappings as STUN servers see them.
#[derive(Debug)]
pub struct Ice {
    agents: HashMap<PublicKey, Agent>,
    /// Of each session, by our fragment.
    fragments: HashMap<String, PublicKey>,
    deadlines: BTreeSet<(Instant, PublicKey)>,
    early: Early,
    gather: Gather,
    sources: Sources,
    /// Sessions with a selected pair.
    connected: usize,
    shared: Shared,
}

impl Ice {
    /// No session, no address, no server.
    #[must_use]
    pub fn new(settings: Settings, mut rng: impl CryptoRng) -> Self {
        Self {
            agents: HashMap::new(),
            fragments: HashMap::new(),
            deadlines: BTreeSet::new(),
            early: Early::new(),
            gather: Gather::default(),
            sources: Sources::new(),
            connected: 0,
            shared: Shared::new(settings, StdRng::from_rng(&mut rng)),
        }
    }

    /// Takes our addresses with the WireGuard port, the best first; more than eight are ignored. Sessions that use one which
    /// vanished end within this call; new ones are announced to the peers of all sessions.
    pub fn set_local(&mut self, addresses: impl IntoIterator<Item = SocketAddr>, now: Instant) {
        let mut hosts: Vec<SocketAddr> = Vec::new();
        for address in addresses {
            let address = canonical(address);
            let usable = is_remote(address, &[]) && hosts.len() < LOCAL_ADDRESSES && !hosts.contains(&address);
            if usable {
                hosts.push(address);
            }
        }
        if hosts != self.shared.locals.hosts {
            let before = self.shared.locals.candidates();
            self.shared.locals.hosts = hosts;
            self.shared.locals.mappings.clear();
            self.gather.restart(now);
            self.local_changed(&before, now);
            self.gather(now);
        }
    }

    /// Takes the public addresses that a router forwards to ours (`--external-ip-map`).
    pub fn set_external_ips(&mut self, external_ips: impl IntoIterator<Item = ExternalIp>, now: Instant) {
        let before = self.shared.locals.candidates();
        self.shared.locals.external = external_ips.into_iter().collect();
        self.local_changed(&before, now);
    }

    /// Takes the addresses of STUN servers, resolved, of both families.
    pub fn set_stun_servers(&mut self, servers: impl IntoIterator<Item = SocketAddr>, now: Instant) {
        let servers: Vec<SocketAddr> = servers.into_iter().map(canonical).collect();
        self.gather.set_servers(&servers, now);
        self.gather(now);
    }

    /// Takes the prefixes that no candidate and no STUN datagram may come from: overlay networks, for example. Metadata services,
    /// loopback, link-local and multicast addresses never may.
    pub fn set_forbidden(&mut self, prefixes: impl IntoIterator<Item = IpNet>) {
        self.shared.forbidden = prefixes.into_iter().collect();
    }

    /// Begins a session, in place of the peer's earlier one. It ends at once with [`Event::Down`] if the credentials cannot be
    /// used, or there are too many sessions.
    pub fn open(&mut self, session: &Session, now: Instant) {
        let (peer, attempt) = (session.peer, session.attempt);
        self.remove(&peer);
        let agent = if self.agents.len() < SESSIONS {
            Agent::open(session, &mut self.shared, now)
        } else {
            Err(DownReason::Limit)
        };
        match agent {
            Ok(agent) => {
                self.shared.stats.opened.add(1);
                self.fragments.insert(agent.ufrag().to_owned(), peer);
                self.agents.insert(peer, agent);
                let early = self.early.take(&peer, &session.remote.ufrag, now);
                self.with(peer, now, |agent, shared| {
                    for candidate in &early {
                        add_remote(agent, candidate, shared, now);
                    }
                    Ok(())
                });
                self.gather.freshen(now);
                self.gather(now);
            }
            Err(reason) => self.down(peer, attempt, reason),
        }
        self.gauges();
    }

    /// Ends a session; nothing more comes of it.
    pub fn close(&mut self, peer: &PublicKey, attempt: u32, _now: Instant) {
        if self.agents.get(peer).is_some_and(|agent| agent.attempt() == attempt) {
            self.remove(peer);
        }
        self.gauges();
    }

    /// Takes a candidate that the peer sent. It is kept for a while if there is no session yet, or one with other credentials.
    pub fn add_remote_candidate(&mut self, peer: &PublicKey, text: &str, now: Instant) {
        let Ok(mut candidate) = text.parse::<Candidate>() else {
            return self.shared.stats.refused.malformed.add(1);
        };
        candidate.address = canonical(candidate.address);
        let belongs = |agent: &Agent| candidate.ufrag.as_deref().is_none_or(|ufrag| ufrag == agent.remote_ufrag());
        if self.agents.get(peer).is_some_and(belongs) {
            self.with(*peer, now, |agent, shared| {
                add_remote(agent, &candidate, shared, now);
                Ok(())
            });
        } else if !self.early.push(*peer, candidate, now) {
            self.shared.stats.refused.limit.add(1);
        }
        self.gauges();
    }

    /// Data for the peer has had no answer for a while: checks its pair at once. A pair that does not answer is given up
    /// soon, so that a relay can go on; one that does is not doubted again for a while.
    pub fn doubt(&mut self, peer: &PublicKey, now: Instant) {
        self.with(*peer, now, |agent, shared| {
            agent.doubt(shared, now);
            Ok(())
        });
        self.gauges();
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.early.expire(now);
        self.shared.transactions.expire(now);
        self.gather(now);
        // Lost sessions make servers due: the caller comes again at once.
        while let Some((_, peer)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.with(peer, now, |_, _| Ok(()));
        }
        self.gauges();
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let session = self.deadlines.first().map(|(at, _)| *at);
        [session, self.gather.poll_timeout()].into_iter().flatten().min()
    }

    /// The next datagram to send. Drain it after every input.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// What happened. Drain it after every input.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// The selected pair of a peer's session.
    #[must_use]
    pub fn pair(&self, peer: &PublicKey) -> Option<PairStatus> {
        self.agents.get(peer)?.pair(&self.shared)
    }

    /// The figures, which go on counting.
    #[must_use]
    pub fn stats(&self) -> Arc<IceStats> {
        Arc::clone(&self.shared.stats)
    }

    /// Asks the servers that are due, and passes on what they have changed.
    fn gather(&mut self, now: Instant) {
        let families = [true, false].map(|ipv4| self.shared.locals.hosts.iter().any(|host| host.is_ipv4() == ipv4));
        let Shared { rng, transmits, stats, .. } = &mut self.shared;
        let failures = self.gather.handle_timeout(families, rng, now, |transmit| {
            stats.server_requests.add(1);
            transmits.push_back(transmit);
        });
        stats.server_failures.add(failures);
        let mut mappings = self.gather.mappings();
        mappings.retain(|mapping| is_remote(*mapping, &self.shared.forbidden));
        if mappings != self.shared.locals.mappings {
            let before = self.shared.locals.candidates();
            self.shared.locals.mappings = mappings;
            self.local_changed(&before, now);
        }
    }

    /// Sessions drop and add candidates.
    fn local_changed(&mut self, before: &[Local], now: Instant) {
        let after = self.shared.locals.candidates();
        let missing = |from: &[Local], of: &[Local]| -> Vec<Local> {
            of.iter().filter(|local| !from.contains(local)).copied().collect()
        };
        self.shared.stats.local_candidates.set(after.len());
        let (gone, new) = (missing(&after, before), missing(before, &after));
        if gone.is_empty() && new.is_empty() {
            return;
        }
        let peers: Vec<PublicKey> = self.agents.keys().copied().collect();
        for peer in peers {
            self.with(peer, now, |agent, shared| {
                gone.iter().try_for_each(|local| agent.remove_local(*local))?;
                // A connected session keeps its pair when only a mapping changes.
                let wanted = |local: &&Local| local.kind == Kind::Host || !agent.is_connected();
                let wanted: Vec<Local> = new.iter().filter(wanted).copied().collect();
                for local in wanted {
                    agent.add_local(local, shared, now);
                }
                Ok(())
            });
        }
        self.shared.event(Event::LocalChanged);
        self.gauges();
    }

    /// Gives an input to a session, and lets it act.
    fn with<T>(
        &mut self,
        peer: PublicKey,
        now: Instant,
        input: impl FnOnce(&mut Agent, &mut Shared) -> Result<T, DownReason>,
    ) -> Option<T> {
        let agent = self.agents.get_mut(&peer)?;
        let connected = agent.is_connected();
        let outcome = input(agent, &mut self.shared).and_then(|value| Ok((value, agent.drive(&mut self.shared, now)?)));
        match outcome {
            Ok((value, deadline)) => {
                self.connected += usize::from(agent.is_connected() && !connected);
                if agent.deadline != deadline {
                    if let Some(at) = agent.deadline {
                        self.deadlines.remove(&(at, peer));
                    }
                    agent.deadline = deadline;
                    self.deadlines.extend(deadline.map(|at| (at, peer)));
                }
                Some(value)
            }
            Err(reason) => {
                let attempt = agent.attempt();
                self.connected += usize::from(agent.is_connected() && !connected);
                self.remove(&peer);
                self.down(peer, attempt, reason);
                if reason == DownReason::Lost {
                    self.gather.distrust(now);
                }
                None
            }
        }
    }

    fn remove(&mut self, peer: &PublicKey) {
        let Some(agent) = self.agents.remove(peer) else { return };
        self.connected -= usize::from(agent.is_connected());
        if let Some(at) = agent.deadline {
            self.deadlines.remove(&(at, *peer));
        }
        if self.fragments.get(agent.ufrag()) == Some(peer) {
            self.fragments.remove(agent.ufrag());
        }
    }

    fn down(&mut self, peer: PublicKey, attempt: u32, reason: DownReason) {
        self.shared.stats.down.of(reason).add(1);
        self.shared.event(Event::Down { peer, attempt, reason });
    }

    fn gauges(&self) {
        let stats = &self.shared.stats;
        stats.sessions.set(self.agents.len());
        stats.connected.set(self.connected);
        stats.early.set(self.early.len());
        stats.transactions.set(self.shared.transactions.len());
    }
}

fn add_remote(agent: &mut Agent, candidate: &Candidate, shared: &mut Shared, now: Instant) {
    agent.add_remote(candidate, shared, now);
    if let Some(guess) = candidate.static_forwarding() {
        agent.add_remote(&guess, shared, now);
    }
}

/// Without flow, scope and IPv4 in IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
