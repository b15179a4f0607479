//! ICMP errors: of others, translated with the packet that they quote (RFC 5508 §4), and of our own (RFC 1812 §4.3,
//! RFC 4443 §2.4).

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_csum_diff, bpf_skb_load_bytes};
use aya_ebpf::programs::TcContext;
use peer_common::{Addr, Counter, FlowKey};

use crate::maps::ERROR_BUDGET;
use crate::own_packet::{Ends, L4_AT, Pseudo, fold, overwrite, resize, set_header};
use crate::parse::{ICMP_LEN, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Packet, Part, V4_LEN, V6_LEN};
use crate::stats;
use crate::verifier::{opaque, value};

/// The packet that an ICMP error quotes. Offsets are from the start of layer 3 of the error.
#[repr(C)]
pub struct Quoted {
    /// Its 5-tuple as quoted.
    pub key: FlowKey,
    /// Where its IP header stands.
    pub ip: u32,
    /// Where its header of layer 4 stands.
    pub l4: u32,
    /// Where its checksum of layer 4 stands; 0: it is not quoted.
    pub checksum: u32,
    /// Its sequence number, of TCP.
    pub seq: u32,
}

/// Reads what an ICMP error quotes. `false`: it is no error, or quotes nothing of ours.
#[inline(never)]
pub fn read_quoted<const L2: usize>(ctx: &TcContext, packet: &Packet, quoted: &mut Quoted) -> bool {
    if packet.part != Part::All || !is_error(packet) {
        return false;
    }
    let ip = packet.l4() + ICMP_LEN;
    let (len, fragment) = if packet.is_v4 {
        let Ok(header) = ctx.load::<[u32; 5]>(L2 + ip) else { return false };
        // Nothing with options leaves us, and a later fragment has no ports.
        const VERSION_AND_LENGTH: u32 = 0x4500_0000_u32.to_be();
        if header[0] & 0xff00_0000_u32.to_be() != VERSION_AND_LENGTH || header[1] & 0x1fff_u32.to_be() != 0 {
            return false;
        }
        quoted.key.src = Addr::from_v4_be(header[3]);
        quoted.key.dst = Addr::from_v4_be(header[4]);
        quoted.key.protocol = u32::from_be(header[2]) >> 16 & 0xff;
        (V4_LEN, false)
    } else {
        let Ok(header) = ctx.load::<[u32; 10]>(L2 + ip) else { return false };
        quoted.key.src = Addr { words: [header[2], header[3], header[4], header[5]] };
        quoted.key.dst = Addr { words: [header[6], header[7], header[8], header[9]] };
        quoted.key.protocol = u32::from_be(header[1]) >> 8 & 0xff;
        (V6_LEN, quoted.key.protocol == 44)
    };
    let mut l4 = ip + len;
    if fragment {
        let Ok(header) = ctx.load::<[u8; 8]>(L2 + l4) else { return false };
        if header[2] != 0 || header[3] & 0xf8 != 0 {
            return false;
        }
        quoted.key.protocol = header[0] as u32;
        l4 += 8;
    }
    quoted.ip = ip as u32;
    quoted.l4 = l4 as u32;
    read_ports(ctx, L2 + l4, packet, quoted)
}

#[inline(always)]
fn read_ports(ctx: &TcContext, at: usize, packet: &Packet, quoted: &mut Quoted) -> bool {
    // All that is sure to be there (RFC 792); behind the end of layer 3 a link may have put anything.
    if quoted.l4 + 8 > packet.len {
        return false;
    }
    let Ok(header) = ctx.load::<[u16; 4]>(at) else { return false };
    quoted.checksum = match quoted.key.protocol {
        IPPROTO_TCP if quoted.l4 + 18 <= packet.len => quoted.l4 + 16,
        IPPROTO_TCP => 0,
        IPPROTO_UDP => quoted.l4 + 6,
        IPPROTO_ICMP | IPPROTO_ICMPV6 => quoted.l4 + 2,
        _ => return false,
    };
    quoted.key.src_port = header[0];
    quoted.key.dst_port = header[1];
    quoted.seq = (u16::from_be(header[2]) as u32) << 16 | u16::from_be(header[3]) as u32;
    if matches!(quoted.key.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6) {
        (quoted.key.src_port, quoted.key.dst_port) = match header[0].to_ne_bytes()[0] {
            8 | 128 => (header[2], 0),
            0 | 129 => (0, header[2]),
            _ => return false,
        };
    }
    true
}

