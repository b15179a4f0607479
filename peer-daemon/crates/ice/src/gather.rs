//! Mappings that STUN servers see (RFC 8489, section 6.2.1): one request per server from the WireGuard socket.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::{CryptoRng, RngExt as _};

use crate::limits::STUN_SERVERS;
use crate::stun::{TransactionId, binding_request};
use crate::types::Transmit;

/// First retransmission; every further one takes twice as long.
const RTO: Duration = Duration::from_millis(500);
/// A server that has not answered after this time does not.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A mapping is asked for again.
const REFRESH: Duration = Duration::from_secs(300);
/// A server that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(30);
/// A session may still use a mapping of this age; NATs forget UDP mappings after 30 s or more.
const FRESH: Duration = Duration::from_secs(25);
/// However many pairs die, a server is asked only this often.
const DISTRUST: Duration = Duration::from_secs(1);

/// The servers and what they said.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    mapping: Option<SocketAddr>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// To be asked at this time.
    Idle(Instant),
    Asked {
        transaction: TransactionId,
        since: Instant,
        next: Instant,
        rto: Duration,
    },
}

impl Gather {
    /// Keeps what is known from servers that stay.
    pub(crate) fn set_servers(&mut self, addresses: &[SocketAddr], now: Instant) {
        self.servers.retain(|server| addresses.contains(&server.address));
        for address in addresses {
            if self.servers.len() < STUN_SERVERS && self.servers.iter().all(|server| server.address != *address) {
                self.servers.push(Server { address: *address, mapping: None, state: State::Idle(now) });
            }
        }
    }

    /// Our addresses changed: every mapping is void.
    pub(crate) fn restart(&mut self, now: Instant) {
        for server in &mut self.servers {
            (server.mapping, server.state) = (None, State::Idle(now));
        }
    }

    /// A session begins: asks for mappings that may have been forgotten by now.
    pub(crate) fn freshen(&mut self, now: Instant) {
        self.renew(FRESH, now);
    }

    /// A selected pair is dead: perhaps because our mapping is. Many pairs may die at once.
    pub(crate) fn distrust(&mut self, now: Instant) {
        self.renew(DISTRUST, now);
    }

    /// Asks again for mappings that are older than `age`.
    fn renew(&mut self, age: Duration, now: Instant) {
        for server in &mut self.servers {
            if let State::Idle(at) = &mut server.state
                && server.mapping.is_some()
                && now + REFRESH > *at + age
            {
                *at = now;
            }
        }
    }

    /// A success response. `None`: it answers no request of ours to that server.
    pub(crate) fn handle(
        &mut self,
        source: SocketAddr,
        id: &TransactionId,
        mapped: Option<SocketAddr>,
        now: Instant,
    ) -> Option<()> {
        let asked = |server: &&mut Server| {
            server.address == source && matches!(&server.state, State::Asked { transaction, .. } if transaction == id)
        };
        let server = self.servers.iter_mut().find(asked)?;
        if mapped.is_some_and(|mapped| mapped.is_ipv4() == source.is_ipv4()) {
            server.mapping = mapped;
            server.state = State::Idle(now + REFRESH);
        }
        Some(())
    }

    /// Sends what is due. `families`: of which there are local addresses, IPv4 and IPv6. Returns how many servers failed.
    pub(crate) fn handle_timeout(
        &mut self,
        families: [bool; 2],
        rng: &mut impl CryptoRng,
        now: Instant,
        mut send: impl FnMut(Transmit),
    ) -> u64 {
        let mut failures = 0;
        for server in &mut self.servers {
            match &mut server.state {
                State::Idle(at) if *at > now => {}
                State::Idle(at) if !families[usize::from(server.address.is_ipv6())] => *at = now + RETRY,
                State::Idle(_) => {
                    let transaction = rng.random();
                    send(Transmit { remote: server.address, local: None, bytes: binding_request(&transaction) });
                    server.state = State::Asked { transaction, since: now, next: now + RTO, rto: RTO * 2 };
                }
                State::Asked { since, .. } if now >= *since + TIMEOUT => {
                    // The mapping stays: one server that is away for a while must not restart sessions.
                    server.state = State::Idle(now + RETRY);
                    failures += 1;
                }
                State::Asked { transaction, since, next, rto } if now >= *next => {
                    send(Transmit { remote: server.address, local: None, bytes: binding_request(transaction) });
                    *next = (now + *rto).min(*since + TIMEOUT);
                    *rto *= 2;
                }
                State::Asked { .. } => {}
            }
        }
        failures
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let next = |server: &Server| match server.state {
            State::Idle(at) => at,
            State::Asked { next, .. } => next,
        };
        self.servers.iter().map(next).min()
    }

