//! Packets whose checksum the kernel has not completed, and super-packets: real devices, because test runs have neither. wt0 is
//! a TUN device, the uplink one end of a veth pair; what arrives at either end is checked byte by byte.

use std::net::IpAddr;

use crate::lab::{FAMILIES, Family};
use crate::sys::device::{Offload, index};
use crate::wire::{
    ETH, Ip, TCP, UDP, assert_sound, assert_sound_outside, checksum_at, get16, header, icmp_of, is_readable, put16,
    sum, tcp_payload, udp_payload, unfinish,
};
use crate::wires::{Wires, with_wires};

/// A packet from layer 3 on with an unfinished checksum, and the state that says so.
struct Unfinished {
    offload: Offload,
    packet: Vec<u8>,
}

/// `gso` 0: a plain packet.
fn unfinished(src: (IpAddr, u16), dst: (IpAddr, u16), protocol: u8, len: usize, gso: u16, ttl: u8) -> Unfinished {
    let data: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
    let mut payload = match protocol {
        TCP => tcp_payload(src, dst, 0x10, &[], &data),
        _ => udp_payload(src, dst, &data),
    };
    unfinish(src.0, dst.0, protocol, &mut payload);
    let v4 = src.0.is_ipv4();
    let l4 = if v4 { 20 } else { 40 };
    let offload = Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: if gso == 0 {
            0
        } else if v4 {
            1
        } else {
            4
        },
        header_len: l4 + if protocol == TCP { 20 } else { 8 },
        gso_size: gso,
        csum_start: l4,
        csum_offset: checksum_at(protocol).expect("has one") as u16,
    };
    let fragment = if v4 { Ip::DONT } else { 0 };
    Unfinished { offload, packet: Ip { ttl, fragment, ..Ip::new(src.0, dst.0, protocol) }.packet(&payload) }
}

impl Unfinished {
    fn enter(&self, wires: &mut Wires) {
        wires.wt0.send(self.offload, &self.packet).expect("write to wt0");
    }

    /// Sends it from the LAN.
    fn arrive(&self, wires: &mut Wires) {
        let frame = wires.frame(&self.packet);
        let offload = Offload {
            csum_start: self.offload.csum_start + ETH as u16,
            header_len: self.offload.header_len + ETH as u16,
            ..self.offload
        };
        wires.lan.send(offload, &frame).expect("send on lan0");
    }
}

/// What a device does at last.
fn complete(offload: Offload, packet: &mut [u8]) {
    if offload.flags & Offload::NEEDS_CSUM != 0 {
        let start = usize::from(offload.csum_start);
        let found = !sum(&[&packet[start..]]);
        put16(packet, start + usize::from(offload.csum_offset), if found == 0 { 0xffff } else { found });
    }
}

fn is_error(l3: &[u8]) -> bool {
    is_readable(l3) && {
        let header = header(l3);
        header.protocol == icmp_of(header.src) && crate::wire::is_error(header.protocol, l3[header.l4])
    }
}

/// Insists that the error is finished, sound, and quotes the packet as it came.
fn assert_finished_error(offload: Offload, frame: &[u8], to: IpAddr, sent: &Unfinished) {
    assert_eq!((offload.flags & Offload::NEEDS_CSUM, offload.gso_type), (0, 0), "nothing is left to do: {offload:?}");
    // The quoted checksum is unfinished, as in errors that Linux itself makes: a program cannot see that it is.
    let outer = assert_sound_outside(frame);
    assert_eq!(outer.dst, to);
    let quote = &frame[ETH + outer.l4 + 8..ETH + outer.len];
    assert_eq!(quote, &sent.packet[..quote.len()]);
    assert!(quote.len() >= 28);
}

