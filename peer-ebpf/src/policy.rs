//! Policy: who may open what. Three lookups by longest prefix, whatever the number of rules; or one, and a prepared answer.

use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, LpmTrie};
use peer_common::policy::{Answer as Prepared, NOBODY};
use peer_common::{Addr, CellKey, CellKind, CellValue, RuleAction, RuleScope};

use crate::judge::Query;
use crate::maps::{ANSWERS_0, ANSWERS_1, CELLS_0, CELLS_1, DESTINATIONS_0, DESTINATIONS_1, SOURCES_0, SOURCES_1};
use crate::parse::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use crate::verifier::value;

/// The answer, with the id of the rule that gave it, 0 for none: a number in every case, because on a way that the CPU only
/// may take ahead the verifier would find whatever its register had before.
#[derive(Clone, Copy)]
pub struct Verdict {
    pub answer: Answer,
    pub rule: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Answer {
    Accept,
    Drop,
    /// No rule speaks of it.
    Default,
}

const DEFAULT: Verdict = Verdict { answer: Answer::Default, rule: 0 };

/// Judges the query under the rules of `scope` (bits of `RuleScope`). What carries no ports, or whose ports cannot be seen,
/// is matched by rules for all ports only.
#[inline(always)]
pub fn evaluate(query: &mut Query, scope: u8) -> Verdict {
    if query.generation & 1 == 0 {
        look_up(&SOURCES_0, &ANSWERS_0, &DESTINATIONS_0, &CELLS_0, query, scope)
    } else {
        look_up(&SOURCES_1, &ANSWERS_1, &DESTINATIONS_1, &CELLS_1, query, scope)
    }
}

#[inline(always)]
fn look_up(
    sources: &LpmTrie<Addr, u32>,
    answers: &'static Array<Prepared>,
    destinations: &LpmTrie<Addr, u32>,
    cells: &LpmTrie<CellKey, CellValue>,
    query: &mut Query,
    scope: u8,
) -> Verdict {
    let Some(&identity) = sources.get(query.keys.addr(&query.key.src)) else { return DEFAULT };
    query.identity = identity;
    let kind = kind(query);
    let has_ports = kind == CellKind::TCP || kind == CellKind::UDP;
    let port = if has_ports { query.key.dst_port } else { 0 };
    if let Some(verdict) = prepared(answers, query, identity, scope, kind, u16::from_be(port)) {
        return verdict;
    }
    let Some(&class) = destinations.get(query.keys.addr(&query.key.dst)) else { return DEFAULT };
    query.class = class;
    if identity == NOBODY || class == NOBODY {
        return DEFAULT;
    }
    let key = &mut query.keys.cell;
    *key = Key::new(CellKey::ALL_BITS, CellKey { identity, class, scope, kind, port });
    if scope == RuleScope::NODE || scope == RuleScope::ROUTE {
        return verdict(cells, key);
    }
    // Rules of both scopes speak of it, and drop beats accept.
    key.data.scope = RuleScope::NODE;
    let as_node = verdict(cells, key);
    if as_node.answer == Answer::Drop {
        return as_node;
    }
    key.data.scope = RuleScope::ROUTE;
    let as_route = verdict(cells, key);
    // Of a protected node's address only what they drop is heard.
    let opens = as_node.answer != Answer::Accept && scope & RuleScope::GUARDED == 0;
    if as_route.answer == Answer::Default || (as_route.answer == Answer::Accept && !opens) {
        return as_node;
    }
    as_route
}

/// What the table without search says.
#[inline(always)]
fn prepared(
    answers: &'static Array<Prepared>,
    query: &mut Query,
    identity: u32,
    scope: u8,
    kind: u8,
    port: u16,
) -> Option<Verdict> {
    let answer = value(answers, Prepared::place(&query.key.dst))?;
    // SAFETY: traffic reads the half that is not written.
    let answer = unsafe { &*answer };
    let same = answer.destination == query.key.dst && answer.identity as u32 == identity && answer.scope == scope;
    if !same || answer.kinds as u32 >> kind & 1 == 0 || port < answer.port_min || port > answer.port_max {
        return None;
    }
    query.class = answer.class as u32;
    let accepts = answer.action == RuleAction::Accept as u8;
    Some(Verdict { answer: if accepts { Answer::Accept } else { Answer::Drop }, rule: answer.rule })
}

#[inline(always)]
fn verdict(cells: &LpmTrie<CellKey, CellValue>, key: &Key<CellKey>) -> Verdict {
    const ACCEPT: u32 = RuleAction::Accept as u32;
    match cells.get(key) {
        Some(cell) if cell.action == ACCEPT => Verdict { answer: Answer::Accept, rule: cell.rule },
        Some(cell) => Verdict { answer: Answer::Drop, rule: cell.rule },
        None => DEFAULT,
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
