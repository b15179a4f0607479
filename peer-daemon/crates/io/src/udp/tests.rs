use std::net::UdpSocket;

use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn bound() -> Sockets {
    Sockets::bind(0).expect("a free port")
}

fn to(ip: IpAddr, sockets: &Sockets, local: Option<IpAddr>) -> Path {
    Path::Udp { remote: SocketAddr::new(ip, sockets.port()), local }
}

fn batch(datagrams: impl IntoIterator<Item = (Vec<u8>, Path)>) -> DatagramBatch {
    let mut batch = DatagramBatch::with_capacity(1 << 20, 1024);
    assert!(datagrams.into_iter().all(|(bytes, path)| batch.push(&bytes, path)));
    batch
}

/// Waits for `count` datagrams.
fn receive(sockets: &mut Sockets, family: Family, count: usize, stats: &ShardStats) -> Vec<(Vec<u8>, Path)> {
    let mut batch = DatagramBatch::with_capacity(MESSAGES * MESSAGE_LEN, MESSAGES * MAX_SEGMENTS);
    let mut all = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    while all.len() < count && Instant::now() < end {
        batch.clear();
        sockets.receive(family, &mut batch, stats).expect("an open socket");
        all.extend(batch.iter().map(|(bytes, path)| (bytes.to_vec(), *path)));
    }
    all
}

#[test]
fn both_families_have_the_port_and_it_is_named_when_taken() {
    let sockets = bound();
    assert!(sockets.port() != 0 && sockets.has_ipv6());
    let again = Sockets::bind(sockets.port()).expect_err("taken");
    assert!(matches!(again, Error::PortInUse { port, family: "IPv4" } if port == sockets.port()), "{again}");
    assert!(again.to_string().contains("ss -lunp"));
    // Taken for IPv6 only.
    let other = UdpSocket::bind((V6, 0)).expect("a free port");
    let port = other.local_addr().expect("bound").port();
    let half = Sockets::bind(port).expect_err("taken");
    assert!(matches!(half, Error::PortInUse { family: "IPv6", .. }), "{half}");
}

#[test]
fn runs_leave_and_arrive_as_one_and_know_both_addresses() {
    for (family, ip) in [(Family::V4, V4), (Family::V6, V6)] {
        let (mut left, mut right) = (bound(), bound());
        let stats = ShardStats::default();
        let path = to(ip, &right, Some(ip));
        let datagrams: Vec<_> = (0..100_u8).map(|number| (vec![number; 1200], path)).collect();
        left.send(&batch(datagrams.clone()), &stats);
        assert_eq!((stats.udp_out.packets.get(), stats.udp_out.calls.get()), (100, 2), "54 datagrams fill a send");
        assert_eq!((stats.udp_out.bytes.get(), stats.udp_out.joined_packets.get()), (120_000, 100));
        let arrived = receive(&mut right, family, 100, &stats);
        let from = Path::Udp { remote: SocketAddr::new(ip, left.port()), local: Some(ip) };
        let expected: Vec<_> = datagrams.into_iter().map(|(bytes, _)| (bytes, from)).collect();
        assert!(arrived == expected, "{} arrived", arrived.len());
        assert!(stats.udp_in.calls.get() < 20, "{} receiving calls", stats.udp_in.calls.get());
        assert_eq!((stats.udp_in.packets.get(), stats.udp_in.joined_packets.get()), (100, 100));
    }
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let (mut left, mut right) = (bound(), bound());
    let stats = ShardStats::default();
    let second = IpAddr::from([127, 0, 0, 9]);
    left.send(&batch([(b"ask".to_vec(), to(second, &right, None))]), &stats);
    let asked = receive(&mut right, Family::V4, 1, &stats);
    let Path::Udp { local, .. } = asked[0].1 else { panic!("another kind of path") };
    assert_eq!(local, Some(second));
    right.send(&batch([(b"answer".to_vec(), asked[0].1)]), &stats);
    let answer = receive(&mut left, Family::V4, 1, &stats);
    assert!(matches!(answer[0].1, Path::Udp { remote, .. } if remote.ip() == second), "{answer:?}");
}

#[test]
fn a_source_address_that_is_ours_no_more_is_replaced_and_costs_no_offload() {
    let (mut left, mut right) = (bound(), bound());
    let stats = ShardStats::default();
    for (family, ip, lost) in [(Family::V4, V4, "192.0.2.1"), (Family::V6, V6, "2001:db8::1")] {
        let path = to(ip, &right, Some(lost.parse().expect("an address")));
        for _ in 0..2 {
            left.send(&batch((0..10).map(|number| (vec![number; 500], path))), &stats);
            assert_eq!(receive(&mut right, family, 10, &stats).len(), 10);
        }
    }
    assert_eq!(stats.source_fallbacks.get(), 2, "once per family: then it is known");
    assert_eq!((stats.udp_out.super_packets.get(), stats.gso_fallback.get()), (4, 0));
}

