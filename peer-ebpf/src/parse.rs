//! From bytes to a 5-tuple. What is no TCP, UDP or echo keeps its addresses and the reason why it cannot be judged.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_pull_data;
use aya_ebpf::programs::TcContext;
use peer_common::addr::MAPPED_PREFIX;
use peer_common::{Addr, DropReason, FlowKey};

pub const ETH_LEN: usize = 14;

pub const IPPROTO_ICMP: u32 = 1;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;
pub const IPPROTO_ICMPV6: u32 = 58;

pub const V4_LEN: usize = 20;
pub const V6_LEN: usize = 40;
pub const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
pub const ICMP_LEN: usize = 8;
/// Length of the fragment header of IPv6.
pub const FRAGMENT_LEN: usize = 8;

/// What the programs know of a packet.
#[repr(C)]
pub struct Packet {
    /// The 5-tuple; ports are zero where there are none.
    pub key: FlowKey,
    /// Why the packet cannot be judged by its 5-tuple, if so.
    pub unjudged: Option<DropReason>,
    /// Bytes of layer 3.
    pub len: u32,
    /// Bytes of all headers of layers 3 and 4 (layer 4: of the judgeable protocols only).
    pub headers: u32,
    pub is_v4: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The TCP flags as they stand in the header.
    pub tcp_flags: u8,
    /// An echo request; a reply has the identifier as destination port.
    pub echo_request: bool,
    /// Type of an ICMP message.
    pub icmp_type: u8,
    /// Which part of a fragmented packet.
    pub part: Part,
    /// May not be fragmented: IPv6, or IPv4 that says so.
    pub whole: bool,
    /// Identification of a fragmented packet, network byte order.
    pub fragment_id: u32,
    /// Sequence and acknowledgement number of TCP as they stand in the header, one behind the other: copied at once.
    /// These and the window mean something when there are TCP flags.
    tcp_numbers: u64,
    /// The window of TCP as it stands in the header.
    tcp_window: u16,
}

/// Which part of a fragmented packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// It is no fragment.
    All,
    /// The first fragment, which carries the header of layer 4.
    First,
    /// Any other fragment.
    Later,
}

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;

impl Packet {
    /// Offset of layer 4 from the start of layer 3.
    #[inline(always)]
    pub fn l4(&self) -> usize {
        match (self.is_v4, self.part) {
            (true, _) => V4_LEN,
            (false, Part::All) => V6_LEN,
            (false, _) => V6_LEN + FRAGMENT_LEN,
        }
    }

    /// The sequence number.
    #[inline(always)]
    pub fn tcp_seq(&self) -> u32 {
        // The lower half comes first, see `verifier::value`.
        u32::from_be(self.tcp_numbers as u32)
    }

    /// The acknowledgement number, which means something with [`TCP_ACK`] only.
    #[inline(always)]
    pub fn tcp_ack(&self) -> u32 {
        u32::from_be((self.tcp_numbers >> 32) as u32)
    }

    /// The window, not shifted.
    #[inline(always)]
    pub fn tcp_window(&self) -> u16 {
        u16::from_be(self.tcp_window)
    }

    /// Bytes behind the headers; of a super-packet those of all its segments.
    #[inline(always)]
    pub fn payload(&self) -> u32 {
        self.len.wrapping_sub(self.headers)
    }
}

/// Parses the packet whose layer 3 starts at `L2`, a constant of the attachment.
#[inline(always)]
pub fn parse<const L2: usize>(ctx: &TcContext, packet: &mut Packet) -> Result<(), DropReason> {
    match headers::<L2>(ctx.as_ptr().cast(), packet) {
        0 => return Ok(()),
        NOT_LINEAR => {}
        _ => return Err(DropReason::Malformed),
    }
    // The headers lie in page fragments: pull them into the linear part, once.
    let all = ctx.len();
    let most = (L2 + V6_LEN + FRAGMENT_LEN + TCP_LEN) as u32;
    // SAFETY: the context is the kernel's; packet pointers are taken anew below.
    unsafe { bpf_skb_pull_data(ctx.as_ptr().cast(), if all < most { all } else { most }) };
    match headers::<L2>(ctx.as_ptr().cast(), packet) {
        0 => Ok(()),
        _ => Err(DropReason::Malformed),
    }
}

const NOT_LINEAR: u32 = 1;
const MALFORMED: u32 = 2;

