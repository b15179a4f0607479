mod build;
mod fragments;

use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;
use zerocopy::FromBytes as _;

use self::build::{Packet, is_intact};
use super::split::Splitter;
use super::vnet::{self, VnetHeader};
use super::write::Writer;
use super::*;

const ALL: Offloads = Offloads { tcp: true, udp: true };

fn batch(packets: &[Vec<u8>]) -> PacketBatch {
    let mut batch = PacketBatch::with_capacity(packets.iter().map(Vec::len).sum(), packets.len());
    assert!(packets.iter().all(|packet| batch.push(packet, ())));
    batch
}

fn packets(batch: &PacketBatch) -> Vec<Vec<u8>> {
    batch.iter().map(|(packet, ())| packet.to_vec()).collect()
}

/// The frames that a kernel would get.
fn written(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let stats = ShardStats::default();
    Writer::new(ALL, packets.len())
        .write(&batch(packets), &stats, |parts| {
            frames.push(parts.iter().flat_map(|part| part.iter().copied()).collect());
            Ok(0)
        })
        .expect("the stand-in never fails");
    let total: usize = packets.iter().map(Vec::len).sum();
    assert_eq!(stats.tun_out.packets.get(), packets.len() as u64);
    assert_eq!(stats.tun_out.bytes.get(), total as u64);
    assert_eq!(stats.tun_out.calls.get(), frames.len() as u64);
    frames
}

fn split(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut batch = PacketBatch::with_capacity(1 << 20, 1 << 16);
    Splitter::new().start(frame, usize::from(u16::MAX), &mut batch).expect("a frame that we made ourselves");
    packets(&batch)
}

fn vnet_of(frame: &[u8]) -> VnetHeader {
    VnetHeader::read_from_prefix(frame).expect("a frame").0
}

/// How many packets are in each frame.
fn shape(packets: &[Vec<u8>]) -> Vec<usize> {
    written(packets).iter().map(|frame| split(frame).len()).collect()
}

fn stream(flow: u8, sizes: &[usize]) -> Vec<Packet> {
    let mut seq = u32::MAX - 5;
    let mut id = 0;
    let packet = |&size: &usize| {
        let packet = Packet { id, ..Packet::tcp(flow, seq, &vec![size as u8; size]) };
        id += 1;
        seq = seq.wrapping_add(size as u32);
        packet
    };
    sizes.iter().map(packet).collect()
}

fn bytes(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::bytes).collect()
}

#[test]
fn joins_a_stream_and_ends_at_the_shorter_one() {
    assert_eq!(shape(&bytes(&stream(1, &[100, 100, 40, 100, 100]))), [3, 2]);
    assert_eq!(shape(&bytes(&stream(1, &[40, 100, 100]))), [1, 2], "a longer one begins anew");
}

#[test]
fn a_super_packet_says_what_the_kernel_has_to_do() {
    let mut packets = stream(1, &[1000, 1000, 10]);
    packets[2].flags |= 0x09;
    let frame = &written(&bytes(&packets))[0];
    let expected = VnetHeader {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_TCPV4,
        hdr_len: 52,
        gso_size: 1000,
        csum_start: 20,
        csum_offset: 16,
    };
    assert_eq!(vnet_of(frame), expected);
    let packet = &frame[vnet::LEN..];
    assert_eq!(packet.len(), 52 + 2010);
    assert_eq!(packet[2..4], 2062_u16.to_be_bytes());
    assert_eq!(packet[33], 0x19, "FIN and PSH of the last one");
    // The sum of the pseudo-header stands in the checksum's place.
    let pseudo = [&packet[12..20], &[0, 6], &2042_u16.to_be_bytes()].concat();
    assert_eq!(packet[36..38], (!crate::checksum::tests::naive(&pseudo)).to_be_bytes());
    assert_eq!(split(frame), bytes(&packets));
}

