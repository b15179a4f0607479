//! Engines that talk through memory.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use peer_core::batch::{DatagramBatch, PacketBatch};
use peer_core::desired::Peer;
use peer_core::key::{PresharedKey, PrivateKey, PublicKey};
use peer_core::path::{Path, RelayId};
use peer_core::shard::{Engine as _, ShardId};
use peer_wireguard::{Engine, EngineConfig, Event};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// A datagram on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// An engine with its address and what came out of it.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) addr: SocketAddr,
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) events: Vec<Event>,
    seed: u8,
}

/// Nodes and the wire between them. Lost: whatever is sent to an address that no node has.
pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) wire: VecDeque<Datagram>,
    /// Everything that was ever sent.
    pub(crate) log: Vec<Datagram>,
}

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_bytes([seed; 32])
}

pub(crate) fn engine(seed: u8, shard: ShardId, now: Instant) -> Engine {
    stamping_engine(seed, shard, Duration::ZERO, now)
}

/// An engine whose initiations are stamped from this Unix time on.
pub(crate) fn stamping_engine(seed: u8, shard: ShardId, stamps_from: Duration, now: Instant) -> Engine {
    let config = EngineConfig { private_key: key(seed), shard, stamps_from };
    Engine::new(config, StdRng::seed_from_u64(seed.into()), now)
}

pub(crate) fn public(seed: u8) -> PublicKey {
    engine(seed, ShardId::ONLY, Instant::now()).public_key()
}

/// A peer with the key of `seed` that owns these prefixes.
pub(crate) fn peer(seed: u8, endpoint: Option<SocketAddr>, allowed: &[&str]) -> Peer {
    Peer {
        public_key: public(seed),
        preshared_key: None,
        endpoint,
        allowed_ips: allowed.iter().map(|net| net.parse().expect("prefix")).collect(),
        persistent_keepalive: None,
    }
}

pub(crate) fn with_psk(mut peer: Peer, seed: u8) -> Peer {
    peer.preshared_key = Some(PresharedKey::from_bytes([seed; 32]));
    peer
}

pub(crate) fn with_keepalive(mut peer: Peer, seconds: u16) -> Peer {
    peer.persistent_keepalive = NonZeroU16::new(seconds);
    peer
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("socket address")
}

/// The address, in this net, of a peer behind a relay: every other node sees it as that peer of the relay.
pub(crate) fn relayed(id: RelayId) -> SocketAddr {
    let number = u128::from(id.connection) << 32 | u128::from(id.peer);
    SocketAddr::new(Ipv6Addr::from_bits(0x0100 << 112 | number).into(), 0)
}

fn path_from(remote: SocketAddr, local: IpAddr) -> Path {
    match remote {
        SocketAddr::V6(v6) if v6.port() == 0 => {
            let [.., connection_high, connection_low, peer_high, peer_low] = v6.ip().segments();
            let number = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
            let (connection, peer) = (number(connection_high, connection_low), number(peer_high, peer_low));
            Path::Relay(RelayId { connection, peer })
        }
        _ => Path::Udp { remote, local: Some(local) },
    }
}

/// An IP packet with a UDP protocol number and `payload` bytes of `fill`.
pub(crate) fn packet(source: &str, destination: &str, payload: usize, fill: u8) -> Vec<u8> {
    let parse = |text: &str| text.parse::<IpAddr>().expect("address");
    let mut bytes = match (parse(source), parse(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&u16::try_from(20 + payload).expect("length").to_be_bytes());
            header[9] = 17;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&u16::try_from(payload).expect("length").to_be_bytes());
            header[6] = 17;
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
            header
        }
        _ => panic!("families differ"),
    };
    bytes.resize(bytes.len() + payload, fill);
    bytes
}

impl Net {
    /// One node per address; node `n` has the key of seed `n + 1`.
    pub(crate) fn new(addrs: &[&str]) -> Self {
        let now = Instant::now();
        let mut net = Self { now, nodes: Vec::new(), wire: VecDeque::new(), log: Vec::new() };
        for (seed, text) in (1..).zip(addrs) {
            let engine = engine(seed, ShardId::ONLY, now);
            net.nodes.push(Node { engine, addr: addr(text), received: Vec::new(), events: Vec::new(), seed });
        }
        net
    }

    /// Two nodes: 0 (10.0.0.1, fd00::1) knows where 1 (10.0.0.2, fd00::2) is, 1 learns where 0 is.
    pub(crate) fn pair() -> Self {
        let mut net = Self::new(&["192.0.2.1:1001", "192.0.2.2:1002"]);
        let there = Some(net.nodes[1].addr);
        net.set_peers(0, &[peer(2, there, &["10.0.0.2/32", "fd00::2/128"])]);
        net.set_peers(1, &[peer(1, None, &["10.0.0.1/32", "fd00::1/128"])]);
        net
    }