#[test]
fn what_cannot_be_sent_is_counted_and_the_rest_goes() {
    let (mut left, mut right) = (bound(), bound());
    let stats = ShardStats::default();
    let there = to(V4, &right, None);
    // There is no port 0: EINVAL, which also is what a missing offload looks like.
    let nowhere = Path::Udp { remote: SocketAddr::new(V4, 0), local: None };
    let no = (b"no".to_vec(), nowhere);
    left.send(&batch([(vec![0; 65_535], there), no.clone(), no, (b"yes".to_vec(), there)]), &stats);
    assert_eq!(receive(&mut right, Family::V4, 1, &stats)[0].0, b"yes");
    assert_eq!((stats.drops(IoDrop::UdpTooBig), stats.drops(IoDrop::UdpOther)), (1, 2));
    assert_eq!(stats.udp_out.packets.get(), 1);
    left.send(&batch((0..9).map(|number| (vec![number; 99], there))), &stats);
    assert_eq!(stats.udp_out.super_packets.get(), 1, "segmentation is still trusted");
    assert_eq!(stats.gso_fallback.get(), 0);
}

#[test]
fn datagrams_that_fit_no_segment_go_one_by_one() {
    // Over loopback's MTU of 65536 nothing is too large: a run of two large ones simply does not fit one send.
    let (mut left, mut right) = (bound(), bound());
    let stats = ShardStats::default();
    let path = to(V4, &right, None);
    left.send(&batch([(vec![1; 40_000], path), (vec![2; 40_000], path)]), &stats);
    let arrived: Vec<_> = receive(&mut right, Family::V4, 2, &stats).iter().map(|(bytes, _)| bytes.len()).collect();
    assert_eq!(arrived, [40_000, 40_000]);
    assert_eq!((stats.udp_out.calls.get(), stats.udp_out.super_packets.get()), (2, 0));
}

#[test]
fn many_small_messages_come_by_few_calls() {
    let (left, mut right) = (UdpSocket::bind((V4, 0)).expect("a free port"), bound());
    let stats = ShardStats::default();
    for number in 0..40_u8 {
        // Alternating lengths: nothing to join.
        left.send_to(&vec![number; 10 + usize::from(number % 2) * 30], (V4, right.port())).expect("loopback");
    }
    let arrived = receive(&mut right, Family::V4, 40, &stats);
    assert!(arrived.iter().map(|(bytes, _)| bytes[0]).eq(0..40));
    assert_eq!(stats.udp_in.calls.get(), 5, "8 messages each");
}

#[test]
fn buffers_are_large() {
    let stats = ShardStats::default();
    bound().describe(&stats);
    // The kernel's default limit is 212992, doubled.
    assert!(stats.receive_buffer.get() >= 400_000 && stats.send_buffer.get() >= 400_000);
}

#[test]
fn stun_goes_to_the_tap_and_leaves_through_the_same_port() {
    for (family, ip) in [(Family::V4, V4), (Family::V6, V6)] {
        let (mut left, mut right) = (bound(), bound());
        let mut arrived_stun = right.tap_stun();
        let transmitter = left.transmitter().expect("a descriptor");
        let remote = SocketAddr::new(ip, right.port());
        let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        stun.extend([7; 12]);
        transmitter.send(remote, Some(ip), &stun).expect("loopback");
        let stats = ShardStats::default();
        left.send(&batch([(b"\x04\0\0\0".repeat(8), to(ip, &right, None))]), &stats);
        let rest = receive(&mut right, family, 1, &stats);
        assert_eq!(rest.len(), 1, "WireGuard's own stays: {rest:?}");
        let datagram = arrived_stun.try_recv().expect("it was sent before");
        assert_eq!((datagram.remote, datagram.local), (SocketAddr::new(ip, left.port()), Some(ip)));
        assert_eq!(*datagram.bytes, stun);
        left.tap_stun();
    }
}

#[test]
fn a_source_address_that_is_not_ours_is_an_error() {
    let sockets = bound();
    let transmitter = sockets.transmitter().expect("a descriptor");
    let foreign = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    transmitter.send(SocketAddr::new(V4, 9), Some(foreign), b"x").expect_err("nobody's address");
}
