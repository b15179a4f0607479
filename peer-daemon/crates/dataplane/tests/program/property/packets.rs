//! Random packets: valid, odd, and broken, of a world so small that they often meet.

use std::net::IpAddr;

use super::random::Random;
use crate::reference::parse::{Tuple, parse};
use crate::reference::{BROADCAST, Outcome, Reference, Side};
use crate::wire::{
    ETH, ICMP, ICMPV6, Ip, TCP, UDP, icmp_error, icmp_of, icmp_payload, is_readable, put16, seal, tcp_payload,
    udp_payload,
};

/// Sources in the mesh: two peers, a network behind the second one, and nobody's.
const MESH: [&str; 6] = ["100.64.0.2", "100.64.0.2", "100.64.0.3", "100.64.0.3", "100.64.8.7", "100.64.9.9"];
const MESH6: [&str; 3] = ["fd00:64::2", "fd00:64::3", "fd00:64::9"];
/// Destinations: masqueraded, kept, without a device of ours, own, denied, named by a host route, of no route; the uplink's broadcast.
const FAR: [&str; 22] = [
    "198.51.100.80",
    "198.51.100.80",
    "198.51.100.80",
    "198.51.100.80",
    "198.51.100.80",
    "198.51.100.80",
    "198.51.100.81",
    "203.0.113.80",
    "203.0.113.80",
    "198.18.0.1",
    "198.18.1.1",
    "100.64.0.1",
    "198.51.100.1",
    "169.254.169.254",
    "169.254.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "127.0.0.1",
    "224.0.0.5",
    "255.255.255.255",
    BROADCAST,
    "192.0.2.1",
];
const FAR6: [&str; 14] = [
    "2001:db8:2::80",
    "2001:db8:2::80",
    "2001:db8:2::80",
    "2001:db8:2::80",
    "2001:db8:2::80",
    "2001:db8:2::81",
    "2001:db8:3::80",
    "2001:db8:3::80",
    "fd00:64::1",
    "2001:db8:2::1",
    "fe80::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8:9::1",
];
const PORTS: [u16; 8] = [80, 80, 443, 1024, 8080, 20481, 20484, 51820];

pub(crate) fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A frame from the mesh.
pub(crate) fn from_mesh(random: &mut Random) -> Vec<u8> {
    let v4 = !random.one_in(3);
    let (src, dst) = if v4 {
        (addr(random.pick(&MESH)), addr(random.pick(&FAR)))
    } else {
        (addr(random.pick(&MESH6)), addr(random.pick(&FAR6)))
    };
    between(random, src, dst)
}

/// A frame from the mesh to the one endpoint that all want.
pub(crate) fn crowd(random: &mut Random) -> Vec<u8> {
    let (src, dst) = if random.one_in(3) {
        (random.pick(&MESH6[..2]), "2001:db8:2::80")
    } else {
        (random.pick(&MESH[..5]), "198.51.100.80")
    };
    let port = 20470 + random.below(40) as u16;
    carrying(random, Tuple { src: (addr(src), port), dst: (addr(dst), 443), protocol: TCP }, true)
}

/// A frame towards the mesh, of the node or the LAN.
pub(crate) fn to_mesh(random: &mut Random) -> Vec<u8> {
    let frame = from_mesh(random);
    let header = crate::wire::header(&frame[ETH..]);
    between(random, header.dst, header.src)
}

/// Something of the outside to the uplink, mostly unknown.
pub(crate) fn stray(random: &mut Random) -> Vec<u8> {
    let (src, dst) =
        if random.one_in(2) { ("198.51.100.80", "198.51.100.1") } else { ("2001:db8:2::80", "2001:db8:2::1") };
    between(random, addr(src), addr(dst))
}

fn between(random: &mut Random, src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let protocol = random.pick(&[TCP, TCP, UDP, UDP, icmp_of(src)]);
    let tuple = Tuple { src: (src, random.pick(&PORTS)), dst: (dst, random.pick(&PORTS)), protocol };
    let asks = !random.one_in(6);
    carrying(random, tuple, asks)
}

