//! Packets larger than the MTU: put together again by other means than they were cut.

use super::*;

/// What came out, and how many were fragmented and dropped; the batch holds `items` at a time.
fn cut(frame: &[u8], mtu: usize, items: usize) -> (Vec<Vec<u8>>, u64, u64) {
    let mut splitter = Splitter::new();
    let mut batch = PacketBatch::with_capacity(1 << 17, items);
    splitter.start(frame, mtu, &mut batch).expect("well-formed");
    let mut out = packets(&batch);
    while splitter.has_more() {
        batch.clear();
        splitter.resume(frame, &mut batch);
        assert!(!batch.is_empty(), "no progress");
        out.extend(packets(&batch));
    }
    let oversize = splitter.take_oversize();
    (out, oversize.fragmented, oversize.dropped)
}

fn plain(packet: &[u8]) -> Vec<u8> {
    [&[0; vnet::LEN][..], packet].concat()
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// As a receiver does it (RFC 791 §3.2): by identification and offset, in whatever order they come.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = vec![None; 1 << 16];
    let mut total = None;
    for fragment in fragments {
        assert_eq!(crate::checksum::tests::naive(&fragment[..20]), 0, "header checksum");
        assert_eq!(usize::from(word(fragment, 2)), fragment.len());
        let same = |range: std::ops::Range<usize>| fragment[range.clone()] == fragments[0][range];
        assert!(same(0..2) && same(4..6) && same(8..10) && same(12..20));
        let (flags, offset) = (fragment[6] >> 5, usize::from(word(fragment, 6) & 0x1fff) * 8);
        for (place, &byte) in payload[offset..].iter_mut().zip(&fragment[20..]) {
            assert!(place.replace(byte).is_none(), "overlap");
        }
        if flags & 1 == 0 {
            assert!(total.replace(offset + fragment.len() - 20).is_none(), "two last fragments");
        }
    }
    let payload: Option<Vec<u8>> = payload[..total.expect("a last fragment")].iter().copied().collect();
    let mut header = fragments[0][..20].to_vec();
    let payload = payload.expect("no gap");
    header[2..4].copy_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
    header[6] &= 0x80;
    header[7] = 0;
    header[10..12].fill(0);
    let checksum = crate::checksum::tests::naive(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [header, payload].concat()
}

/// A datagram that may be fragmented.
fn datagram(payload: usize) -> Packet {
    let payload: Vec<u8> = (0..payload).map(|byte| (byte * 7 + byte / 256) as u8).collect();
    Packet { dont_fragment: false, id: 0xfffe, ..Packet::udp(1, &payload) }
}

/// A UDP super-packet as the kernel makes it, of datagrams of `size` bytes.
fn super_datagram(packet: &Packet, size: u16) -> Vec<u8> {
    let l4 = if packet.v6 { 40 } else { 20 };
    let mut bytes = packet.bytes();
    let addresses = if packet.v6 { &bytes[8..40] } else { &bytes[12..20] };
    let pseudo = [addresses, &[0, 17], &((bytes.len() - l4) as u16).to_be_bytes()].concat();
    bytes[l4 + 6..l4 + 8].copy_from_slice(&(!crate::checksum::tests::naive(&pseudo)).to_be_bytes());
    let header = VnetHeader {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_UDP_L4,
        hdr_len: l4 as u16 + 8,
        gso_size: size,
        csum_start: l4 as u16,
        csum_offset: 6,
    };
    [zerocopy::IntoBytes::as_bytes(&header), &bytes].concat()
}

#[test]
fn an_answer_of_the_uplinks_size_fits_in_two() {
    let packet = datagram(1472).bytes();
    assert_eq!(packet.len(), 1500);
    let (out, fragmented, dropped) = cut(&plain(&packet), 1420, 9);
    assert_eq!((fragmented, dropped), (1, 0));
    assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [1420, 100]);
    assert_eq!(out.iter().map(|packet| word(packet, 6)).collect::<Vec<_>>(), [0x2000, 175]);
    assert_eq!(reassembled(&out), packet);
    let (out, fragmented, dropped) = cut(&plain(&packet), 1500, 9);
    assert_eq!((out, fragmented, dropped), (vec![packet], 0, 0), "as large as the MTU");
}

