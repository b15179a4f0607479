//! Maximum segment size: lowered on SYNs to what fits the smaller of both sides (RFC 4459 §3.2), so that nobody has to
//! find out by loss.

use aya_ebpf::programs::TcContext;
use peer_common::{Counter, DropReason};

use crate::parse::{IPPROTO_TCP, Packet, TCP_LEN, TCP_SYN};
use crate::rewrite::done;
use crate::stats;
use crate::tcp_options::{self, Options};
use crate::verifier::store;

/// Whether the packet has a segment size to look at.
#[inline(always)]
pub fn may_have(packet: &Packet) -> bool {
    packet.tcp_flags & TCP_SYN != 0 && packet.key.protocol == IPPROTO_TCP
}

/// Lowers the option of a SYN, if it has one, to what `mtu` leaves for a segment. The options of a packet that [`may_have`]
/// one have been read.
#[inline(always)]
pub fn clamp<const L2: usize>(
    ctx: &TcContext,
    packet: &Packet,
    options: *const Options,
    mtu: u32,
) -> Result<(), DropReason> {
    if !may_have(packet) {
        return Ok(());
    }
    let l4 = packet.l4() as u32;
    let most = mtu.saturating_sub(l4 + TCP_LEN as u32);
    let found = tcp_options::mss(options);
    let (at, mss) = (found & 0xff, found >> 16);
    if at == 0 || mss <= most {
        return Ok(());
    }
    let at = at as usize;
    let (from, to) = (mss as u16, most as u16);
    let word = |value: u16| {
        // Checksums are made of words: behind an odd number of bytes the value lies across two of them.
        if at & 1 == 0 { value.to_be() as u64 } else { value.swap_bytes().to_be() as u64 }
    };
    let l4 = L2 + packet.l4();
    done(ctx.l4_csum_replace(l4 + 16, word(from), word(to), 2))?;
    done(store(ctx, l4 + TCP_LEN + at, 2, to.to_be() as u64))?;
    stats::count(Counter::MssClamped, 1);
    Ok(())
}
