//! Two nodes, each with a device, a shard and sockets, and between them an engine that only scrambles. The kernel's own
//! TCP and UDP are at both ends: what we join or split wrongly does not arrive.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use peer_core::batch::{DatagramBatch, PacketBatch};
use peer_core::path::Path;
use peer_core::shard::{Engine, ShardId};
use peer_io::{Shard, ShardConfig, ShardStats, Sockets, StopReason, Wt0, spawn};
use quinn_udp::{Transmit, UdpSocketState};

use crate::lab::{Kernel, config, enter_new_namespace, in_namespace};

/// Turns packets into datagrams of 16 bytes more that no network card would take for IP.
struct Scramble {
    peer: Path,
}

impl Engine for Scramble {
    type Event = ();
    const OVERHEAD: usize = 16;

    fn handle_datagrams(&mut self, _: Instant, datagrams: &mut DatagramBatch, packets: &mut PacketBatch) {
        datagrams.for_each_mut(|datagram, _| datagram.iter_mut().for_each(|byte| *byte ^= 0x5a));
        for (datagram, _) in datagrams.iter() {
            if let Some((packet, tail)) = datagram.split_last_chunk::<16>()
                && *tail == [0x77; 16]
            {
                assert!(packets.push(packet, ()), "the shard promised room");
            }
        }
    }

    fn handle_packets(&mut self, _: Instant, packets: &PacketBatch, datagrams: &mut DatagramBatch) {
        for (packet, ()) in packets.iter() {
            let pushed = datagrams.push_with(packet.len() + 16, |room| {
                let (body, tail) = room.split_at_mut(packet.len());
                body.iter_mut().zip(packet).for_each(|(to, from)| *to = from ^ 0x5a);
                tail.fill(0x77 ^ 0x5a);
                Some((room.len(), self.peer))
            });
            assert!(pushed, "the shard promised room");
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self, _: &mut DatagramBatch) -> bool {
        false
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }
}

struct Node {
    shard: Shard<Scramble>,
    stats: Arc<ShardStats>,
    wt0: Wt0,
    v4: IpAddr,
    v6: IpAddr,
}

impl Node {
    /// In the namespace of the calling thread.
    async fn start(number: u8, sockets: Sockets, peer: SocketAddr) -> Self {
        let (v4, v6) = (format!("100.64.0.{number}"), format!("fd00:64::{number}"));
        let mut wt0 = Wt0::open(&config(&[&format!("{v4}/16"), &format!("{v6}/64")], &[])).await.expect("a device");
        let queue = wt0.take_queues().remove(0);
        let engine = Scramble { peer: Path::Udp { remote: peer, local: None } };
        let shard_config = ShardConfig { id: ShardId::ONLY, mtu: 1420 };
        let shard = spawn(shard_config, engine, queue, sockets, |()| ()).expect("a thread");
        let stats = shard.stats();
        Self { shard, stats, wt0, v4: v4.parse().expect("an address"), v6: v6.parse().expect("an address") }
    }

    /// Its figures are final then.
    async fn stop(self) -> Arc<ShardStats> {
        assert_eq!(self.shard.stop(), StopReason::Requested);
        self.wt0.remove().await.expect("removed");
        self.stats
    }
}

/// Two nodes; the calling thread is in the namespace of the first before `first` and in that of the second behind it.
async fn nodes<T>(over: IpAddr, first: impl FnOnce(&Node) -> T) -> (Node, Node, T) {
    // The sockets of both are in a namespace between: no packet of theirs meets a device of the nodes.
    let between = Kernel::connect();
    between.up(1).await;
    let (one, two) = (Sockets::bind(0).expect("a port"), Sockets::bind(0).expect("a port"));
    let (at_one, at_two) = (SocketAddr::new(over, one.port()), SocketAddr::new(over, two.port()));
    enter_new_namespace();
    let one = Node::start(1, one, at_two).await;
    let value = first(&one);
    enter_new_namespace();
    (one, Node::start(2, two, at_one).await, value)
}

fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn tcp_both_ways(over: IpAddr, v6: bool) {
    in_namespace(move || async move {
        let listen = |node: &Node| TcpListener::bind((if v6 { node.v6 } else { node.v4 }, 0)).expect("its address");
        let (one, two, listener) = nodes(over, listen).await;
        let address = listener.local_addr().expect("bound");
        let data = Arc::new(pattern(8 << 20));
        let serve = {
            let data = Arc::clone(&data);
            thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut received = vec![0; data.len()];
                stream.read_exact(&mut received).expect("all of it");
                assert!(received == *data, "the bytes differ on their way there");
                stream.write_all(&data).expect("a client");
            })
        };
        let mut stream = TcpStream::connect(address).expect("through the devices");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        stream.write_all(&data).expect("a server");
        let mut received = vec![0; data.len()];
        stream.read_exact(&mut received).expect("all of it");
        assert!(received == *data, "the bytes differ on their way back");
        serve.join().expect("a server");
        for stats in [one.stop().await, two.stop().await] {
            let sides = [&stats.tun_in, &stats.tun_out, &stats.udp_in, &stats.udp_out];
            for side in sides {
                assert!(side.super_packets.get() > 50, "super-packets everywhere: {stats:?}");
                assert!(side.calls.get() * 4 < side.packets.get() * 3, "fewer calls than packets: {stats:?}");
            }
            // Joined were many of the packets that carry data.
            assert!(stats.tun_out.joined_packets.get() * 2 > (data.len() / 1420) as u64, "{stats:?}");
            assert_eq!((stats.tso_fallback.get(), stats.gso_fallback.get()), (0, 0));
            assert!(peer_io::IoDrop::ALL.iter().all(|reason| stats.drops(*reason) == 0), "{stats:?}");
        }
    });
}

