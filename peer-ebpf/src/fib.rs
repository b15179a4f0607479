//! Where a packet leaves: the kernel's FIB decides; only configured uplinks count.

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_NO_SRC_ADDR, BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT,
    bpf_fib_lookup as Params,
};
use aya_ebpf::helpers::bpf_fib_lookup;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use peer_common::hash::siphash13;
use peer_common::next_hop::LINK_PARTS;
use peer_common::ports::pair;
use peer_common::{Addr, ChosenKey, Config, Counter, DropReason, FlowKey, NextHop, NextHopKey, Route, Uplink};

use crate::maps::{CHOSEN_SOURCES, LOCALS, NAT_SOURCES, uplink};
use crate::verifier::{opaque, value};
use crate::{family, stats};

pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 10;

/// A way out.
#[repr(C)]
pub struct Hop {
    /// What was resolved, as its entry in the table of next hops would be.
    pub entry: NextHop,
    /// Key of the entry. Not on the stack, as [`crate::judge::Keys`]; so are the others.
    pub key: NextHopKey,
    /// What the FIB has said: `BPF_FIB_LKUP_RET_…`.
    pub result: u32,
    /// Number of the entry.
    pub number: u64,
    /// The question to the FIB.
    params: Params,
    /// The question for a source, where the FIB does not say.
    chosen: Key<ChosenKey>,
}

/// Resolves the way to `key.dst`. Returns 0, or a drop reason plus 1: a function of its own, for the sake of the stack.
#[inline(never)]
pub fn resolve(ctx: &TcContext, config: &Config, route: &Route, key: &FlowKey, hop: &mut Hop) -> u32 {
    let Hop { entry, params, chosen, result, .. } = hop;
    (entry.addr, entry.source) = (Addr::NONE, Addr::NONE);
    let family = if key.dst.is_v4() { NextHop::V4 } else { 0 };
    (entry.flags, entry.mtu, entry.asked, entry.uplink) = (family, 0, 0, route.uplink);
    if let Err(reason) = lookup(ctx, config, route, key, entry, (params, result)) {
        return reason as u32 + 1;
    }
    let Some(uplink) = uplink(entry.uplink) else { return DropReason::NotUplink as u32 + 1 };
    if route.flags & Route::MASQUERADE != 0 {
        choose_source(config, uplink, key, entry, chosen);
    }
    if entry.mtu == 0 {
        entry.mtu = uplink.mtu;
    }
    0
}

/// Whether a flow that has this source may keep it, on a way for which another one would be chosen now: it leaves by the same
/// uplink as before, and the node still has the address.
#[inline(always)]
pub fn may_keep_source(before: Option<u32>, hop: &NextHop, source: &Addr) -> bool {
    // SAFETY: values are replaced whole by the daemon.
    before == Some(hop.uplink) && unsafe { LOCALS.get(source) }.is_some()
}

/// The address that stands for the peer: where the uplink has further ones, always the same of them for this peer and this
/// remote (RFC 4787 REQ-2); else the one that the kernel chooses, which the FIB has told, or the daemon has asked for.
#[inline(always)]
fn choose_source(config: &Config, uplink: &Uplink, key: &FlowKey, hop: &mut NextHop, chosen: &mut Key<ChosenKey>) {
    let is_v4 = key.dst.is_v4();
    // One number that is shifted: to read one byte or another would be pointer arithmetic by a variable, as in `family`.
    let sources = opaque(u32::from_le_bytes(uplink.sources)) >> if is_v4 { 0 } else { 16 };
    let (first, count) = (sources & 0xff, sources >> 8 & 0xff);
    if count != 0 {
        let ends = [pair(&key.src, 0), pair(&key.src, 2), pair(&key.dst, 0), pair(&key.dst, 2)];
        let number = (siphash13(config.hash_key, ends) as u32).checked_rem(count).unwrap_or(0);
        // SAFETY: an array's value lives as long as the program; the daemon replaces it whole.
        let further = value(&NAT_SOURCES, first + number).map(|addr| unsafe { *addr });
        if let Some(addr) = further.filter(|addr| !addr.is_none()) {
            hop.source = addr;
            return;
        }
    }
    if !hop.source.is_none() {
        return;
    }
    chosen.prefix_len = ChosenKey::UPLINK_BITS + 128;
    chosen.data = ChosenKey { uplink: hop.uplink, dst: key.dst };
    hop.source = match CHOSEN_SOURCES.get(&*chosen) {
        Some(addr) => *addr,
        None => family::choose(is_v4, &uplink.addr4, &uplink.addr6),
    };
}