#[test]
fn interleaved_flows_are_joined_each_for_itself() {
    let (one, two) = (stream(1, &[100; 4]), stream(2, &[90; 4]));
    let udp: Vec<Packet> = (0..4).map(|number| Packet::udp(3, &[number; 80])).collect();
    let mixed: Vec<Packet> = (0..4).flat_map(|i| [one[i].clone(), two[i].clone(), udp[i].clone()]).collect();
    assert_eq!(shape(&bytes(&mixed)), [4, 4, 4]);
}

#[test]
fn joins_only_what_segmentation_would_make_again() {
    type Change = (&'static str, fn(&mut Packet));
    let changes: [Change; 11] = [
        ("a gap", |packet| packet.seq += 1),
        ("another acknowledgement", |packet| packet.ack += 1),
        ("another window", |packet| packet.window += 1),
        ("another time stamp", |packet| packet.options[7] += 1),
        ("fewer options", |packet| packet.options.truncate(8)),
        ("another TOS", |packet| packet.tos = 4),
        ("another TTL", |packet| packet.ttl -= 1),
        ("another DF", |packet| packet.dont_fragment = false),
        ("SYN", |packet| packet.flags |= 2),
        ("RST", |packet| packet.flags |= 4),
        ("CWR", |packet| packet.flags |= 0x80),
    ];
    for (what, change) in changes {
        let mut packets = stream(1, &[100; 4]);
        assert_eq!(shape(&bytes(&packets)), [4]);
        change(&mut packets[1]);
        let shape = shape(&bytes(&packets));
        assert_eq!(shape[..2], [1, 1], "{what}");
    }
    let mut packets = stream(1, &[100; 4]);
    packets[1].flags |= 8;
    assert_eq!(shape(&bytes(&packets)), [2, 2], "PSH ends a group");
    let mut packets = stream(1, &[100, 100, 0, 100]);
    assert_eq!(shape(&bytes(&packets)), [2, 1, 1], "an empty segment carries no data");
    packets.retain(|packet| !packet.payload.is_empty());
    packets.iter_mut().for_each(|packet| (packet.dont_fragment, packet.id) = (false, 5));
    assert_eq!(shape(&bytes(&packets)), [1, 1, 1], "identifications that stand still");
    (0..).zip(&mut packets).for_each(|(id, packet)| packet.id = id);
    assert_eq!(shape(&bytes(&packets)), [3], "identifications that count up");
}

#[test]
fn broken_checksums_are_neither_joined_nor_repaired() {
    for (victim, expected) in [(0, vec![1, 3]), (1, vec![1, 1, 2])] {
        for at in [10, 36, 60] {
            let mut packets = bytes(&stream(1, &[100; 4]));
            packets[victim][at] ^= 1;
            let frames = written(&packets);
            assert_eq!(frames.iter().map(|frame| split(frame).len()).collect::<Vec<_>>(), expected, "byte {at}");
            assert_eq!(frames[victim][vnet::LEN..], packets[victim]);
            assert_eq!(vnet_of(&frames[victim]), VnetHeader::default());
        }
    }
    let mut packets = bytes(&[Packet::udp(1, &[1; 50]), Packet::udp(1, &[2; 50])]);
    assert_eq!(shape(&packets), [2]);
    packets.iter_mut().for_each(|packet| packet[26..28].fill(0));
    assert_eq!(shape(&packets), [1, 1], "UDP without a checksum");
}

#[test]
fn a_packet_without_ports_is_not_overtaken() {
    let mut packets = bytes(&stream(1, &[100; 4]));
    packets[2][6] |= 0x20;
    let frames = written(&packets);
    let order: Vec<_> = frames.iter().flat_map(|frame| split(frame)).collect();
    assert_eq!(order, packets, "the fragment stays third");
    assert_eq!(frames.len(), 3);
}

#[test]
fn limits_of_a_super_packet_hold() {
    let packets: Vec<Packet> = (0..200).map(|_| Packet::udp(1, &[7; 20])).collect();
    assert_eq!(shape(&bytes(&packets)), [64, 64, 64, 8], "as many datagrams as the oldest kernels take");
    assert_eq!(shape(&bytes(&stream(1, &[20; 200]))), [128, 72]);
    let frames = written(&bytes(&stream(1, &[1400; 100])));
    assert_eq!(frames.iter().map(Vec::len).max(), Some(vnet::LEN + 52 + 46 * 1400));
}

#[test]
fn more_flows_than_the_table_holds_keep_their_order() {
    let flows: Vec<Vec<Packet>> = (0..100).map(|flow| stream(flow, &[60; 3])).collect();
    let mixed: Vec<Packet> = (0..3).flat_map(|i| flows.iter().map(move |flow| flow[i].clone())).collect();
    let mixed = bytes(&mixed);
    let out: Vec<_> = written(&mixed).iter().flat_map(|frame| split(frame)).collect();
    assert_eq!(by_flow(&out), by_flow(&mixed));
}

#[test]
fn a_refused_super_packet_goes_packet_by_packet_from_then_on() {
    let packets = batch(&bytes(&stream(1, &[100; 4])));
    let stats = ShardStats::default();
    let mut writer = Writer::new(ALL, 4);
    for errno in [libc::EINVAL, libc::EIO] {
        let mut calls = 0;
        let down = writer.write(&packets, &stats, |_| {
            calls += 1;
            Err(io::Error::from_raw_os_error(errno))
        });
        assert!(down.is_ok());
        assert_eq!((calls, writer.offloads()), (5, ALL), "a device that takes nothing says nothing about offloads");
    }
    assert_eq!((stats.drops(IoDrop::TunRefused), stats.drops(IoDrop::TunDown)), (4, 4));
    for expected in [5, 4] {
        let mut calls = 0;
        let refusing = writer.write(&packets, &stats, |parts| {
            calls += 1;
            if parts.len() > 2 { Err(io::Error::from_raw_os_error(libc::EINVAL)) } else { Ok(0) }
        });
        assert!(refusing.is_ok());
        assert_eq!(calls, expected);
    }
    assert_eq!(writer.offloads(), Offloads { tcp: false, udp: true });
    assert_eq!((stats.tso_fallback.get(), stats.uso_fallback.get(), stats.tun_out.packets.get()), (1, 0, 8));
    let gone = writer.write(&packets, &stats, |_| Err(io::Error::from_raw_os_error(libc::EBADFD)));
    assert_eq!(gone.expect_err("gone").raw_os_error(), Some(libc::EBADFD));
}

/// A super-packet as the kernel makes it, with flags as given.
fn kernel_frame(flags: u8, payload: usize, size: u16, v6: bool) -> Vec<u8> {
    let packet = Packet { v6, flags, id: 0xfffe, ..Packet::tcp(1, 9, &vec![3; payload]) };
    let mut packet = packet.bytes();
    let l4 = if v6 { 40 } else { 20 };
    let addresses = if v6 { &packet[8..40] } else { &packet[12..20] };
    let pseudo = [addresses, &[0, 6], &((packet.len() - l4) as u16).to_be_bytes()].concat();
    let partial = !crate::checksum::tests::naive(&pseudo);
    packet[l4 + 16..l4 + 18].copy_from_slice(&partial.to_be_bytes());
    let gso_type = if v6 { vnet::GSO_TCPV6 } else { vnet::GSO_TCPV4 } | vnet::GSO_ECN;
    let header = VnetHeader {
        flags: vnet::NEEDS_CSUM,
        gso_type,
        hdr_len: (l4 + 32) as u16,
        gso_size: size,
        csum_start: l4 as u16,
        csum_offset: 16,
    };
    [zerocopy::IntoBytes::as_bytes(&header), &packet].concat()
}

#[test]
fn splitting_sets_flags_numbers_and_checksums_of_each_segment() {
    for v6 in [false, true] {
        let packets = split(&kernel_frame(0xd9, 250, 100, v6));
        let l4 = if v6 { 40 } else { 20 };
        assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [l4 + 132, l4 + 132, l4 + 82]);
        assert_eq!(packets.iter().map(|packet| packet[l4 + 13]).collect::<Vec<_>>(), [0xd0, 0x50, 0x59]);
        let seq: Vec<u8> = packets.iter().map(|packet| packet[l4 + 7]).collect();
        assert_eq!(seq, [9, 109, 209]);
        assert!(packets.iter().all(|packet| is_intact(packet)));
        if !v6 {
            let ids: Vec<_> = packets.iter().map(|packet| packet[4..6].to_vec()).collect();
            assert_eq!(ids, [[0xff, 0xfe], [0xff, 0xff], [0, 0]]);
        }
    }
}

