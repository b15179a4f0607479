//! The model network, with two hosts, a STUN server and signalling.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use peer_core::key::PublicKey;
use peer_ice::{Credentials, DownReason, Event, Ice, Session, Settings, Transmit};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::nat::{Behaviour, Nat};

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
const PORT: u16 = 51820;
const SERVER: &str = "198.51.100.1:3478";
const SERVER6: &str = "[2001:db8:ffff::1]:3478";
/// What hosts send each other to see whether a path carries data.
const PROBE: &[u8] = b"\x04probe";

/// How a host is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Site {
    Open,
    OpenV6,
    Behind(Behaviour),
    /// Port-restricted behind port-restricted.
    Double,
}

/// What the links do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) delay: (u64, u64),
    pub(crate) loss: f64,
    pub(crate) duplicates: f64,
    /// Of candidates by signalling; offers and answers arrive.
    pub(crate) candidate_loss: f64,
}

pub(crate) const PERFECT: Links = Links { delay: (5, 25), loss: 0.0, duplicates: 0.0, candidate_loss: 0.0 };

struct Host {
    ice: Ice,
    realm: usize,
    address: SocketAddr,
    credentials: Credentials,
    attempt: u32,
    /// Whether there is a session.
    running: bool,
    /// The selected pair, as the last event has it.
    path: Option<(SocketAddr, Option<IpAddr>)>,
}

enum Scheduled {
    Datagram {
        realm: usize,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: Vec<u8>,
    },
    /// An offer (answered) or an answer with the sender's credentials.
    Open {
        to: usize,
        answer: bool,
    },
    Candidate {
        to: usize,
        text: String,
    },
    /// A host offers.
    Offer {
        from: usize,
    },
}

pub(crate) struct World {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) links: Links,
    /// From these hosts nothing gets out.
    pub(crate) cut: [bool; 2],
    /// Whether a host whose session ended offers again.
    pub(crate) guard: bool,
    pub(crate) nats: Vec<Nat>,
    /// The translator that leads out of each realm; realm 0 is the Internet.
    gateways: Vec<Option<usize>>,
    hosts: [Host; 2],
    pub(crate) rng: StdRng,
    queue: BinaryHeap<Reverse<(Instant, usize)>>,
    scheduled: Vec<Option<Scheduled>>,
    /// What hosts reported, with its time.
    pub(crate) log: Vec<(Duration, usize, Event)>,
    pub(crate) sent: [u64; 2],
    probed: [bool; 2],
}

impl World {
    /// Host `A` at site `a`, host `B` at `b`. `shared`: both are behind one more translator, with or without hairpin.
    pub(crate) fn new(seed: u64, sites: [Site; 2], outer: Option<(Behaviour, bool)>, settings: &Settings) -> Self {
        let (mut rng, start) = (StdRng::seed_from_u64(seed), Instant::now());
        let (mut nats, mut gateways) = (Vec::new(), vec![None]);
        let mut behind = |behaviour, outside: String, outer, hairpin, gateways: &mut Vec<Option<usize>>| {
            nats.push(Nat::new(behaviour, outside.parse().expect("an address"), outer, hairpin));
            gateways.push(Some(nats.len() - 1));
            gateways.len() - 1
        };
        let base = outer
            .map_or(0, |(behaviour, hairpin)| behind(behaviour, "203.0.113.100".to_owned(), 0, hairpin, &mut gateways));
        let hosts = [A, B].map(|host| {
            let (realm, address) = match sites[host] {
                Site::Open => (base, format!("203.0.113.{}:{PORT}", host + 1)),
                Site::OpenV6 => (base, format!("[2001:db8:{}::1]:{PORT}", host + 1)),
                Site::Behind(behaviour) => {
                    let outside = format!("203.0.113.{}", host + 11);
                    (behind(behaviour, outside, base, false, &mut gateways), format!("10.{}.0.2:{PORT}", host + 1))
                }
                Site::Double => {
                    let restricted = Behaviour::PortRestricted;
                    let middle = behind(restricted, format!("203.0.113.{}", host + 21), base, false, &mut gateways);
                    let inner = behind(restricted, format!("100.64.{}.2", host + 1), middle, false, &mut gateways);
                    (inner, format!("10.{}.0.2:{PORT}", host + 1))
                }
            };
            let address: SocketAddr = address.parse().expect("an address");
            let credentials = Credentials::generate(&mut rng);
            let mut ice = Ice::new(*settings, StdRng::seed_from_u64(rng.random()));
            ice.set_local([address], start);
            ice.set_stun_servers([SERVER, SERVER6].map(|server| server.parse().expect("an address")), start);
            Host { ice, realm, address, credentials, attempt: 0, running: false, path: None }
        });
        let mut world = Self {
            start,
            now: start,
            links: PERFECT,
            cut: [false; 2],
            guard: false,
            nats,
            gateways,
            hosts,
            rng,
            queue: BinaryHeap::new(),
            scheduled: Vec::new(),
            log: Vec::new(),
            sent: [0; 2],
            probed: [false; 2],
        };
        world.drain(A);
        world.drain(B);
        world
    }

