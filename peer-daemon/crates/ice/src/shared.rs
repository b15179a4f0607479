//! What all sessions share: timers, local addresses, queues.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use peer_core::key::PublicKey;
use rand::rngs::StdRng;

use crate::address::is_remote;
use crate::budget::Bucket;
use crate::candidate::{Candidate, Kind};
use crate::credentials::candidate_id;
use crate::limits::{CHECKS_BURST, CHECKS_PER_SECOND, EXTERNAL_IPS, QUEUE};
use crate::stats::IceStats;
use crate::transactions::Transactions;
use crate::types::{Event, ExternalIp, Settings, Transmit};

/// Interval of checks of a pair that has not answered yet.
pub(crate) const CHECK_RTO: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) timers: Timers,
    pub(crate) forbidden: Vec<IpNet>,
    pub(crate) locals: Locals,
    pub(crate) transactions: Transactions,
    pub(crate) checks: Bucket,
    pub(crate) rng: StdRng,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) stats: Arc<IceStats>,
}

impl Shared {
    pub(crate) fn new(settings: Settings, rng: StdRng) -> Self {
        Self {
            timers: Timers::new(&settings),
            forbidden: Vec::new(),
            locals: Locals::default(),
            transactions: Transactions::new(),
            checks: Bucket::new(CHECKS_PER_SECOND, CHECKS_BURST),
            rng,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            stats: Arc::default(),
        }
    }

    pub(crate) fn send(&mut self, transmit: Transmit) {
        if self.transmits.len() < QUEUE {
            self.transmits.push_back(transmit);
        } else {
            self.stats.dropped.queue.add(1);
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        if self.events.len() < QUEUE {
            self.events.push_back(event);
        } else {
            self.stats.dropped.queue.add(1);
        }
    }

    /// Queues our candidate for the peer.
    pub(crate) fn announce(&mut self, peer: PublicKey, attempt: u32, ufrag: &str, local: Local) {
        let candidate = Candidate {
            ufrag: Some(ufrag.to_owned()),
            cid: Some(candidate_id(&mut self.rng)),
            ..Candidate::new(local.kind, local.address, local.related())
        };
        self.event(Event::Candidate { peer, attempt, text: candidate.to_string() });
    }

    /// Whether checks may go there.
    pub(crate) fn is_remote(&self, address: SocketAddr) -> bool {
        is_remote(address, &self.forbidden) && !self.locals.is_own(address)
    }
}

/// Intervals that fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timers {
    /// Between consent checks.
    pub(crate) keepalive: Duration,
    /// Between consent checks of a pair that owes a response: about eight before it is lost.
    pub(crate) retry: Duration,
    pub(crate) disconnected: Duration,
    pub(crate) unreachable: Duration,
    /// How long other pairs are checked after one was selected, or after something changed.
    pub(crate) settle: Duration,
    /// Checks of a pair until `is` gives it up. They last as long as an unconnected session.
    pub(crate) retransmits: usize,
}

impl Timers {
    fn new(settings: &Settings) -> Self {
        let disconnected = settings.disconnected.max(Duration::from_secs(1));
        // With less than a third left, one lost datagram would end a session.
        let keepalive = settings.keepalive.min(disconnected * 2 / 3).max(Duration::from_millis(200));
        let retry = ((disconnected.saturating_sub(keepalive)) / 8).max(Duration::from_millis(100));
        let unreachable = disconnected + settings.failed;
        let checks = unreachable.as_secs() / CHECK_RTO.as_secs();
        let retransmits = usize::try_from(checks).unwrap_or(usize::MAX).clamp(12, 64);
        Self { keepalive, retry, disconnected, unreachable, settle: settings.relay_acceptance_min_wait, retransmits }
    }
}

/// One of our candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// The address it leads to.
    pub(crate) base: SocketAddr,
}

impl Local {
    /// What candidate text shows of the base: its port only, as the official client does.
    fn related(self) -> Option<SocketAddr> {
        let any: IpAddr = match self.base {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        (self.kind == Kind::ServerReflexive).then(|| SocketAddr::new(any, self.base.port()))
    }

    /// As `is` has it; `None`: an address that cannot be a candidate.
    pub(crate) fn candidate(self) -> Option<is::Candidate> {
        match self.kind {
            Kind::Host => is::Candidate::host(self.address, is::Protocol::Udp).ok(),
            _ => is::Candidate::server_reflexive(self.address, self.base, is::Protocol::Udp).ok(),
        }
    }
}

/// Our addresses.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    pub(crate) hosts: Vec<SocketAddr>,
    pub(crate) mappings: Vec<SocketAddr>,
    pub(crate) external: Vec<ExternalIp>,
}