/// A packet of `tuple`, whole or in parts, sane or not. `asks`: of echoes, the request.
pub(crate) fn carrying(random: &mut Random, tuple: Tuple, asks: bool) -> Vec<u8> {
    let (src, dst) = (tuple.src, tuple.dst);
    let size = if random.one_in(4) { random.below(1600) } else { random.below(64) };
    let data = random.bytes(size);
    let mut protocol = tuple.protocol;
    let payload = match protocol {
        TCP => {
            let any = random.next() as u8;
            let flags = random.pick(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, any]);
            let options = tcp_options(random);
            tcp_payload(src, dst, flags, &options, &data)
        }
        UDP => {
            let mut bytes = udp_payload(src, dst, &data);
            if random.one_in(6) {
                put16(&mut bytes, 6, 0);
            }
            bytes
        }
        _ => {
            let v4 = src.0.is_ipv4();
            let kind = match (asks, v4) {
                (true, true) => 8,
                (false, true) => 0,
                (true, false) => 128,
                (false, false) => 129,
            };
            let kind = if random.one_in(12) { random.next() as u8 } else { kind };
            let id = if asks { src.1 } else { dst.1 }.to_be_bytes();
            icmp_payload(src.0, dst.0, (kind, 0), [id[0], id[1], 0, 1], &data)
        }
    };
    if random.one_in(25) {
        protocol = random.pick(&[47, 50, 132, 0, 43, 60, 1, 58]);
    }
    let mut ip = Ip { ttl: ttl(random), id: random.pick(&[1, 2]), ..Ip::new(src.0, dst.0, protocol) };
    ip.fragment = fragment(random, src.0.is_ipv4());
    ip.frame(&payload)
}

fn ttl(random: &mut Random) -> u8 {
    if random.one_in(10) { random.pick(&[0, 1, 2, 255]) } else { 64 }
}

fn fragment(random: &mut Random, v4: bool) -> u16 {
    let (first, later, last) = if v4 { (0x2000, 0x2004, 4) } else { (1, 0x21, 0x20) };
    match random.below(12) {
        0 => first,
        1 => later,
        2 => last,
        _ if v4 && random.one_in(2) => Ip::DONT,
        _ => 0,
    }
}

fn tcp_options(random: &mut Random) -> Vec<u8> {
    let mss = random.pick(&[0, 536, 1240, 1380, 1381, 1460, 8960, 65535_u16]).to_be_bytes();
    let shift = random.below(17) as u8;
    let mut options: Vec<u8> = match random.below(9) {
        0 | 1 => vec![2, 4, mss[0], mss[1]],
        2 => vec![1, 2, 4, mss[0], mss[1], 3, 3, 7],
        3 => vec![4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 4, mss[0], mss[1]],
        4 => {
            let len = random.below(41);
            random.bytes(len)
        }
        5 => vec![2, 3, mss[0], 2, 4, mss[0], mss[1]],
        6 => vec![1, 1, 1, 1, 1, 2, 4, mss[0]],
        7 => vec![1, 3, 3, shift, 1, 1, 8, 10, 9, 8, 7, shift, 0, 0, 0, 0],
        _ => vec![],
    };
    options.resize(options.len().div_ceil(4) * 4, 0);
    options
}

/// An answer to one of the mappings, or, if it is wrong, to nearly one.
pub(crate) fn reply(random: &mut Random, reference: &Reference) -> Option<Vec<u8>> {
    let replies: Vec<Tuple> = reference.mappings.keys().copied().collect();
    if replies.is_empty() {
        return None;
    }
    let mut tuple = random.pick(&replies);
    if random.one_in(10) {
        tuple.dst.1 ^= 1;
    }
    let asks = random.one_in(20);
    Some(carrying(random, tuple, asks))
}

/// An ICMP error about what went out to `sent_to`'s side: `sent` are outcomes.
pub(crate) fn error(random: &mut Random, sent: &[Outcome]) -> Option<Vec<u8>> {
    let frames: Vec<&Vec<u8>> = sent
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Next(frame) | Outcome::Redirect(frame) if is_readable(&frame[ETH..]) => Some(frame),
            _ => None,
        })
        .collect();
    if frames.is_empty() {
        return None;
    }
    let quoted = &frames[random.below(frames.len())][ETH..];
    let header = crate::wire::header(quoted);
    let whole = header.len.min(quoted.len());
    let least = if random.one_in(10) { header.l4 - 20 } else { header.l4 + 8 };
    let len = random.pick(&[whole, least.min(whole), (header.l4 + 18).min(whole), whole.min(548)]);
    let teller = match random.below(4) {
        0 if header.src.is_ipv4() => addr(random.pick(&["203.0.113.1", "100.64.0.3", "100.64.8.1"])),
        0 => addr(random.pick(&["2001:db8:7::1", "fd00:64::3"])),
        _ => header.dst,
    };
    let to = if random.one_in(12) { header.dst } else { header.src };
    let kind = if header.src.is_ipv4() { random.pick(&[3, 3, 11, 12, 5, 4]) } else { random.pick(&[1, 2, 3, 4, 5]) };
    let mut frame = icmp_error(teller, to, (kind, random.below(5) as u8), &quoted[..len]);
    if random.one_in(12) {
        set_ttl(&mut frame, 1);
    }
    Some(frame)
}

