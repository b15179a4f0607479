use std::net::IpAddr;

use peer_common::{Addr, TcpSeen};
use proptest::prelude::*;

use super::*;
use crate::flows::Names;
use crate::{Intent, PeerPrefixes, Wt0};

const SECOND: u64 = 1_000_000_000;
const AT: SystemTime = SystemTime::UNIX_EPOCH;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().expect("an address").into()
}

fn view() -> View {
    let names = Names {
        uplinks: [(2, "eth0".to_owned())].into(),
        routes: [(5, "198.51.100.0/24".parse().expect("a prefix"))].into(),
    };
    let peers = [PeerPrefixes { id: 3, prefixes: ["100.64.0.10/32".parse().expect("a prefix")].into() }].into();
    let intent = Intent {
        wt0: Wt0 { name: "wt0".into(), index: 3, mtu: 1420 },
        addresses: Vec::new(),
        peers,
        routes: Vec::new(),
        rules: [].into(),
        nat_ports: crate::DEFAULT_NAT_PORTS,
        nat_addresses: Vec::new(),
        listeners: Vec::new(),
        peer_quota: None,
        protect_node: false,
        reject: false,
        unsupported: Vec::new(),
    };
    View::default().next(names, &intent)
}

fn key() -> FlowKey {
    let (src, dst) = (addr("100.64.0.10"), addr("198.51.100.80"));
    FlowKey { src, dst, src_port: 40_000_u16.to_be(), dst_port: 80_u16.to_be(), protocol: 6 }
}

fn flow() -> Flow {
    Flow {
        nat_addr: addr("198.51.100.1"),
        nat_port: 21_000_u16.to_be(),
        created: 5 * SECOND,
        last_seen: 7 * SECOND,
        packets: 10,
        bytes: 1000,
        route_id: 5,
        policy_id: 7,
        kind: FlowKind::Masqueraded as u8,
        tcp_seen: TcpSeen::ACK,
        ..Flow::default()
    }
}

#[test]
fn a_removed_flow_has_all_and_lasts_until_its_last_packet() {
    let mapping = Mapping { last_seen: 9 * SECOND, packets: 20, bytes: 30_000, ..Mapping::default() };
    let ended = Ended { key: &key(), flow: &flow(), uplink: &|| 2, mapping: Some(&mapping), why: CloseReason::Expired };
    let record = FlowRecord::of_ended(&ended, &view(), AT).expect("a kind");
    assert_eq!(record.what, What::Closed(CloseReason::Expired));
    assert_eq!((record.peer.port, record.destination.port, record.nat.map(|end| end.port)), (40_000, 80, Some(21_000)));
    assert_eq!((record.uplink.as_deref(), record.route_id, record.rule), (Some("eth0"), Some(5), Some(7)));
    assert_eq!((record.route, record.peer_id), ("198.51.100.0/24".parse().ok(), Some(3)));
    assert_eq!(record.from_peer, PacketCount { packets: 10, bytes: 1000 });
    assert_eq!(record.to_peer, Some(PacketCount { packets: 20, bytes: 30_000 }));
    assert_eq!(record.duration, Duration::from_secs(4));
}

#[test]
fn a_dropped_packet_counts_for_its_direction_and_needs_no_flow() {
    let reason = DropReason::PolicyDefault;
    let event = |way| FlowEvent {
        event: EventKind::Dropped as u8,
        verdict: reason as u32 + 1,
        key: key(),
        len: 60,
        way: way as u8,
        route_id: 5,
        ..FlowEvent::default()
    };
    let record = FlowRecord::of_event(&event(Way::FromMesh), &view(), AT).expect("a reason");
    assert_eq!((record.what, record.kind), (What::Denied(reason, Direction::FromPeer), None));
    assert_eq!((record.from_peer.bytes, record.to_peer, record.rule), (60, Some(PacketCount::default()), None));
    let back = FlowRecord::of_event(&event(Way::FromUplink), &view(), AT).expect("a reason");
    assert_eq!((back.from_peer.bytes, back.to_peer), (0, Some(PacketCount { packets: 1, bytes: 60 })));
    let unknown = FlowEvent { verdict: DropReason::COUNT + 1, ..event(Way::FromMesh) };
    assert_eq!(FlowRecord::of_event(&unknown, &view(), AT), None, "a reason of another version");
}

