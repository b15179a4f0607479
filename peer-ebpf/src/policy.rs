//! Policy: who may open what. A walk over all entries of the half in force; drop beats accept.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::bpf_loop;
use peer_common::policy::MAX_POLICY_RULES;
use peer_common::{Addr, Config, PolicyRule, RuleAction};

use crate::judge::Query;
use crate::maps::{POLICY, scratch};
use crate::parse::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};

/// The answer, with the id of the rule that gave it.
#[derive(Clone, Copy)]
pub enum Verdict {
    Accept(u32),
    Drop(#[expect(dead_code, reason = "for the flow log")] u32),
    /// No rule speaks of it.
    Default,
}

/// How far the walk has come, and what it looks for besides the addresses.
#[repr(C)]
pub struct Walk {
    base: u32,
    rule_id: u32,
    port: u16,
    protocol: u8,
    has_ports: u8,
    scope: u8,
    found: u8,
    is_v4: u8,
    pad: u8,
}

/// Judges the query under the rules of `scope` (bits of `RuleScope`). What carries no ports, or whose ports cannot be seen,
/// is matched by rules for all ports only.
#[inline(always)]
pub fn evaluate(config: &Config, query: *mut Query, scope: u8) -> Verdict {
    // SAFETY: this CPU's own working memory; nothing else uses it until the walk begins.
    let asked = unsafe { &mut *query };
    let half = config.policy_generation & 1;
    let len = config.policy_len[half as usize];
    let protocol = asked.key.protocol;
    asked.walk = Walk {
        base: half * MAX_POLICY_RULES,
        rule_id: 0,
        port: u16::from_be(asked.key.dst_port),
        protocol: if protocol == IPPROTO_ICMPV6 { IPPROTO_ICMP } else { protocol } as u8,
        has_ports: (asked.unjudged.is_none() && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)) as u8,
        scope,
        found: NOTHING,
        is_v4: asked.key.dst.is_v4() as u8,
        pad: 0,
    };
    let len = if len > MAX_POLICY_RULES { MAX_POLICY_RULES } else { len };
    let step: extern "C" fn(u32, *mut c_void) -> i64 = step;
    // SAFETY: the callback has the signature that the helper wants, and needs no context.
    unsafe { bpf_loop(len, step as *mut c_void, ptr::null_mut(), 0) };
    // SAFETY: the walk has ended; it wrote by a pointer of its own, hence volatile.
    let (found, rule_id) = unsafe {
        (ptr::read_volatile(&raw const (*query).walk.found), ptr::read_volatile(&raw const (*query).walk.rule_id))
    };
    match found {
        ACCEPT => Verdict::Accept(rule_id),
        DROP => Verdict::Drop(rule_id),
        _ => Verdict::Default,
    }
}

const NOTHING: u8 = 0;
const ACCEPT: u8 = RuleAction::Accept as u8;
const DROP: u8 = RuleAction::Drop as u8;

extern "C" fn step(index: u32, _context: *mut c_void) -> i64 {
    let Some(work) = scratch() else { return 1 };
    let query = &mut work.query;
    let Some(rule) = POLICY.get(query.walk.base + index) else { return 1 };
    if !matches(rule, query) {
        return 0;
    }
    if rule.action == DROP {
        query.walk.found = DROP;
        query.walk.rule_id = rule.id;
        return 1;
    }
    if query.walk.found == NOTHING {
        query.walk.found = ACCEPT;
        query.walk.rule_id = rule.id;
    }
    0
}

#[inline(always)]
fn matches(rule: &PolicyRule, query: &Query) -> bool {
    let walk = &query.walk;
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
    within(&query.key.dst, &rule.dst, rule.dst_len) && within(&query.key.src, &rule.src, rule.src_len)
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