/// Returns 0, [`NOT_LINEAR`] or [`MALFORMED`]. A function of its own, so that the second try costs no second copy.
#[inline(never)]
fn headers<const L2: usize>(skb: *mut __sk_buff, packet: &mut Packet) -> u32 {
    let ctx = TcContext::new(skb);
    let have = ctx.len() as usize;
    if have < L2 + V4_LEN {
        return MALFORMED;
    }
    let have = have - L2;
    let Some(ip) = bytes::<L2, 0, V4_LEN>(&ctx) else { return NOT_LINEAR };
    packet.headers = 0;
    packet.key.src_port = 0;
    packet.key.dst_port = 0;
    packet.tcp_flags = 0;
    packet.echo_request = false;
    packet.unjudged = None;
    packet.part = Part::All;
    packet.whole = true;
    match load::<u8>(ip, 0) >> 4 {
        4 => v4::<L2>(&ctx, ip, have, packet),
        6 => v6::<L2>(&ctx, have, packet),
        _ => MALFORMED,
    }
}

#[inline(always)]
fn v4<const L2: usize>(ctx: &TcContext, ip: *const u8, have: usize, packet: &mut Packet) -> u32 {
    let header_len = load::<u8>(ip, 0) & 0x0f;
    let len = u16::from_be(load::<u16>(ip, 2)) as usize;
    if header_len < 5 || len < header_len as usize * 4 || len > have {
        return MALFORMED;
    }
    packet.is_v4 = true;
    packet.len = len as u32;
    packet.ttl = load(ip, 8);
    packet.key.protocol = load::<u8>(ip, 9) as u32;
    packet.key.src = Addr::from_v4_be(load(ip, 12));
    packet.key.dst = Addr::from_v4_be(load(ip, 16));
    if header_len > 5 {
        packet.unjudged = Some(DropReason::IpOptions);
        return 0;
    }
    const DONT: u16 = 0x4000_u16.to_be();
    const MORE: u16 = 0x2000_u16.to_be();
    const OFFSET: u16 = 0x1fff_u16.to_be();
    let fragment = load::<u16>(ip, 6);
    packet.whole = fragment & DONT != 0;
    if fragment & (MORE | OFFSET) != 0 {
        packet.fragment_id = load::<u16>(ip, 4) as u32;
        packet.part = Part::First;
        if fragment & OFFSET != 0 {
            packet.part = Part::Later;
            packet.unjudged = Some(DropReason::Fragment);
            return 0;
        }
    }
    match packet.key.protocol {
        IPPROTO_TCP => tcp::<L2, V4_LEN>(ctx, len, packet),
        IPPROTO_UDP => udp::<L2, V4_LEN>(ctx, len, packet),
        IPPROTO_ICMP => echo::<L2, V4_LEN>(ctx, len, packet, 8, 0),
        _ => {
            packet.unjudged = Some(DropReason::Protocol);
            0
        }
    }
}

#[inline(always)]
fn v6<const L2: usize>(ctx: &TcContext, have: usize, packet: &mut Packet) -> u32 {
    if have < V6_LEN {
        return MALFORMED;
    }
    let Some(ip) = bytes::<L2, 0, V6_LEN>(ctx) else { return NOT_LINEAR };
    let len = V6_LEN + u16::from_be(load::<u16>(ip, 4)) as usize;
    if len > have {
        return MALFORMED;
    }
    packet.is_v4 = false;
    packet.len = len as u32;
    packet.key.protocol = load::<u8>(ip, 6) as u32;
    packet.ttl = load(ip, 7);
    packet.key.src = Addr { words: [load(ip, 8), load(ip, 12), load(ip, 16), load(ip, 20)] };
    packet.key.dst = Addr { words: [load(ip, 24), load(ip, 28), load(ip, 32), load(ip, 36)] };
    // A mapped address on the wire would be taken for IPv4 by every table.
    if mapped(&packet.key.src) || mapped(&packet.key.dst) {
        return MALFORMED;
    }
    match packet.key.protocol {
        IPPROTO_TCP => tcp::<L2, V6_LEN>(ctx, len, packet),
        IPPROTO_UDP => udp::<L2, V6_LEN>(ctx, len, packet),
        IPPROTO_ICMPV6 => echo::<L2, V6_LEN>(ctx, len, packet, 128, 129),
        44 => v6_fragment::<L2>(ctx, len, packet),
        // Hop-by-hop, routing, destination options, AH, mobility, HIP, shim6 (RFC 8200, IANA registry).
        0 | 43 | 60 | 51 | 135 | 139 | 140 => {
            packet.unjudged = Some(DropReason::ExtensionHeader);
            0
        }
        _ => {
            packet.unjudged = Some(DropReason::Protocol);
            0
        }
    }
}

