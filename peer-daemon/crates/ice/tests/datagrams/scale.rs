//! Thousands of sessions between two instances.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peer_core::key::PublicKey;
use peer_ice::{Credentials, Event, Ice, Session, Settings};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::bench::{address, is_request};

const NODE: &str = "192.0.2.1:51820";

/// A node, and its peers at one address each, all held by a second instance per peer.
struct Crowd {
    node: Ice,
    peers: Vec<(SocketAddr, Ice)>,
    now: Instant,
    up: usize,
    sent: u64,
    checks: u64,
    /// What the node's instance has taken.
    busy: Duration,
}

fn key(number: usize) -> PublicKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(number as u64).to_be_bytes());
    PublicKey(key)
}

impl Crowd {
    /// All come at once.
    fn new(count: usize) -> Self {
        let (mut rng, now) = (StdRng::seed_from_u64(1), Instant::now());
        let mut node = Ice::new(Settings::default(), StdRng::from_rng(&mut rng));
        node.set_local([address(NODE)], now);
        let mut peers = Vec::with_capacity(count);
        for number in 0..count {
            let source: SocketAddr =
                format!("10.{}.{}.1:51820", number / 250, number % 250).parse().expect("an address");
            let mut ice = Ice::new(Settings::default(), StdRng::from_rng(&mut rng));
            ice.set_local([source], now);
            let (ours, theirs) = (Credentials::generate(&mut rng), Credentials::generate(&mut rng));
            let (local, remote) = (ours.clone(), theirs.clone());
            node.open(&Session { peer: key(number), attempt: 1, local, remote, controlling: true }, now);
            let (local, remote) = (theirs, ours);
            ice.open(&Session { peer: key(usize::MAX), attempt: 1, local, remote, controlling: false }, now);
            peers.push((source, ice));
        }
        let mut crowd = Self { node, peers, now, up: 0, sent: 0, checks: 0, busy: Duration::ZERO };
        for number in 0..count {
            crowd.events(number);
        }
        crowd.exchange();
        crowd
    }

    /// Candidates go both ways.
    fn events(&mut self, number: usize) {
        while let Some(event) = self.peers[number].1.poll_event() {
            if let Event::Candidate { text, .. } = event {
                self.node.add_remote_candidate(&key(number), &text, self.now);
            }
        }
    }

    /// Datagrams arrive at once, in both directions.
    fn exchange(&mut self) {
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Candidate { peer, text, .. } => {
                    let number = usize::try_from(u64::from_be_bytes(peer.0[..8].try_into().expect("8 bytes")));
                    let peer = &mut self.peers[number.expect("an index")].1;
                    peer.add_remote_candidate(&key(usize::MAX), &text, self.now);
                }
                Event::Up { .. } => self.up += 1,
                Event::Down { .. } => panic!("{event:?}"),
                Event::LocalChanged => {}
            }
        }
        while let Some(transmit) = self.node.poll_transmit() {
            self.sent += 1;
            self.checks += u64::from(is_request(&transmit.bytes));
            let [_, high, low, _] = match transmit.remote.ip() {
                std::net::IpAddr::V4(ip) => ip.octets(),
                std::net::IpAddr::V6(ip) => panic!("{ip}"),
            };
            let (source, peer) = &mut self.peers[usize::from(high) * 250 + usize::from(low)];
            peer.handle_datagram(self.now, address(NODE), None, &transmit.bytes);
            while let Some(answer) = peer.poll_transmit() {
                let begin = Instant::now();
                self.node.handle_datagram(self.now, *source, None, &answer.bytes);
                self.busy += begin.elapsed();
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(50);
            for (source, peer) in &mut self.peers {
                if peer.poll_timeout().is_some_and(|at| at <= self.now) {
                    peer.handle_timeout(self.now);
                }
                while let Some(transmit) = peer.poll_transmit() {
                    let begin = Instant::now();
                    self.node.handle_datagram(self.now, *source, None, &transmit.bytes);
                    self.busy += begin.elapsed();
                }
            }
            let begin = Instant::now();
            self.node.handle_timeout(self.now);
            self.busy += begin.elapsed();
            self.exchange();
        }
    }
}

#[test]
fn a_thousand_at_once_are_direct_within_seconds() {
    let mut crowd = Crowd::new(1000);
    let mut seconds = 0;
    while crowd.up < 1000 {
        crowd.run(Duration::from_secs(1));
        seconds += 1;
        assert!(seconds < 20, "{} of 1000 after {seconds} s", crowd.up);
    }
    println!("1000 sessions are up after {seconds} s with {} checks", crowd.checks);
    crowd.run(Duration::from_secs(10));
    let (sent, checks) = (crowd.sent, crowd.checks);
    let busy = crowd.busy;
    crowd.run(Duration::from_secs(20));
    let (sent, checks) = (crowd.sent - sent, crowd.checks - checks);
    println!("20 s of 1000 idle sessions: {checks} checks, {sent} datagrams, {:?}", crowd.busy - busy);
    assert!((4_700..=5_300).contains(&checks), "one check per keepalive and session: {checks}");
    assert!((9_400..=10_600).contains(&sent), "and one response: {sent}");
    assert_eq!(crowd.node.stats().connected.get(), 1000);
}
