//! The loop with a stand-in for the TUN: one end of a packet socket pair. The kernel's TUN is in `tests/namespace`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use peer_core::batch::{DatagramBatch, PacketBatch};
use peer_core::path::Path;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::relay::{FrameBuffer, Framer, PortClosed, Unframed};
use crate::tun::Offloads;

const WAIT: Duration = Duration::from_secs(5);

/// Sends packets to one place as they are, and hands over datagrams as they came.
#[derive(Default)]
struct Copying {
    remote: Option<Path>,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<String>,
    due: Option<Instant>,
}

impl Engine for Copying {
    type Event = String;
    const OVERHEAD: usize = 0;

    fn handle_datagrams(&mut self, _: Instant, datagrams: &mut DatagramBatch, packets: &mut PacketBatch) {
        for (datagram, _) in datagrams.iter() {
            if datagram == b"panic" {
                panic!("as told");
            }
            assert!(packets.push(datagram, ()));
        }
        self.events.push_back(format!("datagrams {}", datagrams.len()));
    }

    fn handle_packets(&mut self, _: Instant, packets: &PacketBatch, datagrams: &mut DatagramBatch) {
        let Some(remote) = self.remote else { return };
        for (packet, ()) in packets.iter() {
            assert!(datagrams.push(packet, remote));
        }
    }

    fn handle_timeout(&mut self, _: Instant) {
        self.due = None;
        self.events.push_back("timeout".into());
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.due
    }

    fn poll_transmit(&mut self, datagrams: &mut DatagramBatch) -> bool {
        // One at a time, to be asked again.
        if let (Some(bytes), Some(remote)) = (self.transmits.pop_front(), self.remote) {
            assert!(datagrams.push(&bytes, remote));
        }
        !self.transmits.is_empty()
    }

    fn poll_event(&mut self) -> Option<String> {
        self.events.pop_front()
    }
}

struct Lab {
    shard: Shard<Copying>,
    /// The kernel's end of the device.
    device: OwnedFd,
    peer: UdpSocket,
    port: u16,
    events: std_mpsc::Receiver<String>,
}

fn lab() -> Lab {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (device, queue) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket pair");
    let queue = TunQueue::new(queue, Offloads { tcp: true, udp: true }, 1420, 1024);
    let sockets = Sockets::bind(0).expect("a free port");
    let port = sockets.port();
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    peer.set_read_timeout(Some(WAIT)).expect("a socket");
    let remote = peer.local_addr().ok().map(|remote| Path::Udp { remote, local: None });
    let engine = Copying { remote, ..Copying::default() };
    let (tell, events) = std_mpsc::channel();
    let config = ShardConfig { id: ShardId::ONLY, mtu: 1420 };
    let shard = spawn(config, engine, queue, sockets, move |event| _ = tell.send(event)).expect("a thread");
    Lab { shard, device, peer, port, events }
}

