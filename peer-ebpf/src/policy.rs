//! Policy: who may open what. A walk over all entries of the half in force; drop beats accept.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::bpf_loop;
use peer_common::policy::MAX_POLICY_RULES;
use peer_common::{Addr, Config, FlowKey, PolicyRule, RuleAction};

use crate::maps::POLICY;
use crate::parse::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};

/// The answer, with the id of the rule that gave it.
#[derive(Clone, Copy)]
pub enum Verdict {
    Accept(u32),
    Drop(#[expect(dead_code, reason = "for the flow log")] u32),
    /// No rule speaks of it.
    Default,
}

/// Judges the tuple under the rules of `scope` (bits of `RuleScope`). `has_ports` is false for what carries none, or
/// whose ports cannot be seen: then only rules for all ports match.
#[inline(always)]
pub fn evaluate(config: &Config, key: &FlowKey, has_ports: bool, scope: u8) -> Verdict {
    let half = config.policy_generation & 1;
    let len = config.policy_len[half as usize];
    let mut walk = Walk {
        src: key.src,
        dst: key.dst,
        base: half * MAX_POLICY_RULES,
        rule_id: 0,
        port: u16::from_be(key.dst_port),
        protocol: if key.protocol == IPPROTO_ICMPV6 { IPPROTO_ICMP } else { key.protocol } as u8,
        has_ports: (has_ports && (key.protocol == IPPROTO_TCP || key.protocol == IPPROTO_UDP)) as u8,
        scope,
        found: NOTHING,
        is_v4: key.dst.is_v4() as u8,
        pad: [0; 2],
    };
    let len = if len > MAX_POLICY_RULES { MAX_POLICY_RULES } else { len };
    let step: extern "C" fn(u32, *mut Walk) -> i64 = step;
    // SAFETY: the callback has the signature that the helper wants and the context lives until it returns.
    unsafe { bpf_loop(len, step as *mut c_void, ptr::from_mut(&mut walk).cast(), 0) };
    match walk.found {
        ACCEPT => Verdict::Accept(walk.rule_id),
        DROP => Verdict::Drop(walk.rule_id),
        _ => Verdict::Default,
    }
}

const NOTHING: u8 = 0;
const ACCEPT: u8 = RuleAction::Accept as u8;
const DROP: u8 = RuleAction::Drop as u8;

#[repr(C)]
struct Walk {
    src: Addr,
    dst: Addr,
    base: u32,
    rule_id: u32,
    port: u16,
    protocol: u8,
    has_ports: u8,
    scope: u8,
    found: u8,
    is_v4: u8,
    pad: [u8; 2],
}

extern "C" fn step(index: u32, walk: *mut Walk) -> i64 {
    // SAFETY: `bpf_loop` hands on the context that `evaluate` gave it.
    let walk = unsafe { &mut *walk };
    let Some(rule) = POLICY.get(walk.base + index) else { return 1 };
    if !matches(rule, walk) {
        return 0;
    }
    if rule.action == DROP {
        walk.found = DROP;
        walk.rule_id = rule.id;
        return 1;
    }
    if walk.found == NOTHING {
        walk.found = ACCEPT;
        walk.rule_id = rule.id;
    }
    0
}

#[inline(always)]
fn matches(rule: &PolicyRule, walk: &Walk) -> bool {
    if rule.scope & walk.scope == 0 {
        return false;
    }
    if rule.protocol != 0 && rule.protocol != walk.protocol {
        return false;
    }
    if walk.has_ports != 0 {
        if walk.port < rule.port_min || walk.port > rule.port_max {
            return false;
        }
    } else if rule.port_min != 0 || rule.port_max != u16::MAX {
        return false;
    }
    // `::/0` covers the mapped addresses, but not IPv4.
    if rule.dst.is_v4() as u8 != walk.is_v4 || rule.src.is_v4() as u8 != walk.is_v4 {
        return false;
    }
    within(&walk.dst, &rule.dst, rule.dst_len) && within(&walk.src, &rule.src, rule.src_len)
}

#[inline(always)]
fn within(addr: &Addr, prefix: &Addr, len: u8) -> bool {
    let len = len as u32;
    let mut differs = (addr.words[0] ^ prefix.words[0]) & word_mask(len, 0);
    differs |= (addr.words[1] ^ prefix.words[1]) & word_mask(len, 32);
    differs |= (addr.words[2] ^ prefix.words[2]) & word_mask(len, 64);
    differs |= (addr.words[3] ^ prefix.words[3]) & word_mask(len, 96);
    differs == 0
}

/// The part of a prefix mask that lies in the word starting at bit `start`, network byte order.
#[inline(always)]
fn word_mask(len: u32, start: u32) -> u32 {
    if len <= start {
        return 0;
    }
    let bits = len - start;
    if bits >= 32 { u32::MAX } else { (!(u32::MAX >> bits)).to_be() }
}