    /// Mappings, each once.
    pub(crate) fn mappings(&self) -> Vec<SocketAddr> {
        let mut mappings: Vec<_> = self.servers.iter().filter_map(|server| server.mapping).collect();
        mappings.sort_unstable();
        mappings.dedup();
        mappings
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::stun;

    const SERVER: &str = "192.0.2.1:3478";
    const MAPPED: &str = "203.0.113.1:51820";

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    struct Bench {
        gather: Gather,
        rng: StdRng,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let (mut gather, start) = (Gather::default(), Instant::now());
            gather.set_servers(&[address(SERVER)], start);
            Self { gather, rng: StdRng::seed_from_u64(1), start }
        }

        /// Runs until then; gives the times of requests in ms, the last transaction and the failures.
        fn run(&mut self, end: u64) -> (Vec<u64>, Option<TransactionId>, u64) {
            let (mut times, mut last, mut failures) = (Vec::new(), None, 0);
            while let Some(at) = self.gather.poll_timeout().filter(|at| *at <= self.start + Duration::from_millis(end))
            {
                let ms = u64::try_from((at - self.start).as_millis()).expect("short");
                failures += self.gather.handle_timeout([true, false], &mut self.rng, at, |transmit| {
                    times.push(ms);
                    last = stun::own(&transmit.bytes).map(|(_, id)| id);
                });
            }
            (times, last, failures)
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }
    }

    #[test]
    fn retransmissions_double_until_five_seconds() {
        let mut bench = Bench::new();
        let (times, _, failures) = bench.run(34_999);
        assert_eq!((times, failures), (vec![0, 500, 1500, 3500], 1));
        assert_eq!(bench.run(35_000).0, [35_000], "asked again 30 s later");
    }

    #[test]
    fn only_the_server_asked_answers() {
        let mut bench = Bench::new();
        let id = bench.run(0).1.expect("a request");
        let (mapped, now) = (Some(address(MAPPED)), bench.at(10));
        assert_eq!(bench.gather.handle(address("192.0.2.1:3479"), &id, mapped, now), None);
        assert_eq!(bench.gather.handle(address(SERVER), &[0; 12], mapped, now), None);
        assert!(bench.gather.mappings().is_empty());
        assert_eq!(bench.gather.handle(address(SERVER), &id, mapped, now), Some(()));
        assert_eq!(bench.gather.mappings(), [address(MAPPED)]);
        assert_eq!(bench.gather.handle(address(SERVER), &id, mapped, now), None, "once");
        assert_eq!(bench.run(310_000).0, [300_010, 300_510, 301_510, 303_510], "refreshed after 5 min");
        assert_eq!(bench.gather.mappings(), [address(MAPPED)], "kept though the server is away");
    }

    #[test]
    fn sessions_ask_for_old_mappings_again() {
        let mut bench = Bench::new();
        let id = bench.run(0).1.expect("a request");
        bench.gather.handle(address(SERVER), &id, Some(address(MAPPED)), bench.start);
        bench.gather.freshen(bench.at(25_000));
        assert!(bench.run(25_000).0.is_empty());
        bench.gather.freshen(bench.at(25_001));
        assert_eq!(bench.run(25_001).0, [25_001]);
    }

    #[test]
    fn a_family_without_local_address_is_not_asked() {
        let mut bench = Bench::new();
        bench.gather.set_servers(&[address("[2001:db8::1]:3478")], bench.start);
        assert!(bench.run(60_000).0.is_empty());
    }
}
