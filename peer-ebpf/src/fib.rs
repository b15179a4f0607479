//! Where a packet leaves: the kernel's FIB decides; only configured uplinks count.

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED,
    BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Params,
};
use aya_ebpf::helpers::bpf_fib_lookup;
use aya_ebpf::programs::TcContext;
use peer_common::{Addr, Config, Counter, DropReason, FlowKey, Route};

use crate::maps::uplink;
use crate::{family, stats};

pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 10;

/// A way out.
#[repr(C)]
pub struct Hop {
    /// Next-hop address, [`Addr::NONE`]: the kernel looks it up.
    pub next_hop: Addr,
    /// The uplink's own address of the packet's family, [`Addr::NONE`]: it has none.
    pub source: Addr,
    /// The uplink's interface index.
    pub uplink: u32,
    /// MTU, bytes of layer 3.
    pub mtu: u32,
    /// The question to the FIB. Not on the stack, as [`crate::judge::Keys`].
    params: Params,
}

/// Resolves the way to `key.dst`. Returns 0, or a drop reason plus 1: a function of its own, for the sake of the stack.
#[inline(never)]
pub fn resolve(ctx: &TcContext, config: &Config, route: &Route, key: &FlowKey, hop: &mut Hop) -> u32 {
    hop.next_hop = Addr::NONE;
    hop.uplink = route.uplink;
    hop.mtu = 0;
    if route.uplink == 0 {
        if let Err(reason) = lookup(ctx, config, route, key, hop) {
            return reason as u32 + 1;
        }
    }
    let Some(uplink) = uplink(hop.uplink) else { return DropReason::NotUplink as u32 + 1 };
    hop.source = family::choose(key.dst.is_v4(), &uplink.addr4, &uplink.addr6);
    if hop.mtu == 0 {
        hop.mtu = uplink.mtu;
    }
    0
}

#[inline(always)]
fn lookup(ctx: &TcContext, config: &Config, route: &Route, key: &FlowKey, hop: &mut Hop) -> Result<(), DropReason> {
    stats::count(Counter::FibLookups, 1);
    let params = &mut hop.params;
    // SAFETY: integers and unions of integers.
    *params = unsafe { core::mem::zeroed() };
    let is_v4 = key.dst.is_v4();
    params.family = if is_v4 { AF_INET } else { AF_INET6 };
    params.l4_protocol = key.protocol as u8;
    params.sport = key.src_port;
    params.dport = key.dst_port;
    params.ifindex = config.wt0;
    // A length of 1 asks for the MTU of the route instead of a check against it: the check would count our link header.
    params.__bindgen_anon_1.tot_len = 1;
    if is_v4 {
        params.__bindgen_anon_4.ipv4_dst = key.dst.words[3];
    } else {
        params.__bindgen_anon_4.ipv6_dst = key.dst.words;
    }
    // SAFETY: the parameters are a whole, initialised structure of the size given.
    let result = unsafe { bpf_fib_lookup(ctx.as_ptr(), ptr::from_mut(params), size_of::<Params>() as i32, 0) } as u32;
    match result {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED => {
            hop.uplink = params.ifindex;
            // SAFETY: all variants of the unions are plain integers of the structure's own memory.
            unsafe {
                hop.next_hop = if params.family == AF_INET {
                    Addr::from_v4_be(params.__bindgen_anon_4.ipv4_dst)
                } else {
                    Addr { words: params.__bindgen_anon_4.ipv6_dst }
                };
                if result == BPF_FIB_LKUP_RET_SUCCESS {
                    hop.mtu = params.__bindgen_anon_1.mtu_result as u32;
                }
            }
            Ok(())
        }
        // Forwarding is off on wt0 (IPv6, with a read-only /proc/sys): the daemon has resolved the uplink, and the
        // kernel looks the next hop up while it redirects.
        BPF_FIB_LKUP_RET_FWD_DISABLED if route.fallback_uplink != 0 => {
            hop.uplink = route.fallback_uplink;
            Ok(())
        }
        BPF_FIB_LKUP_RET_FWD_DISABLED | BPF_FIB_LKUP_RET_NOT_FWDED => Err(DropReason::NotUplink),
        _ => Err(DropReason::Unreachable),
    }
}