#[test]
fn segments_beyond_the_mtu_are_cut_smaller() {
    let mut batch = PacketBatch::with_capacity(1 << 16, 99);
    Splitter::new().start(&kernel_frame(0x18, 3000, 1400, false), 1280, &mut batch).expect("well-formed");
    let packets = packets(&batch);
    assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [1280, 1280, 596]);
    assert!(packets.iter().all(|packet| is_intact(packet)));
}

#[test]
fn splitting_goes_on_where_the_batch_was_full() {
    let frame = kernel_frame(0x18, 1000, 100, false);
    let whole = split(&frame);
    let mut splitter = Splitter::new();
    let mut batch = PacketBatch::with_capacity(1 << 16, 3);
    splitter.start(&frame, 1500, &mut batch).expect("well-formed");
    let mut parts = packets(&batch);
    while splitter.has_more() {
        batch.clear();
        splitter.resume(&frame, &mut batch);
        parts.extend(packets(&batch));
    }
    assert_eq!(parts, whole);
    assert_eq!(whole.len(), 10);
}

#[test]
fn contradicting_headers_are_refused() {
    let change: [fn(&mut Vec<u8>); 8] = [
        |frame| frame.truncate(5),
        |frame| frame.truncate(10),
        |frame| frame.truncate(30),
        |frame| frame[1] = 9,
        |frame| frame[4..6].fill(0),
        |frame| frame[6..8].fill(0xff),
        |frame| frame[8] = 6,
        |frame| frame[10] = 0,
    ];
    for (number, change) in change.into_iter().enumerate() {
        let mut frame = kernel_frame(0x10, 300, 100, false);
        change(&mut frame);
        let mut batch = PacketBatch::with_capacity(1 << 16, 9);
        assert_eq!(Splitter::new().start(&frame, 1500, &mut batch), Err(Malformed), "{number}");
        assert!(batch.is_empty());
    }
}

