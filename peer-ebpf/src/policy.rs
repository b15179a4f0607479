//! Policy: who may open what. Three lookups by longest prefix, whatever the number of rules.

use aya_ebpf::maps::LpmTrie;
use aya_ebpf::maps::lpm_trie::Key;
use peer_common::policy::NOBODY;
use peer_common::{Addr, CellKey, CellKind, CellValue, Config, RuleAction, RuleScope};

use crate::judge::Query;
use crate::maps::{CELLS_0, CELLS_1, DESTINATIONS_0, DESTINATIONS_1, SOURCES_0, SOURCES_1};
use crate::parse::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};

/// The answer, with the id of the rule that gave it.
#[derive(Clone, Copy)]
pub enum Verdict {
    Accept(u32),
    Drop(#[expect(dead_code, reason = "for the flow log")] u32),
    /// No rule speaks of it.
    Default,
}

/// Judges the query under the rules of `scope` (bits of `RuleScope`). What carries no ports, or whose ports cannot be seen,
/// is matched by rules for all ports only. The generation is read once per packet: it is the old policy or the new one.
#[inline(always)]
pub fn evaluate(config: &Config, query: &Query, scope: u8) -> Verdict {
    if config.policy_generation & 1 == 0 {
        look_up(&SOURCES_0, &DESTINATIONS_0, &CELLS_0, query, scope)
    } else {
        look_up(&SOURCES_1, &DESTINATIONS_1, &CELLS_1, query, scope)
    }
}

#[inline(always)]
fn look_up(
    sources: &LpmTrie<Addr, u32>,
    destinations: &LpmTrie<Addr, u32>,
    cells: &LpmTrie<CellKey, CellValue>,
    query: &Query,
    scope: u8,
) -> Verdict {
    let Some(&identity) = sources.get(Key::new(128, query.key.src)) else { return Verdict::Default };
    let Some(&class) = destinations.get(Key::new(128, query.key.dst)) else { return Verdict::Default };
    if identity == NOBODY || class == NOBODY {
        return Verdict::Default;
    }
    let kind = kind(query);
    let has_ports = kind == CellKind::TCP || kind == CellKind::UDP;
    let mut key = CellKey { identity, class, scope, kind, port: if has_ports { query.key.dst_port } else { 0 } };
    if scope != RuleScope::NODE | RuleScope::ROUTE {
        return verdict(cells, &key);
    }
    // Rules of both scopes speak of it, and drop beats accept.
    key.scope = RuleScope::NODE;
    let as_node = verdict(cells, &key);
    if matches!(as_node, Verdict::Drop(_)) {
        return as_node;
    }
    key.scope = RuleScope::ROUTE;
    match verdict(cells, &key) {
        Verdict::Default => as_node,
        as_route => match as_node {
            Verdict::Accept(_) if !matches!(as_route, Verdict::Drop(_)) => as_node,
            _ => as_route,
        },
    }
}

#[inline(always)]
fn verdict(cells: &LpmTrie<CellKey, CellValue>, key: &CellKey) -> Verdict {
    const ACCEPT: u32 = RuleAction::Accept as u32;
    match cells.get(Key::new(CellKey::ALL_BITS, *key)) {
        Some(cell) if cell.action == ACCEPT => Verdict::Accept(cell.rule),
        Some(cell) => Verdict::Drop(cell.rule),
        None => Verdict::Default,
    }
}

#[inline(always)]
fn kind(query: &Query) -> u8 {
    match (query.key.protocol, query.unjudged.is_none()) {
        (IPPROTO_ICMP | IPPROTO_ICMPV6, _) => CellKind::ICMP,
        (IPPROTO_TCP, true) => CellKind::TCP,
        (IPPROTO_UDP, true) => CellKind::UDP,
        (IPPROTO_TCP, false) => CellKind::TCP_BLIND,
        (IPPROTO_UDP, false) => CellKind::UDP_BLIND,
        _ => CellKind::OTHER,
    }
}