#[test]
fn tcp_over_ipv4() {
    tcp_both_ways(Ipv4Addr::LOCALHOST.into(), false);
}

#[test]
fn tcp_over_ipv6_in_ipv4_datagrams() {
    tcp_both_ways(Ipv4Addr::LOCALHOST.into(), true);
}

#[test]
fn tcp_over_ipv4_in_ipv6_datagrams() {
    tcp_both_ways(Ipv6Addr::LOCALHOST.into(), false);
}

fn udp_bursts(v6: bool) {
    in_namespace(move || async move {
        let bind = |node: &Node| UdpSocket::bind((if v6 { node.v6 } else { node.v4 }, 0)).expect("its address");
        let (one, two, receiver) = nodes(Ipv4Addr::LOCALHOST.into(), bind).await;
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        let to = receiver.local_addr().expect("bound");
        let sender = UdpSocket::bind((if v6 { two.v6 } else { two.v4 }, 0)).expect("its address");
        let state = UdpSocketState::new((&sender).into()).expect("a socket");
        let burst = pattern(1200 * 20 + 700);
        let mut buffer = [0; 2000];
        for _ in 0..20 {
            let transmit =
                Transmit { destination: to, ecn: None, contents: &burst, segment_size: Some(1200), src_ip: None };
            state.try_send((&sender).into(), &transmit).expect("through the device");
            for datagram in burst.chunks(1200) {
                let len = receiver.recv(&mut buffer).expect("all arrive, nothing is between");
                assert!(buffer[..len] == *datagram, "{len} bytes");
            }
        }
        // Single ones, without a burst, too.
        for len in [1_usize, 1200, 1392 - usize::from(v6) * 20] {
            sender.send_to(&burst[..len], to).expect("through the device");
            assert_eq!(receiver.recv(&mut buffer).ok(), Some(len));
            assert_eq!(buffer[..len], burst[..len]);
        }
        let (one, two) = (one.stop().await, two.stop().await);
        assert_eq!(two.tun_in.super_packets.get(), 20, "read as bursts: {two:?}");
        assert_eq!(one.tun_out.super_packets.get(), 20, "written as bursts: {one:?}");
        assert_eq!(one.tun_out.packets.get(), 20 * 21 + 3);
        assert_eq!(one.uso_fallback.get(), 0);
    });
}

#[test]
fn udp_over_ipv4() {
    udp_bursts(false);
}

#[test]
fn udp_over_ipv6() {
    udp_bursts(true);
}

#[test]
fn a_deleted_device_stops_its_shard() {
    in_namespace(|| async {
        let sockets = Sockets::bind(0).expect("a port");
        let node = Node::start(1, sockets, SocketAddr::from((Ipv4Addr::LOCALHOST, 9))).await;
        let stopped = node.shard.stopped();
        node.wt0.remove().await.expect("removed");
        let stopped = tokio::time::timeout(Duration::from_secs(5), stopped).await.expect("it is noticed");
        assert!(matches!(&stopped.reason, StopReason::Io { what, .. } if what.contains("device")), "{stopped}");
        assert_eq!(node.shard.with_engine(|_, _| ()).await, Err(stopped));
    });
}