#[inline(always)]
fn lookup(
    ctx: &TcContext,
    config: &Config,
    route: &Route,
    key: &FlowKey,
    hop: &mut NextHop,
    (params, said): (&mut Params, &mut u32),
) -> Result<(), DropReason> {
    stats::count(Counter::FibLookups, 1);
    // SAFETY: integers and unions of integers.
    *params = unsafe { core::mem::zeroed() };
    let is_v4 = key.dst.is_v4();
    params.family = if is_v4 { AF_INET } else { AF_INET6 };
    params.l4_protocol = key.protocol as u8;
    params.sport = key.src_port;
    params.dport = key.dst_port;
    // A length of 1 asks for the MTU of the route instead of a check against it: the check would count our link header.
    params.__bindgen_anon_1.tot_len = 1;
    // The source as well: rules and source-specific routes ask for it.
    if is_v4 {
        params.__bindgen_anon_3.ipv4_src = key.src.words[3];
        params.__bindgen_anon_4.ipv4_dst = key.dst.words[3];
    } else {
        params.__bindgen_anon_3.ipv6_src = key.src.words;
        params.__bindgen_anon_4.ipv6_dst = key.dst.words;
    }
    // A route that names its uplink is asked for a way out of that one.
    let named = route.uplink != 0;
    params.ifindex = if named { route.uplink } else { config.wt0 };
    let asked = if route.flags & Route::MASQUERADE != 0 { config.fib_flags } else { 0 };
    let flags = asked | if named { BPF_FIB_LOOKUP_OUTPUT } else { 0 };
    // SAFETY: the parameters are a whole, initialised structure of the size given.
    let result =
        unsafe { bpf_fib_lookup(ctx.as_ptr(), ptr::from_mut(params), size_of::<Params>() as i32, flags) } as u32;
    *said = result;
    match result {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED => {
            hop.uplink = params.ifindex;
            if asked != 0 {
                take_source(hop, params);
            }
            take_neighbour(key, hop, params, result == BPF_FIB_LKUP_RET_SUCCESS);
            Ok(())
        }
        BPF_FIB_LKUP_RET_NO_SRC_ADDR => Err(DropReason::NoSourceAddress),
        // There is no such way, or forwarding is off there: the kernel looks the next hop up while it redirects.
        _ if named => Ok(()),
        // Forwarding is off on wt0 (IPv6, with a read-only /proc/sys): the daemon has resolved the uplink.
        BPF_FIB_LKUP_RET_FWD_DISABLED if route.fallback_uplink != 0 => {
            hop.uplink = route.fallback_uplink;
            Ok(())
        }
        BPF_FIB_LKUP_RET_FWD_DISABLED | BPF_FIB_LKUP_RET_NOT_FWDED => Err(DropReason::NotUplink),
        _ => Err(DropReason::Unreachable),
    }
}

/// Takes over the source that the kernel would choose, if there is one.
#[inline(always)]
fn take_source(hop: &mut NextHop, params: &Params) {
    // SAFETY: both variants are plain integers of the structure's own memory.
    unsafe {
        if params.family != AF_INET {
            hop.source = Addr { words: params.__bindgen_anon_3.ipv6_src };
        } else if params.__bindgen_anon_3.ipv4_src != 0 {
            hop.source = Addr::from_v4_be(params.__bindgen_anon_3.ipv4_src);
        }
    }
}

/// Takes over what the FIB says of the neighbour; `whole`: its link address and the MTU, too.
#[inline(always)]
fn take_neighbour(key: &FlowKey, hop: &mut NextHop, params: &Params, whole: bool) {
    const ETH_P_IP: u16 = 0x0800;
    const ETH_P_IPV6: u16 = 0x86dd;
    // SAFETY: all variants of the unions are plain integers of the structure's own memory.
    unsafe {
        hop.addr = if params.family == AF_INET {
            Addr::from_v4_be(params.__bindgen_anon_4.ipv4_dst)
        } else {
            Addr { words: params.__bindgen_anon_4.ipv6_dst }
        };
        if whole {
            hop.mtu = params.__bindgen_anon_1.mtu_result as u32;
        }
    }
    if hop.addr != key.dst {
        hop.flags |= NextHop::GATEWAY;
    }
    if !whole {
        hop.flags |= NextHop::MTU_GUESSED;
        return;
    }
    hop.flags |= NextHop::HEADER;
    let [destination, source, kind] = LINK_PARTS;
    hop.header[destination].copy_from_slice(&params.dmac);
    hop.header[source].copy_from_slice(&params.smac);
    let ethertype = if key.dst.is_v4() { ETH_P_IP } else { ETH_P_IPV6 };
    hop.header[kind].copy_from_slice(&ethertype.to_be_bytes());
}