#[test]
fn what_a_program_opens_and_forgets() {
    let event = |event| FlowEvent {
        event: event as u8,
        time: 8 * SECOND,
        created: 5 * SECOND,
        key: key(),
        nat_addr: flow().nat_addr,
        nat_port: flow().nat_port,
        packets: 3,
        reply_packets: 2,
        route_id: 5,
        policy_id: 7,
        kind: FlowKind::Masqueraded as u8,
        ..FlowEvent::default()
    };
    let opened = FlowRecord::of_event(&event(EventKind::Opened), &view(), AT).expect("a kind");
    assert_eq!((opened.what, opened.duration, opened.rule), (What::Opened, Duration::ZERO, Some(7)));
    let closed = FlowRecord::of_event(&event(EventKind::Closed), &view(), AT).expect("a kind");
    assert_eq!((closed.what, closed.duration), (What::Closed(CloseReason::Changed), Duration::from_secs(3)));
    assert_eq!((closed.from_peer.packets, closed.to_peer.map(|count| count.packets)), (3, Some(2)));
    assert_eq!(FlowRecord::of_event(&event(EventKind::Traced), &view(), AT), None, "for those who follow only");
    let of_node = FlowEvent { kind: FlowKind::ToNode as u8, ..event(EventKind::Opened) };
    let of_node = FlowRecord::of_event(&of_node, &view(), AT).expect("a kind");
    assert_eq!((of_node.to_peer, of_node.nat), (None, None), "its stack sends uncounted");
}

#[test]
fn reasons_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = CloseReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), CloseReason::ALL.len());
}

fn words<const N: usize>() -> impl Strategy<Value = [u32; N]> {
    any::<[u32; N]>()
}

proptest! {
    /// Bytes as the programs lay them out, put together here by offset, are read as the fields that they are.
    #[test]
    fn a_record_is_read_as_it_is_laid_out(
        counts in any::<[u64; 6]>(),
        addrs in words::<16>(),
        numbers in words::<10>(),
        ports in any::<[u16; 3]>(),
        (protocol, small) in (any::<u32>(), any::<[u8; 6]>()),
    ) {
        let mut bytes = Vec::new();
        counts.iter().for_each(|count| bytes.extend(count.to_ne_bytes()));
        addrs[..8].iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        ports[..2].iter().for_each(|port| bytes.extend(port.to_ne_bytes()));
        bytes.extend(protocol.to_ne_bytes());
        addrs[8..].iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        numbers.iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
        bytes.extend(ports[2].to_ne_bytes());
        bytes.extend(small);
        let addr = |at: usize| Addr { words: [addrs[at], addrs[at + 1], addrs[at + 2], addrs[at + 3]] };
        let [time, created, packets, bytes_out, reply_packets, reply_bytes] = counts;
        let [uplink, route_id, policy_id, peer_id, identity, class, policy_generation, mtu, len, verdict] = numbers;
        let [event, kind, way, judged, ttl, tcp_flags] = small;
        let expected = FlowEvent {
            time, created, packets, bytes: bytes_out, reply_packets, reply_bytes,
            key: FlowKey { src: addr(0), dst: addr(4), src_port: ports[0], dst_port: ports[1], protocol },
            nat_addr: addr(8), next_hop: addr(12),
            uplink, route_id, policy_id, peer_id, identity, class, policy_generation, mtu, len, verdict,
            nat_port: ports[2], event, kind, way, judged, ttl, tcp_flags,
        };
        prop_assert_eq!(FlowEvent::from_bytes(&bytes), Some(expected));
        prop_assert_eq!(FlowEvent::from_bytes(&bytes[1..]), None);
    }
}
