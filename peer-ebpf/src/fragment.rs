//! Fragments in order: the first one says which flow the others belong to.

use aya_ebpf::bindings::BPF_ANY;
use peer_common::fragment::FRAGMENT_LIFE;
use peer_common::hash::siphash13;
use peer_common::{Counter, Fragment, FragmentKey};

use crate::maps::{FRAGMENT_BUDGETS, FRAGMENTS, config};
use crate::parse::{Packet, Part};
use crate::stats;
use crate::verifier::value;

/// First fragments that one source may have remembered at once, and nanoseconds until one more. The table keeps what is
/// new: with this many a second its entries live for a quarter of a second, and fragments follow within milliseconds.
const BURST: u32 = 2048;
const REFILL: u64 = 30_500;

/// Budgets of sources: a keyed hash chooses.
pub const FRAGMENT_SOURCES: u32 = 4096;

/// An entry. Not on the stack, as [`crate::judge::Keys`].
#[repr(C)]
pub struct Entry {
    key: FragmentKey,
    first: Fragment,
}

/// Gives a later fragment the ports that the first one had, if that one came before it.
#[inline(always)]
pub fn complete(packet: &mut Packet, entry: &mut Entry, now: u64) {
    if packet.part != Part::Later {
        return;
    }
    entry.key = key(packet);
    // SAFETY: values are replaced whole.
    let Some(first) = (unsafe { FRAGMENTS.get(&entry.key) }) else { return };
    if now.wrapping_sub(first.seen) > FRAGMENT_LIFE {
        return;
    }
    packet.key.src_port = first.src_port;
    packet.key.dst_port = first.dst_port;
    packet.unjudged = None;
}

/// Remembers a first fragment that may pass.
#[inline(always)]
pub fn remember(packet: &Packet, entry: &mut Entry, now: u64) {
    if packet.part != Part::First {
        return;
    }
    if !may_remember(packet) {
        stats::count(Counter::FragmentsLimited, 1);
        return;
    }
    entry.key = key(packet);
    entry.first = Fragment { seen: now, src_port: packet.key.src_port, dst_port: packet.key.dst_port, pad: 0 };
    if FRAGMENTS.insert(&entry.key, &entry.first, BPF_ANY as u64).is_ok() {
        stats::count(Counter::FragmentsTracked, 1);
    }
}

/// Whether the source has not had too many of them: a flood must not drive out what others have there.
#[inline(always)]
fn may_remember(packet: &Packet) -> bool {
    let Some(config) = config() else { return false };
    let words = &packet.key.src.words;
    let folded = ((words[0] ^ words[2]) as u64) << 32 | (words[1] ^ words[3]) as u64;
    let place = siphash13(config.hash_key, [folded]) as u32 % FRAGMENT_SOURCES;
    match value(&FRAGMENT_BUDGETS, place) {
        // SAFETY: an array's value lives as long as the program. Another CPU's token may get lost.
        Some(budget) => unsafe { (*budget).take(REFILL, BURST) },
        None => false,
    }
}

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    FragmentKey { src: packet.key.src, dst: packet.key.dst, id: packet.fragment_id, protocol: packet.key.protocol }
}