/// Unreachable, time exceeded, parameter problem, and packet too big (RFC 792, RFC 4443).
#[inline(always)]
fn is_error(packet: &Packet) -> bool {
    match packet.key.protocol {
        IPPROTO_ICMP => matches!(packet.icmp_type, 3 | 11 | 12),
        IPPROTO_ICMPV6 => matches!(packet.icmp_type, 1..=4),
        _ => false,
    }
}

/// What we tell a sender. A number alone, because a function of its own takes five registers: an MTU, or [`UNREACHABLE`] and
/// the codes of both families.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Error(u32);

/// The bit that tells codes of "unreachable" from an MTU.
const UNREACHABLE: u32 = 1 << 31;

impl Error {
    /// The hop limit is used up.
    pub const TIME_EXCEEDED: Self = Self(0);
    /// There is no route: network unreachable, or no route to destination (RFC 1812 §5.2.7.1, RFC 4443 §3.1).
    pub const NO_ROUTE: Self = Self::unreachable(0, 0);
    /// The kernel's route says that the destination cannot be reached: host unreachable, or no route to destination.
    pub const NO_HOST: Self = Self::unreachable(1, 0);
    /// The neighbour does not answer: host unreachable, or address unreachable.
    pub const SILENT: Self = Self::unreachable(1, 3);
    /// It is not allowed: communication administratively prohibited.
    pub const PROHIBITED: Self = Self::unreachable(13, 1);

    /// Larger than the MTU ahead, bytes of layer 3.
    #[inline(always)]
    pub const fn too_big(mtu: u32) -> Self {
        Self(mtu & !UNREACHABLE)
    }

    const fn unreachable(v4: u32, v6: u32) -> Self {
        Self(UNREACHABLE | v4 << 8 | v6)
    }

    /// Type and code, and the word behind the checksum.
    #[inline(always)]
    fn fields(self, is_v4: bool) -> (u16, u32) {
        const V4: u16 = 3 << 8;
        const V6: u16 = 1 << 8;
        match (self.0, is_v4) {
            (0, true) => (0x0b00, 0),
            (0, false) => (0x0300, 0),
            (codes, true) if codes & UNREACHABLE != 0 => (V4 | (codes >> 8 & 0xff) as u16, 0),
            (codes, false) if codes & UNREACHABLE != 0 => (V6 | (codes & 0xff) as u16, 0),
            (mtu, true) => (0x0304, mtu),
            (mtu, false) => (0x0200, mtu),
        }
    }
}

/// Longest quotes, multiples of four: RFC 1812 §4.3.2.3 wants all that fits 576 bytes, RFC 4443 §2.4 (c) all that fits 1280.
const QUOTE_V4: u32 = 576 - HEADERS_V4;
const QUOTE_V6: u32 = 1280 - HEADERS_V6;
const HEADERS_V6: u32 = (V6_LEN + ICMP_LEN) as u32;
const HEADERS_V4: u32 = (V4_LEN + ICMP_LEN) as u32;

/// An error as it is made: an IPv4 header starts at 20, the one of ICMP at 40 and the quote at 48, so that both families
/// have their headers right before the quote.
#[repr(C, align(8))]
pub struct ErrorBuffer {
    bytes: [u8; ERROR_BUFFER],
    /// What is summed besides: the end of the pseudo header, and what stands behind the quote's last whole word.
    pseudo: Pseudo,
    last_word: u32,
    pad: u32,
}

/// Room for the largest error, and for all that a mask lets one reach: comparisons are less sure to bound a number.
const ERROR_BUFFER: usize = HEADERS_V6 as usize + MASK as usize + 1;
const MASK: u32 = 0x7ff;
/// As much as every kernel sums at once.
const PIECE: u32 = 512;

/// Errors at once, and nanoseconds until one more is allowed: RFC 1812 §4.3.2.8 and RFC 4443 §2.4 (f) demand a limit.
const BURST: u32 = 50;
const REFILL: u64 = 4_000_000;