/// A fragment header (RFC 8200 §4.5) stands right behind the IPv6 header, or the packet has other headers, too.
#[inline(always)]
fn v6_fragment<const L2: usize>(ctx: &TcContext, len: usize, packet: &mut Packet) -> u32 {
    if len < V6_LEN + FRAGMENT_LEN {
        return MALFORMED;
    }
    let Some(header) = bytes::<L2, V6_LEN, FRAGMENT_LEN>(ctx) else { return NOT_LINEAR };
    packet.key.protocol = load::<u8>(header, 0) as u32;
    packet.fragment_id = load(header, 4);
    const OFFSET: u16 = 0xfff8_u16.to_be();
    if load::<u16>(header, 2) & OFFSET != 0 {
        packet.part = Part::Later;
        packet.unjudged = Some(DropReason::Fragment);
        return 0;
    }
    packet.part = Part::First;
    const L4: usize = V6_LEN + FRAGMENT_LEN;
    match packet.key.protocol {
        IPPROTO_TCP => tcp::<L2, L4>(ctx, len, packet),
        IPPROTO_UDP => udp::<L2, L4>(ctx, len, packet),
        IPPROTO_ICMPV6 => echo::<L2, L4>(ctx, len, packet, 128, 129),
        _ => {
            packet.unjudged = Some(DropReason::Protocol);
            0
        }
    }
}

#[inline(always)]
fn mapped(addr: &Addr) -> bool {
    addr.words[0] == 0 && addr.words[1] == 0 && addr.words[2] == MAPPED_PREFIX
}

#[inline(always)]
fn tcp<const L2: usize, const AT: usize>(ctx: &TcContext, len: usize, packet: &mut Packet) -> u32 {
    if len < AT + TCP_LEN {
        return MALFORMED;
    }
    let Some(tcp) = bytes::<L2, AT, TCP_LEN>(ctx) else { return NOT_LINEAR };
    packet.key.src_port = load(tcp, 0);
    packet.key.dst_port = load(tcp, 2);
    let header_len = (load::<u8>(tcp, 12) >> 4) as usize * 4;
    if header_len < TCP_LEN || len < AT + header_len {
        return MALFORMED;
    }
    packet.headers = (AT + header_len) as u32;
    packet.tcp_flags = load(tcp, 13);
    packet.tcp_numbers = load(tcp, 4);
    packet.tcp_window = load(tcp, 14);
    0
}

#[inline(always)]
fn udp<const L2: usize, const AT: usize>(ctx: &TcContext, len: usize, packet: &mut Packet) -> u32 {
    if len < AT + UDP_LEN {
        return MALFORMED;
    }
    let Some(udp) = bytes::<L2, AT, UDP_LEN>(ctx) else { return NOT_LINEAR };
    packet.key.src_port = load(udp, 0);
    packet.key.dst_port = load(udp, 2);
    packet.headers = (AT + UDP_LEN) as u32;
    0
}

#[inline(always)]
fn echo<const L2: usize, const AT: usize>(
    ctx: &TcContext,
    len: usize,
    packet: &mut Packet,
    request: u8,
    reply: u8,
) -> u32 {
    if len < AT + ICMP_LEN {
        return MALFORMED;
    }
    let Some(icmp) = bytes::<L2, AT, ICMP_LEN>(ctx) else { return NOT_LINEAR };
    let kind = load::<u8>(icmp, 0);
    packet.headers = (AT + ICMP_LEN) as u32;
    packet.icmp_type = kind;
    if kind == request {
        packet.echo_request = true;
        packet.key.src_port = load(icmp, 4);
    } else if kind == reply {
        packet.key.dst_port = load(icmp, 4);
    } else {
        packet.unjudged = Some(DropReason::IcmpType);
    }
    0
}

/// `LEN` bytes at `L2 + AT`, when they are in the linear part: one bounds check for a whole header.
#[inline(always)]
fn bytes<const L2: usize, const AT: usize, const LEN: usize>(ctx: &TcContext) -> Option<*const u8> {
    let start = ctx.data();
    if start + L2 + AT + LEN > ctx.data_end() {
        return None;
    }
    Some((start + L2 + AT) as *const u8)
}

/// Headers are aligned to 4 bytes from layer 3 on (`NET_IP_ALIGN`), or the architecture does not care.
#[inline(always)]
fn load<T: Copy>(header: *const u8, at: usize) -> T {
    // SAFETY: every caller reads below the length that `bytes` checked.
    unsafe { *header.add(at).cast::<T>() }
}