#[test]
fn unfinished_checksums_of_single_packets_are_completed() {
    let packet = Packet::udp(1, b"hello");
    let mut frame = [&[0; vnet::LEN][..], &packet.bytes()].concat();
    let pseudo = [&frame[22..30], &[0, 17, 0, 13]].concat();
    frame[36..38].copy_from_slice(&(!crate::checksum::tests::naive(&pseudo)).to_be_bytes());
    let header = VnetHeader { flags: vnet::NEEDS_CSUM, csum_start: 20, csum_offset: 6, ..VnetHeader::default() };
    frame[..vnet::LEN].copy_from_slice(zerocopy::IntoBytes::as_bytes(&header));
    assert_eq!(split(&frame), [packet.bytes()]);
}

fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for packet in packets {
        let key = match packet.first().map(|byte| byte >> 4) {
            Some(4) if packet.len() >= 24 => [&packet[9..10], &packet[12..24]].concat(),
            Some(6) if packet.len() >= 44 => [&packet[6..7], &packet[8..44]].concat(),
            _ => Vec::new(),
        };
        let mut packet = packet.clone();
        // With DF the identification has no meaning (RFC 6864), and joining does not keep it.
        if packet.len() >= 20 && packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        flows.entry(key).or_default().push(packet);
    }
    flows
}

