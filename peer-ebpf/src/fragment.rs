//! Fragments in order: the first one says which flow the others belong to.

use aya_ebpf::bindings::BPF_ANY;
use peer_common::fragment::FRAGMENT_LIFE;
use peer_common::{Counter, Fragment, FragmentKey};

use crate::maps::FRAGMENTS;
use crate::parse::{Packet, Part};
use crate::stats;

/// Gives a later fragment the ports that the first one had, if that one came before it.
#[inline(always)]
pub fn complete(packet: &mut Packet, key: &mut FragmentKey, now: u64) {
    if packet.part != Part::Later {
        return;
    }
    set_key(key, packet);
    // SAFETY: values are replaced whole.
    let Some(first) = (unsafe { FRAGMENTS.get(&*key) }) else { return };
    if now.wrapping_sub(first.seen) > FRAGMENT_LIFE {
        return;
    }
    packet.key.src_port = first.src_port;
    packet.key.dst_port = first.dst_port;
    packet.unjudged = None;
}

/// Remembers a first fragment that may pass.
#[inline(always)]
pub fn remember(packet: &Packet, key: &mut FragmentKey, now: u64) {
    if packet.part != Part::First {
        return;
    }
    set_key(key, packet);
    let first = Fragment { seen: now, src_port: packet.key.src_port, dst_port: packet.key.dst_port, pad: 0 };
    if FRAGMENTS.insert(&*key, &first, BPF_ANY as u64).is_ok() {
        stats::count(Counter::FragmentsTracked, 1);
    }
}

#[inline(always)]
fn set_key(key: &mut FragmentKey, packet: &Packet) {
    *key =
        FragmentKey { src: packet.key.src, dst: packet.key.dst, id: packet.fragment_id, protocol: packet.key.protocol };
}