    /// `from` offers now.
    pub(crate) fn offer(&mut self, from: usize) {
        self.at(Duration::ZERO, Scheduled::Offer { from });
    }

    pub(crate) fn ice(&self, host: usize) -> &Ice {
        &self.hosts[host].ice
    }

    /// Changes a host's own addresses.
    pub(crate) fn set_local(&mut self, host: usize, address: &str) {
        let address = address.parse().expect("an address");
        self.hosts[host].address = address;
        self.hosts[host].ice.set_local([address], self.now);
        self.drain(host);
    }

    /// Data of this host has had no answer.
    pub(crate) fn doubt(&mut self, host: usize) {
        self.hosts[host].ice.doubt(&Self::key(1 - host), self.now);
        self.drain(host);
    }

    pub(crate) fn key(host: usize) -> PublicKey {
        PublicKey([u8::try_from(host).expect("one of two") + 1; 32])
    }

    /// Hosts with a selected pair.
    pub(crate) fn is_up(&self) -> bool {
        self.hosts.iter().all(|host| host.path.is_some())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs until the condition holds or the time is over; whether it held.
    pub(crate) fn run_until(&mut self, time: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if condition(self) {
                return true;
            }
            let timers = self.hosts.iter().filter_map(|host| host.ice.poll_timeout());
            let next = self.queue.peek().map(|Reverse((at, _))| *at).into_iter().chain(timers).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                self.now = end;
                return condition(self);
            };
            self.now = self.now.max(next);
            self.step();
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Whether data passes both ways over the selected pairs, some repetitions allowed.
    pub(crate) fn carries_data(&mut self) -> bool {
        self.probed = [false; 2];
        for _ in 0..20 {
            for host in [A, B] {
                let Some((remote, local)) = self.hosts[host].path else { return false };
                self.transmit(host, &Transmit { remote, local, bytes: PROBE.to_vec() });
            }
            self.run(Duration::from_millis(100));
            if self.probed == [true; 2] {
                return true;
            }
        }
        false
    }

    fn step(&mut self) {
        while let Some(Reverse((at, index))) = self.queue.peek().copied()
            && at <= self.now
        {
            self.queue.pop();
            let scheduled = self.scheduled[index].take().expect("once");
            self.dispatch(scheduled);
        }
        for host in [A, B] {
            if self.hosts[host].ice.poll_timeout().is_some_and(|at| at <= self.now) {
                self.hosts[host].ice.handle_timeout(self.now);
                self.drain(host);
            }
        }
    }

    fn dispatch(&mut self, scheduled: Scheduled) {
        match scheduled {
            Scheduled::Datagram { realm, source, destination, bytes } => {
                self.deliver(realm, source, destination, &bytes);
            }
            Scheduled::Offer { from } => {
                if !self.hosts[from].running {
                    self.signal(Scheduled::Open { to: 1 - from, answer: false });
                }
            }
            Scheduled::Open { to, answer } => {
                if !answer {
                    self.signal(Scheduled::Open { to: 1 - to, answer: true });
                }
                self.open(to);
            }
            Scheduled::Candidate { to, text } => {
                self.hosts[to].ice.add_remote_candidate(&Self::key(1 - to), &text, self.now);
                self.drain(to);
            }
        }
    }

    fn open(&mut self, host: usize) {
        self.hosts[host].attempt += 1;
        self.hosts[host].running = true;
        let session = Session {
            peer: Self::key(1 - host),
            attempt: self.hosts[host].attempt,
            local: self.hosts[host].credentials.clone(),
            remote: self.hosts[1 - host].credentials.clone(),
            controlling: host == A,
        };
        self.hosts[host].path = None;
        self.hosts[host].ice.open(&session, self.now);
        self.drain(host);
    }

    fn drain(&mut self, host: usize) {
        while let Some(transmit) = self.hosts[host].ice.poll_transmit() {
            self.transmit(host, &transmit);
        }
        while let Some(event) = self.hosts[host].ice.poll_event() {
            match &event {
                Event::Candidate { text, .. } => {
                    if !self.rng.random_bool(self.links.candidate_loss) {
                        self.signal(Scheduled::Candidate { to: 1 - host, text: text.clone() });
                    }
                }
                Event::Up { attempt, remote, local, .. } => {
                    assert_eq!(*attempt, self.hosts[host].attempt);
                    self.hosts[host].path = Some((*remote, *local));
                }
                Event::Down { reason, .. } => {
                    assert_ne!(*reason, DownReason::Exhausted);
                    self.hosts[host].path = None;
                    self.hosts[host].running = false;
                    if self.guard {
                        self.at(Duration::from_millis(800), Scheduled::Offer { from: host });
                    }
                }
                Event::LocalChanged => {}
            }
            self.log.push((self.now - self.start, host, event));
        }
    }

    fn signal(&mut self, scheduled: Scheduled) {
        let delay = Duration::from_millis(self.rng.random_range(10..60));
        self.at(delay, scheduled);
    }

    fn at(&mut self, delay: Duration, scheduled: Scheduled) {
        self.scheduled.push(Some(scheduled));
        self.queue.push(Reverse((self.now + delay, self.scheduled.len() - 1)));
    }

    fn transmit(&mut self, host: usize, transmit: &Transmit) {
        self.sent[host] += 1;
        let Host { realm, address, .. } = &self.hosts[host];
        let (realm, source) = (*realm, *address);
        if let Some(local) = transmit.local {
            assert_eq!(local, source.ip(), "sent from an address of its own");
        }
        if self.cut[host] || source.is_ipv4() != transmit.remote.is_ipv4() {
            return;
        }
        let copies = if self.rng.random_bool(self.links.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.random_bool(self.links.loss) {
                continue;
            }
            let (least, most) = self.links.delay;
            let delay = Duration::from_millis(self.rng.random_range(least..=most));
            let (destination, bytes) = (transmit.remote, transmit.bytes.clone());
            self.at(delay, Scheduled::Datagram { realm, source, destination, bytes });
        }
    }

    /// From a realm to where the destination is.
    fn deliver(&mut self, realm: usize, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) {
        if realm == 0 && [SERVER, SERVER6].iter().any(|server| destination == server.parse().expect("an address")) {
            let answer = answer(bytes, source);
            return self.deliver(0, destination, source, &answer);
        }
        let here = |host: &usize| self.hosts[*host].realm == realm && self.hosts[*host].address == destination;
        if let Some(host) = [A, B].into_iter().find(here) {
            return self.receive(host, source, bytes);
        }
        let inward = self.nats.iter().position(|nat| nat.outer == realm && nat.outside == destination.ip());
        if let Some(nat) = inward {
            if let Some(inner) = self.nats[nat].inbound(source, destination.port()) {
                let realm = self.gateways.iter().position(|gateway| *gateway == Some(nat)).expect("its inside");
                self.deliver(realm, source, inner, bytes);
            }
        } else if let Some(nat) = self.gateways[realm] {
            let Some(mapped) = self.nats[nat].outbound(source, destination, &mut self.rng) else { return };
            let (outer, own) = (self.nats[nat].outer, self.nats[nat].outside == destination.ip());
            if !own || self.nats[nat].hairpin {
                self.deliver(outer, mapped, destination, bytes);
            }
        }
    }

    fn receive(&mut self, host: usize, source: SocketAddr, bytes: &[u8]) {
        if bytes == PROBE {
            self.probed[host] = true;
            return;
        }
        let local = self.rng.random_bool(0.5).then_some(self.hosts[host].address.ip());
        self.hosts[host].ice.handle_datagram(self.now, source, local, bytes);
        self.drain(host);
    }
}

/// What a STUN server answers.
fn answer(request: &[u8], source: SocketAddr) -> Vec<u8> {
    let mut value = vec![0, if source.is_ipv4() { 1 } else { 2 }];
    value.extend((source.port() ^ 0x2112).to_be_bytes());
    match source.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets().iter().zip(&request[4..]).map(|(byte, mask)| byte ^ mask)),
        IpAddr::V6(ip) => value.extend(ip.octets().iter().zip(&request[4..]).map(|(byte, mask)| byte ^ mask)),
    }
    let length = u8::try_from(value.len()).expect("short");
    let mut bytes = vec![1, 1, 0, length + 4];
    bytes.extend_from_slice(&request[4..20]);
    bytes.extend([0, 0x20, 0, length]);
    bytes.extend(value);
    bytes
}