/// Streams with now and then something odd about a packet.
fn traffic() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = (0_u8..4, prop_oneof![4 => Just(100_usize), 1 => 0_usize..300], 0_u8..24, any::<[u8; 2]>());
    prop::collection::vec(one, 0..120).prop_map(|steps| {
        let mut seq = [0_u32; 4];
        let mut ids = [0_u16; 4];
        let step = |(flow, size, odd, [at, value]): (u8, usize, u8, [u8; 2])| {
            let place = usize::from(flow);
            let payload: Vec<u8> = (0..size).map(|byte| byte as u8 ^ value).collect();
            let mut packet =
                if flow % 2 == 0 { Packet::tcp(flow, seq[place], &payload) } else { Packet::udp(flow, &payload) };
            packet.v6 = flow / 2 == 1;
            packet.dont_fragment = value % 2 == 0;
            packet.id = ids[place];
            match odd {
                0 => packet.flags = value,
                1 => packet.ack += 1,
                2 => packet.seq += 1,
                3 => packet.window = value.into(),
                4 => packet.tos = value,
                5 => packet.ttl = value,
                6 => packet.id = value.into(),
                7 => packet.flags |= 0x08,
                _ => {}
            }
            seq[place] = packet.seq.wrapping_add(size as u32);
            ids[place] = packet.id.wrapping_add(1);
            let mut bytes = packet.bytes();
            match odd {
                8 => {
                    let at = usize::from(at) % bytes.len();
                    bytes[at] = value;
                }
                9 => bytes.truncate(at.into()),
                10 => bytes.push(value),
                _ => {}
            }
            bytes
        };
        steps.into_iter().map(step).collect()
    })
}

proptest! {
    #[test]
    fn joined_and_split_again_it_is_the_same_per_flow(packets in traffic()) {
        let frames = written(&packets);
        let mut out = Vec::new();
        for frame in &frames {
            if frame.len() == vnet::LEN {
                // An empty packet, which only a stand-in takes.
                out.push(Vec::new());
                continue;
            }
            let parts = split(frame);
            if vnet_of(frame).gso_type != vnet::GSO_NONE {
                prop_assert!(parts.len() > 1 && parts.iter().all(|packet| is_intact(packet)));
            }
            out.extend(parts);
        }
        prop_assert_eq!(by_flow(&out), by_flow(&packets));
    }

    #[test]
    fn no_bytes_from_a_peer_make_it_panic_and_they_pass_unchanged(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..90), 0..20),
        version in 0_u8..16,
    ) {
        let packets: Vec<Vec<u8>> =
            packets.into_iter().map(|mut packet| { packet[0] = version << 4 | packet[0] & 0xf; packet }).collect();
        let out: Vec<_> = written(&packets).iter().map(|frame| frame[vnet::LEN..].to_vec()).collect();
        prop_assert_eq!(out, packets);
    }

    #[test]
    fn no_frame_makes_it_panic(
        mut frame in prop::collection::vec(any::<u8>(), 0..200),
        header in prop::option::of((0_u8..2, prop::sample::select(vec![0, 1, 4, 5, 0x81, 3]), 0_u16..70, 0_u16..20, any::<bool>())),
        mtu in 0_usize..1500,
    ) {
        if let (Some((flags, gso_type, csum_start, csum_offset, v6)), true) = (header, frame.len() > vnet::LEN) {
            let header = VnetHeader { flags, gso_type, hdr_len: 0, gso_size: 40, csum_start, csum_offset };
            frame[..vnet::LEN].copy_from_slice(zerocopy::IntoBytes::as_bytes(&header));
            frame[vnet::LEN] = if v6 { 0x60 } else { 0x45 };
        }
        let mut batch = PacketBatch::with_capacity(1 << 16, 300);
        // Whether it is taken for well-formed does not matter here.
        _ = Splitter::new().start(&frame, mtu, &mut batch);
    }
}