impl Locals {
    /// Candidates, each address once, hosts first.
    pub(crate) fn candidates(&self) -> Vec<Local> {
        let hosts = self.hosts.iter().map(|host| Local { kind: Kind::Host, address: *host, base: *host });
        let mut candidates: Vec<Local> = hosts.collect();
        let external = self.external.iter().take(EXTERNAL_IPS).flat_map(|map| {
            let base = |host: &&SocketAddr| {
                map.internal.map_or(host.is_ipv4() == map.external.is_ipv4(), |internal| internal == host.ip())
            };
            self.hosts.iter().filter(base).map(|host| (SocketAddr::new(map.external, host.port()), *host))
        });
        let mappings = self.mappings.iter().filter_map(|mapping| Some((*mapping, self.first(mapping.is_ipv4())?)));
        for (address, base) in external.chain(mappings) {
            if candidates.iter().all(|known| known.address != address) {
                candidates.push(Local { kind: Kind::ServerReflexive, address, base });
            }
        }
        candidates
    }

    /// Our address that a datagram came to. Without one, the first of the family.
    pub(crate) fn destination(&self, local: Option<IpAddr>, ipv4: bool) -> Option<SocketAddr> {
        match local.map(|ip| ip.to_canonical()) {
            Some(ip) => self.hosts.iter().find(|host| host.ip() == ip).copied(),
            None => self.first(ipv4),
        }
    }

    /// How the peer sees our side of a pair.
    pub(crate) fn kind(&self, address: SocketAddr) -> Kind {
        let found = self.candidates().into_iter().find(|local| local.address == address);
        found.map_or(Kind::PeerReflexive, |local| local.kind)
    }

    fn first(&self, ipv4: bool) -> Option<SocketAddr> {
        self.hosts.iter().find(|host| host.is_ipv4() == ipv4).copied()
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.candidates().iter().any(|local| local.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn timers_leave_room_for_retries() {
        let timers = Timers::new(&Settings::default());
        assert_eq!((timers.keepalive, timers.retry), (Duration::from_secs(4), Duration::from_millis(250)));
        assert_eq!(timers.unreachable, Duration::from_secs(12));
        let odd = Settings { keepalive: Duration::from_secs(60), disconnected: Duration::ZERO, ..Settings::default() };
        let timers = Timers::new(&odd);
        assert!(timers.keepalive < timers.disconnected && timers.retry * 3 < timers.disconnected, "{timers:?}");
    }

    #[test]
    fn candidates_of_hosts_mappings_and_forwarded_addresses() {
        let external = vec![
            ExternalIp { external: "203.0.113.7".parse().expect("an address"), internal: None },
            ExternalIp {
                external: "203.0.113.8".parse().expect("an address"),
                internal: Some("10.0.0.2".parse().expect("an address")),
            },
        ];
        let hosts = vec![address("10.0.0.1:7"), address("10.0.0.2:7"), address("[2001:db8::1]:7")];
        let mappings = vec![address("198.51.100.1:9"), address("10.0.0.1:7")];
        let locals = Locals { hosts, mappings, external };
        let found: Vec<_> = locals
            .candidates()
            .iter()
            .map(|local| (local.kind.as_str(), local.address.to_string(), local.base.to_string()))
            .collect();
        let expected = [
            ("host", "10.0.0.1:7", "10.0.0.1:7"),
            ("host", "10.0.0.2:7", "10.0.0.2:7"),
            ("host", "[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("srflx", "203.0.113.7:7", "10.0.0.1:7"),
            ("srflx", "203.0.113.8:7", "10.0.0.2:7"),
            ("srflx", "198.51.100.1:9", "10.0.0.1:7"),
        ];
        assert_eq!(found, expected.map(|(kind, address, base)| (kind, address.to_owned(), base.to_owned())));
        assert_eq!(locals.kind(address("198.51.100.1:9")), Kind::ServerReflexive);
        assert_eq!(locals.kind(address("198.51.100.1:10")), Kind::PeerReflexive);
    }

    #[test]
    fn destinations_are_candidates() {
        let locals = Locals { hosts: vec![address("10.0.0.1:7"), address("[2001:db8::1]:7")], ..Locals::default() };
        let ip = |text: &str| Some(text.parse().expect("an address"));
        assert_eq!(locals.destination(ip("::ffff:10.0.0.1"), true), Some(address("10.0.0.1:7")));
        assert_eq!(locals.destination(None, false), Some(address("[2001:db8::1]:7")));
        assert_eq!(locals.destination(ip("10.0.0.9"), true), None);
    }
}
