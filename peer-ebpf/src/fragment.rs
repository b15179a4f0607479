//! Fragments in order: the first one says which flow the others belong to.

use aya_ebpf::bindings::BPF_ANY;
use peer_common::fragment::FRAGMENT_LIFE;
use peer_common::{Counter, Fragment, FragmentKey};

use crate::maps::FRAGMENTS;
use crate::parse::{Packet, Part};
use crate::stats;

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
    entry.key = key(packet);
    entry.first = Fragment { seen: now, src_port: packet.key.src_port, dst_port: packet.key.dst_port, pad: 0 };
    if FRAGMENTS.insert(&entry.key, &entry.first, BPF_ANY as u64).is_ok() {
        stats::count(Counter::FragmentsTracked, 1);
    }
}

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    FragmentKey { src: packet.key.src, dst: packet.key.dst, id: packet.fragment_id, protocol: packet.key.protocol }
}