/// Plain and super-packets whose hops are used up, and one that is too big.
fn doomed(src: (IpAddr, u16), dst: (IpAddr, u16)) -> [Unfinished; 5] {
    [
        unfinished(src, dst, TCP, 100, 0, 1),
        unfinished(src, dst, TCP, 5000, 1200, 1),
        unfinished(src, dst, UDP, 61, 0, 1),
        unfinished(src, dst, UDP, 1400, 0, 64),
        unfinished(src, dst, TCP, 9000, 1340, 64),
    ]
}

#[test]
fn errors_about_unfinished_packets_reach_the_peer_finished() {
    with_wires(|bench, wires| {
        bench.uplink(index(c"eth0").expect("an index"), 1300);
        for family in FAMILIES {
            for sent in doomed((family.peer, 4000), (family.server, 80)) {
                sent.enter(wires);
                let (offload, packet) = wires.wt0.receive(is_error).expect("an error");
                let frame = [&[0; ETH][..], &packet].concat();
                assert_finished_error(offload, &frame, family.peer, &sent);
            }
        }
    });
}

#[test]
fn errors_about_unfinished_packets_reach_the_lan_finished() {
    with_wires(|bench, wires| {
        bench.config(|config| config.wt0_mtu = 1300);
        for family in FAMILIES {
            for protocol in [TCP, UDP] {
                let node = open(wires, &family, protocol);
                for sent in doomed((family.server, 80), node).into_iter().filter(|sent| is_of(sent, protocol)) {
                    sent.arrive(wires);
                    let (offload, frame) = wires.lan.receive(|frame| is_error(&frame[ETH..])).expect("an error");
                    assert_finished_error(offload, &frame, family.server, &sent);
                    assert_eq!(frame[..6], wires.macs[6..], "back to its sender");
                }
            }
        }
    });
}

fn is_of(sent: &Unfinished, protocol: u8) -> bool {
    header(&sent.packet).protocol == protocol
}

/// Opens a flow of the peer's and returns what the server sees as its source.
fn open(wires: &mut Wires, family: &Family, protocol: u8) -> (IpAddr, u16) {
    unfinished((family.peer, 4000), (family.server, 80), protocol, 10, 0, 64).enter(wires);
    let (_, frame) = wires.lan.receive(|frame| is_from(frame, family.uplink, protocol)).expect("forwarded");
    let l3 = &frame[ETH..];
    (family.uplink, get16(l3, header(l3).l4))
}

fn is_from(frame: &[u8], src: IpAddr, protocol: u8) -> bool {
    let l3 = &frame[ETH..];
    is_readable(l3) && header(l3).src == src && header(l3).protocol == protocol
}

#[test]
fn unfinished_packets_and_super_packets_pass_both_ways() {
    with_wires(|_, wires| {
        for family in FAMILIES {
            for (protocol, len, gso) in [(TCP, 100, 0), (UDP, 101, 0), (TCP, 9001, 1300)] {
                unfinished((family.peer, 4000), (family.server, 80), protocol, len, gso, 64).enter(wires);
                let found = wires.lan.receive(|frame| is_from(frame, family.uplink, protocol)).expect("forwarded");
                let (offload, mut frame) = found;
                assert_eq!(offload.gso_size, gso, "passed whole");
                complete(offload, &mut frame);
                assert_eq!(assert_sound(&frame).dst, family.server);
                let l4 = header(&frame[ETH..]).l4;
                let node = (family.uplink, get16(&frame[ETH..], l4));
                unfinished((family.server, 80), node, protocol, len, gso, 64).arrive(wires);
                let to_peer = |l3: &[u8]| is_readable(l3) && header(l3).dst == family.peer;
                let (offload, mut packet) = wires.wt0.receive(to_peer).expect("answered");
                complete(offload, &mut packet);
                let frame = [&[0; ETH][..], &packet].concat();
                assert_eq!(assert_sound(&frame).src, family.server);
                assert_eq!((offload.gso_size, get16(&packet, l4 + 2)), (gso, 4000));
            }
        }
    });
}