#[test]
fn what_must_not_be_fragmented_is_dropped_and_counted() {
    let v6 = Packet { v6: true, ..datagram(1460) }.bytes();
    let dont = Packet { dont_fragment: true, ..datagram(1460) }.bytes();
    let mut options = datagram(1460).bytes();
    options[0] = 0x46;
    let mut longer = datagram(1460).bytes();
    longer.push(0);
    let mut beyond = datagram(1460).bytes();
    beyond[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
    for packet in [v6, dont, options, longer, beyond] {
        assert_eq!(cut(&plain(&packet), 1420, 9), (vec![], 0, 1), "{:02x?}", &packet[..20]);
    }
    assert_eq!(cut(&plain(&datagram(40).bytes()), 27, 9), (vec![], 0, 1), "no room for eight bytes");
}

#[test]
fn datagrams_of_a_super_packet_are_fragmented_one_by_one() {
    let whole = datagram(3 * 1440 + 10);
    let datagrams = (0..).zip(whole.payload.chunks(1440)).map(|(number, payload)| {
        Packet { id: whole.id.wrapping_add(number), payload: payload.to_vec(), ..whole.clone() }.bytes()
    });
    let datagrams: Vec<_> = datagrams.collect();
    let frame = super_datagram(&whole, 1440);
    for items in [1, 2, 99] {
        let (out, fragmented, dropped) = cut(&frame, 1420, items);
        assert_eq!((out.len(), fragmented, dropped), (7, 3, 0));
        for (number, datagram) in datagrams.iter().enumerate() {
            let end = out.len().min(2 * number + 2);
            let again = reassembled(&out[2 * number..end]);
            assert_eq!(&again, datagram);
            assert!(is_intact(&again));
        }
    }
    for packet in [Packet { dont_fragment: true, ..whole.clone() }, Packet { v6: true, ..whole.clone() }] {
        let (out, fragmented, dropped) = cut(&super_datagram(&packet, 1440), 1420, 99);
        assert_eq!((out.len(), fragmented, dropped), (1, 0, 3), "the last one fits");
        assert!(is_intact(&out[0]));
    }
}

#[test]
fn reading_counts_them() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (device, queue) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket pair");
    let mut queue = TunQueue::new(queue, ALL, 1420, 16);
    let dont = Packet { dont_fragment: true, ..datagram(1460) };
    for packet in [datagram(1460), dont, datagram(4)] {
        rustix::io::write(&device, &plain(&packet.bytes())).expect("an open device");
    }
    let (stats, mut batch) = (ShardStats::default(), PacketBatch::with_capacity(1 << 18, 16));
    assert_eq!(queue.read(&mut batch, 9, &stats).expect("an open device"), ReadEnd::Empty);
    assert_eq!(stats.tun_in.packets.get(), 3, "two fragments and the small one");
    assert_eq!((stats.fragmented.get(), stats.drops(IoDrop::TunTooBig)), (1, 1));
    assert_eq!(stats.tun_in.super_packets.get(), 0);
}

proptest! {
    #[test]
    fn fragments_reassemble_to_the_original(
        payload in 1_usize..20_000,
        mtu in 28_usize..1500,
        items in 1_usize..40,
        reserved in any::<bool>(),
    ) {
        let mut packet = datagram(payload).bytes();
        if reserved {
            packet[6] |= 0x80;
            packet[10..12].fill(0);
            let checksum = crate::checksum::tests::naive(&packet[..20]);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        let (mut out, fragmented, dropped) = cut(&plain(&packet), mtu, items);
        prop_assert_eq!((fragmented, dropped), (u64::from(packet.len() > mtu), 0));
        prop_assert!(out.iter().all(|fragment| fragment.len() <= mtu));
        out.reverse();
        prop_assert_eq!(reassembled(&out), packet);
    }

    #[test]
    fn fragments_of_fragments_reassemble_too(payload in 1500_usize..9000, outer in 700_usize..1500, inner in 60_usize..700) {
        let packet = datagram(payload).bytes();
        let (first, ..) = cut(&plain(&packet), outer, 99);
        let second: Vec<_> = first.iter().flat_map(|fragment| cut(&plain(fragment), inner, 99).0).collect();
        prop_assert!(second.len() > first.len());
        prop_assert_eq!(reassembled(&second), packet);
    }
}