fn read_device(lab: &Lab) -> Vec<u8> {
    let end = Instant::now() + WAIT;
    let mut frame = [0; 2000];
    loop {
        match rustix::io::read(&lab.device, &mut frame) {
            Ok(len) => return frame[..len].to_vec(),
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("nothing on the device: {error}"),
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

#[test]
fn packets_go_out_and_datagrams_come_in() {
    let lab = lab();
    let frame = [&[0; 10][..], b"\x45packet"].concat();
    rustix::io::write(&lab.device, &frame).expect("an open device");
    let mut buffer = [0; 100];
    let len = lab.peer.recv(&mut buffer).expect("a datagram");
    assert_eq!(&buffer[..len], b"\x45packet");
    lab.peer.send_to(b"\x45answer", (Ipv4Addr::LOCALHOST, lab.port)).expect("loopback");
    assert_eq!(read_device(&lab), [&[0; 10][..], b"\x45answer"].concat());
    assert_eq!(lab.events.recv_timeout(WAIT).as_deref(), Ok("datagrams 1"));
    let stats = lab.shard.stats();
    assert_eq!((stats.tun_in.packets.get(), stats.tun_in.bytes.get(), stats.udp_out.bytes.get()), (1, 7, 7));
    assert_eq!((stats.udp_in.packets.get(), stats.tun_out.packets.get(), stats.tun_out.bytes.get()), (1, 1, 7));
    assert_eq!(lab.shard.stop(), StopReason::Requested);
}

/// Frames are datagrams.
struct Bare;

impl Framer for Bare {
    const OVERHEAD: usize = 0;

    fn frame(&mut self, _: u32, datagram: &[u8], room: &mut [u8]) -> Result<usize, Unframed> {
        room.copy_from_slice(datagram);
        Ok(datagram.len())
    }
}

#[test]
fn relays_stand_beside_sockets() {
    let lab = lab();
    let relay = lab.shard.relay_port().attach(Bare);
    let path = relay.path(1);
    let answers = block_on(async {
        lab.shard.with_engine(move |engine, _| engine.remote = Some(path)).await.expect("running");
        rustix::io::write(&lab.device, &[&[0; 10][..], b"\x45packet"].concat()).expect("an open device");
        let mut buffer = FrameBuffer::new();
        poll_fn(|cx| relay.poll_frames(cx, &mut buffer)).await.expect("running");
        assert_eq!(buffer.bytes(), b"\x45packet");
        let mut batch = poll_fn(|cx| relay.poll_batch(cx)).await.expect("running");
        assert!(batch.push(b"\x45one", path) && batch.push(b"\x45two", path));
        relay.deliver(batch);
        [read_device(&lab), read_device(&lab)]
    });
    assert_eq!(answers, [b"\x45one", b"\x45two"].map(|packet| [&[0; 10][..], packet].concat()));
    assert_eq!(lab.events.recv_timeout(WAIT).as_deref(), Ok("datagrams 2"));
    assert_eq!(lab.shard.stop(), StopReason::Requested);
    let end = block_on(poll_fn(|cx| relay.poll_frames(cx, &mut FrameBuffer::new())));
    assert_eq!(end, Err(PortClosed), "connections learn that the shard has stopped");
}

#[test]
fn calls_run_on_the_thread_and_their_consequences_follow_at_once() {
    let lab = lab();
    let name = block_on(lab.shard.with_engine(|engine, now| {
        engine.transmits = (0..100_u8).map(|number| vec![number]).collect();
        engine.events.push_back("called".into());
        engine.due = Some(now + Duration::from_millis(5));
        std::thread::current().name().map(str::to_owned)
    }));
    assert_eq!(name, Ok(Some("shard-0".into())));
    assert_eq!(lab.events.recv_timeout(WAIT).as_deref(), Ok("called"));
    let mut buffer = [0; 10];
    for number in 0..100 {
        assert_eq!(lab.peer.recv(&mut buffer).ok(), Some(1), "more than one turn allows");
        assert_eq!(buffer[0], number);
    }
    assert_eq!(lab.events.recv_timeout(WAIT).as_deref(), Ok("timeout"));
}

#[test]
fn an_idle_shard_sleeps() {
    let lab = lab();
    block_on(lab.shard.with_engine(|_, _| ())).expect("running");
    let stats = lab.shard.stats();
    // It may have a turn to end, and none begins in the time after.
    std::thread::sleep(Duration::from_millis(50));
    let turns = stats.turns.get();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(stats.turns.get(), turns);
}

#[test]
fn the_end_is_told_with_its_reason() {
    let lab = lab();
    let stopped = lab.shard.stopped();
    lab.peer.send_to(b"panic", (Ipv4Addr::LOCALHOST, lab.port)).expect("loopback");
    let reason = StopReason::Panicked("as told".into());
    assert_eq!(block_on(stopped), Stopped { reason: reason.clone() });
    let call = block_on(lab.shard.with_engine(|_, _| ()));
    assert_eq!(call, Err(Stopped { reason: reason.clone() }));
    assert_eq!(lab.shard.stop(), reason);
}

#[test]
fn a_call_that_panics_ends_the_shard_and_the_caller_is_told() {
    let lab = lab();
    let call: Result<(), _> = block_on(lab.shard.with_engine(|_, _| panic!("in a call")));
    assert_eq!(call, Err(Stopped { reason: StopReason::Panicked("in a call".into()) }));
}

#[test]
fn dropping_it_ends_the_thread_and_closes_everything() {
    let Lab { shard, device, events, port, .. } = lab();
    let stopped = shard.stopped();
    drop(shard);
    assert_eq!(block_on(stopped), Stopped { reason: StopReason::Requested });
    assert!(events.recv().is_err(), "the callback is gone with the thread");
    assert!(rustix::io::write(&device, b"\x45").is_err(), "the queue is closed");
    assert!(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(), "the port is free");
}