/// Turns the packet into an error to its sender, by `source`. `false`: it stays as it is and is dropped in silence, because
/// nobody may be told, or not now.
#[inline(never)]
pub fn turn<const L2: usize>(
    ctx: &TcContext,
    packet: &Packet,
    buffer: &mut ErrorBuffer,
    source: &Addr,
    error: Error,
) -> bool {
    // Never about an error, nor about any but the first fragment (RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)).
    if packet.unjudged.is_some() || packet.part == Part::Later || source.is_none() || !may_send() {
        return false;
    }
    let (headers, most) = if packet.is_v4 { (HEADERS_V4, QUOTE_V4) } else { (HEADERS_V6, QUOTE_V6) };
    let wanted = if packet.len < most { packet.len } else { most };
    // The compiler knows the bounds and would leave the mask out; the verifier needs it.
    let quote = opaque(wanted) & MASK;
    if quote < 28 || quote > QUOTE_V6 {
        return false;
    }
    let at = HEADERS_V6 as usize;
    // SAFETY: the context is the kernel's; from 48 on the buffer has room for the longest quote.
    if unsafe { bpf_skb_load_bytes(ctx.as_ptr(), L2 as u32, buffer.bytes.as_mut_ptr().add(at).cast(), quote) } != 0 {
        return false;
    }
    // Sums are made of whole words: the last bytes, with zeros behind them.
    buffer.last_word = 0;
    if quote & 3 != 0 {
        let last = ptr::from_mut(&mut buffer.last_word).cast();
        // Bounded without a comparison: before Linux 6.8 the verifier learns nothing from one with zero, and in what a CPU
        // may run ahead of a comparison it knows nothing of the number compared.
        let rest = (opaque(quote - 1) & 3) + 1;
        // SAFETY: the context is the kernel's, and a word has room for up to four bytes.
        if unsafe { bpf_skb_load_bytes(ctx.as_ptr(), L2 as u32 + (quote & !3), last, rest) } != 0 {
            return false;
        }
    }
    set_headers(packet, buffer, source, error, quote);
    if !resize(ctx, L2 as u32 + headers + quote) {
        return false;
    }
    let total = |headers: u32| (opaque(headers + quote - 1) & MASK) + 1;
    // SAFETY: headers start where they end at the quote, and all lies in the buffer.
    let written = unsafe {
        if packet.is_v4 {
            overwrite(ctx, L2 as u32, buffer.bytes.as_ptr().add(V6_LEN - V4_LEN), total(HEADERS_V4))
        } else {
            overwrite(ctx, L2 as u32, buffer.bytes.as_ptr(), total(HEADERS_V6))
        }
    };
    if !written {
        return false;
    }
    stats::count(Counter::IcmpErrorsSent, 1);
    true
}

#[repr(C)]
struct Icmp {
    kind_code: u16,
    checksum: u16,
    rest: u32,
}

/// Writes both headers in front of the quote, `quote` bytes long.
#[inline(always)]
fn set_headers(packet: &Packet, buffer: &mut ErrorBuffer, source: &Addr, error: Error, quote: u32) {
    let base = buffer.bytes.as_mut_ptr();
    let (kind_code, rest) = error.fields(packet.is_v4);
    let icmp_len = ICMP_LEN as u32 + quote;
    let ends = Ends { is_v4: packet.is_v4, source, destination: &packet.key.src };
    let protocol = if packet.is_v4 { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
    // SAFETY: all of the buffer's 48 bytes before the quote, aligned to four.
    unsafe {
        let icmp_at = base.add(L4_AT).cast::<Icmp>();
        *icmp_at = Icmp { kind_code: kind_code.to_be(), checksum: 0, rest: rest.to_be() };
        let pseudo = set_header(base, &mut buffer.pseudo, &ends, protocol, icmp_len);
        // ICMP has no pseudo header, ICMPv6 has one.
        let mut sum = if packet.is_v4 { 0 } else { pseudo };
        sum = bpf_csum_diff(ptr::null_mut(), 0, &raw mut buffer.last_word, 4, sum as u32);
        sum = sum_icmp(base.add(L4_AT), icmp_len & !3, sum);
        (*icmp_at).checksum = !fold(sum);
    }
}

/// Sums `len` bytes, a multiple of four up to 1240, in pieces that every kernel takes.
#[inline(always)]
unsafe fn sum_icmp(start: *mut u8, len: u32, mut sum: i64) -> i64 {
    let first = if len > PIECE { PIECE } else { len };
    let second = if len > 2 * PIECE { PIECE } else { len - first };
    let third = opaque(len - first - second) & 0xff;
    let (first, second) = (opaque(first) & 0x3ff, opaque(second) & 0x3ff);
    // SAFETY: the caller's buffer holds as much as the masks let one reach from `start` on.
    unsafe {
        sum = bpf_csum_diff(ptr::null_mut(), 0, start.cast(), first, sum as u32);
        sum = bpf_csum_diff(ptr::null_mut(), 0, start.add(PIECE as usize).cast(), second, sum as u32);
        sum = bpf_csum_diff(ptr::null_mut(), 0, start.add(2 * PIECE as usize).cast(), third, sum as u32);
    }
    sum
}

#[inline(always)]
fn may_send() -> bool {
    let Some(budget) = value(&ERROR_BUDGET, 0) else { return false };
    // SAFETY: this CPU's own.
    unsafe { (*budget).take(REFILL, BURST) }
}