    /// A pair with a session.
    pub(crate) fn connected_pair() -> Self {
        let mut net = Self::pair();
        net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 0));
        net.run();
        assert_eq!(net.nodes[1].received.len(), 1, "the packet that asked for the session arrives");
        // The path was reported just now; let the pause after a report pass.
        net.advance(Duration::from_secs(2));
        net.nodes[1].received.clear();
        net.nodes[0].events.clear();
        net.nodes[1].events.clear();
        net.log.clear();
        net
    }

    pub(crate) fn set_peers(&mut self, node: usize, peers: &[Peer]) -> peer_wireguard::PeersChanged {
        self.nodes[node].engine.set_peers(self.now, peers)
    }

    /// Replaces a node's engine by a new one with the same key, which knows what the old one has stamped.
    pub(crate) fn restart(&mut self, node: usize) {
        let now = self.now;
        let stamped = self.nodes[node].engine.newest_stamp(now);
        self.restart_stamping(node, stamped);
    }

    /// As [`Self::restart`], with stamps from this Unix time on.
    pub(crate) fn restart_stamping(&mut self, node: usize, stamps_from: Duration) {
        let seed = self.nodes[node].seed;
        self.nodes[node].engine = stamping_engine(seed, ShardId::ONLY, stamps_from, self.now);
    }

    /// Hands a packet to a node; what comes out at once goes on the wire.
    pub(crate) fn send(&mut self, node: usize, packet: &[u8]) {
        let mut packets = PacketBatch::with_capacity(packet.len(), 1);
        assert!(packets.push(packet, ()));
        let mut datagrams = DatagramBatch::with_capacity(packet.len() + Engine::OVERHEAD, 1);
        self.nodes[node].engine.handle_packets(self.now, &packets, &mut datagrams);
        self.put(node, &datagrams);
    }

    /// Hands a datagram to a node.
    pub(crate) fn deliver(&mut self, node: usize, from: SocketAddr, bytes: &[u8]) {
        let (now, Node { engine, addr, received, .. }) = (self.now, &mut self.nodes[node]);
        let path = path_from(from, addr.ip());
        let mut datagrams = DatagramBatch::with_capacity(bytes.len(), 1);
        assert!(datagrams.push(bytes, path));
        let mut packets = PacketBatch::with_capacity(bytes.len(), 1);
        engine.handle_datagrams(now, &mut datagrams, &mut packets);
        received.extend(packets.iter().map(|(packet, ())| packet.to_vec()));
    }

    /// Fetches what the nodes have to send, without delivering it.
    pub(crate) fn collect(&mut self) {
        for node in 0..self.nodes.len() {
            loop {
                let mut datagrams = DatagramBatch::with_capacity(1 << 16, 16);
                let more = self.nodes[node].engine.poll_transmit(&mut datagrams);
                self.put(node, &datagrams);
                if !more {
                    break;
                }
            }
            while let Some(event) = self.nodes[node].engine.poll_event() {
                self.nodes[node].events.push(event);
            }
        }
    }

    /// Delivers until the wire is empty. Time stands still, but what is due is done.
    pub(crate) fn run(&mut self) {
        loop {
            for node in &mut self.nodes {
                if node.engine.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.engine.handle_timeout(self.now);
                }
            }
            self.collect();
            let Some(Datagram { from, to, bytes }) = self.wire.pop_front() else { break };
            if let Some(node) = self.nodes.iter().position(|node| node.addr == to) {
                self.deliver(node, from, &bytes);
            }
        }
    }

    /// Lets time pass; every node is called when it wants to be.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.run();
            let next = self.nodes.iter_mut().filter_map(|node| node.engine.poll_timeout()).min();
            let to = next.filter(|at| *at < end).unwrap_or(end).max(self.now);
            self.now = to;
            if to == end {
                break;
            }
        }
        self.run();
    }

    /// Takes what is on the wire away.
    pub(crate) fn intercept(&mut self) -> Vec<Datagram> {
        self.collect();
        self.wire.drain(..).collect()
    }

    pub(crate) fn connected(&self, node: usize) -> bool {
        self.nodes[node].engine.peers(self.now).iter().all(|peer| peer.connected)
    }

    /// Where a node believes its only peer to be.
    pub(crate) fn endpoint(&self, node: usize) -> Option<SocketAddr> {
        self.nodes[node].engine.peers(self.now)[0].endpoint()
    }

    /// Sends a packet each way and asserts that both arrive.
    pub(crate) fn assert_traffic(&mut self, a: usize, a_addr: &str, b: usize, b_addr: &str) {
        for (from, source, to, destination) in [(a, a_addr, b, b_addr), (b, b_addr, a, a_addr)] {
            self.nodes[to].received.clear();
            let sent = packet(source, destination, 33, 7);
            self.send(from, &sent);
            self.run();
            assert_eq!(self.nodes[to].received, [sent], "{source} → {destination}");
        }
    }

    fn put(&mut self, node: usize, datagrams: &DatagramBatch) {
        let from = self.nodes[node].addr;
        for (bytes, path) in datagrams.iter() {
            let to = match *path {
                Path::Udp { remote, .. } => remote,
                Path::Relay(id) => relayed(id),
            };
            let datagram = Datagram { from, to, bytes: bytes.to_vec() };
            self.log.push(datagram.clone());
            self.wire.push_back(datagram);
        }
    }
}