fn set_ttl(frame: &mut [u8], ttl: u8) {
    let l3 = &mut frame[ETH..];
    if l3[0] >> 4 == 6 {
        l3[7] = ttl;
        return;
    }
    l3[8] = ttl;
    put16(l3, 10, 0);
    let header = !crate::wire::sum(&[&l3[..20]]);
    put16(l3, 10, header);
}

/// Gives a TCP segment numbers that its connection may have, or nearly: `own` is what its side has shown, `other` the other.
pub(crate) fn number(random: &mut Random, frame: &mut [u8], own: Side, other: Side) {
    let l3 = &mut frame[ETH..];
    let Some(parsed) = parse(l3).filter(|parsed| parsed.tuple.protocol == TCP && parsed.tcp_flags != 0) else { return };
    let expected = other.acked.map(|(ack, _)| ack);
    let room = other.acked.map_or(0, |(_, window)| u32::from(window) << other.scale);
    let sent = own.end.or(expected);
    let near = random.pick(&[0, 0, 1, 100, 1460, 70_000, 1 << 20, (1 << 20) + 1, 1 << 24, 1 << 30]);
    let seq = match random.below(10) {
        0..=3 => sent,
        4 => sent.map(|sent| sent.wrapping_sub(parsed.tcp.data + 1)),
        5 => sent.map(|sent| sent.wrapping_add(near)),
        6 => expected,
        7 => expected.map(|expected| expected.wrapping_add(room).wrapping_add(random.below(3) as u32)),
        8 => expected.map(|expected| expected.wrapping_sub(near)),
        _ => None,
    };
    let ack = match random.below(8) {
        0..=3 => other.end,
        4 => other.end.map(|end| end.wrapping_sub(near)),
        5 => other.end.map(|end| end.wrapping_add(near)),
        6 => own.acked.map(|(ack, _)| ack),
        _ => None,
    };
    let (seq, ack) = (seq.unwrap_or(random.next() as u32), ack.unwrap_or(random.next() as u32));
    let at = parsed.l4;
    l3[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
    l3[at + 8..at + 12].copy_from_slice(&ack.to_be_bytes());
    put16(l3, at + 14, random.pick(&[0, 1, 1024, 64_240, 65_535]));
    seal(parsed.tuple.src.0, parsed.tuple.dst.0, TCP, &mut l3[at..parsed.len]);
}

/// Now and then breaks a frame, or lets the link put something behind it.
pub(crate) fn disturb(random: &mut Random, frame: &mut Vec<u8>) {
    let least = ETH + if frame[12] == 0x08 { 20 } else { 40 };
    if random.one_in(10) {
        let pad = 1 + random.below(20);
        frame.extend(random.bytes(pad));
    }
    if random.one_in(40) && frame[ETH] == 0x45 {
        // A router alert (RFC 2113).
        frame[ETH] = 0x46;
        frame.splice(ETH + 20..ETH + 20, [0x94, 4, 0, 0]);
        let len = (frame.len() - ETH) as u16;
        put16(&mut frame[ETH..], 2, len);
    }
    if random.one_in(12) {
        let len = least + random.below(frame.len() - least + 1);
        frame.truncate(len);
    }
    if random.one_in(8) {
        for _ in 0..=random.below(3) {
            // Headers matter more than payload.
            let end = frame.len().min(ETH + 80);
            let at = ETH + random.below(end - ETH);
            frame[at] = random.next() as u8;
        }
        if random.one_in(2) {
            mend(frame);
        }
    }
}

/// Makes checksums right again, as far as headers tell where they are.
fn mend(frame: &mut [u8]) {
    let l3 = &mut frame[ETH..];
    if l3[0] == 0x45 {
        put16(l3, 10, 0);
        let header = !crate::wire::sum(&[&l3[..20]]);
        put16(l3, 10, header);
    }
    if !is_readable(l3) {
        return;
    }
    let header = crate::wire::header(l3);
    let is_known = matches!(header.protocol, TCP | UDP | ICMP | ICMPV6);
    if is_known && !header.is_fragment && header.len <= l3.len() && header.len > header.l4 {
        seal(header.src, header.dst, header.protocol, &mut l3[header.l4..header.len]);
    }
}
