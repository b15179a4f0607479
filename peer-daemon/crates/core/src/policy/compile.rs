//! Policy compiled: what 10 rules cost per packet, 10 000 cost, too.
//!
//! Both ends of a packet become atoms. A source address has an *identity*, a destination address a *class*: each stands
//! for the exact set of rules whose prefixes cover the address, and addresses with the same set share it. A longest-prefix
//! match finds both. What is left is one lookup of (identity, class, scope, kind of traffic, port), with ports split into
//! disjoint ranges. All prefixes lie in the 128 bits of IPv6, IPv4 mapped into `::ffff:0:0/96`.

mod atoms;
mod cells;
mod named;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::Ipv6Net;

use self::atoms::Atoms;
use self::named::{End, Named};
use crate::desired::{PortRange, Rule};

/// How much a policy may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Prefixes of each end.
    pub prefixes: usize,
    /// Cells, each one prefix of ports.
    pub cells: usize,
}

/// A policy that grows over its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy makes {needed} {what} or more, {limit} fit: use wider prefixes, or fewer overlapping ones")]
pub struct TooLarge {
    /// Of what.
    pub what: &'static str,
    /// How many, as far as it was counted.
    pub needed: usize,
    /// How many fit.
    pub limit: usize,
}

/// A compiled policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Identity of a source by longest prefix. 0: no rule speaks of it.
    pub sources: Arc<BTreeMap<Ipv6Net, u32>>,
    /// Class of a destination by longest prefix. 0: no rule speaks of it.
    pub destinations: Arc<BTreeMap<Ipv6Net, u32>>,
    /// What becomes of it. What has no cell, no rule speaks of.
    pub cells: Arc<BTreeMap<Cell, Outcome>>,
}

/// A key of the last lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Of the source.
    pub identity: u32,
    /// Of the destination.
    pub class: u32,
    /// Traffic to the node, or through it.
    pub scope: CellScope,
    /// Kind of traffic.
    pub kind: Kind,
    /// First port of a range that is a prefix; 0 where there are no ports.
    pub port: u16,
    /// Length of that prefix, bits; 0: all ports, or none.
    pub port_bits: u8,
}

/// Traffic of one scope. What is of both is looked up twice: drop beats accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CellScope {
    /// To the node itself.
    Node = 1,
    /// Through the node.
    Route = 2,
}

/// Kinds of traffic that rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// ICMP and ICMPv6.
    Icmp = 1,
    /// TCP with its ports.
    Tcp = 2,
    /// UDP with its ports.
    Udp = 3,
    /// TCP whose ports cannot be seen.
    TcpBlind = 4,
    /// UDP whose ports cannot be seen.
    UdpBlind = 5,
    /// Every other protocol.
    Other = 6,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Icmp, Self::Tcp, Self::Udp, Self::TcpBlind, Self::UdpBlind, Self::Other];

    /// Whether ports tell traffic of this kind apart.
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// What becomes of a packet, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It passes.
    Accept {
        /// The first rule that accepts it.
        rule: u32,
    },
    /// It is dropped.
    Drop {
        /// The first rule that drops it.
        rule: u32,
    },
}

/// Compiles `rules`.
///
/// # Errors
/// When the result would be larger than `limits`.
pub fn compile(rules: &[Rule], limits: &Limits) -> Result<Compiled, TooLarge> {
    Compiler::default().compile(&Rule::list(rules.iter().cloned()), limits)
}

/// Compiles one policy after the other. Identities and classes that are still there keep their numbers, so that little has to be
/// written; and while prefixes come and go that add no new one, the cells stay the very same, and only rules whose prefixes
/// differ are looked at.
#[derive(Debug, Default)]
pub struct Compiler {
    last: Option<Last>,
    work: Work,
}

/// What a [`Compiler`] had to do so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Policies whose prefixes were gathered from all rules, not from those that differ.
    pub gathered: u64,
    /// Policies whose cells were made anew.
    pub cells: u64,
}

#[derive(Debug)]
struct Last {
    rules: Arc<[Arc<Rule>]>,
    sources: (Named, Atoms),
    destinations: (Named, Atoms),
    cells: Arc<BTreeMap<Cell, Outcome>>,
}

impl Compiler {
    /// Compiles `rules`.
    ///
    /// # Errors
    /// When the result would be larger than `limits`. The next one is then compared with the one before.
    pub fn compile(&mut self, rules: &Arc<[Arc<Rule>]>, limits: &Limits) -> Result<Compiled, TooLarge> {
        let last = self.last.as_ref();
        let shaped = last.filter(|last| same_shapes(&last.rules, rules));
        let end = |end, pick: fn(&Last) -> &(Named, Atoms)| {
            let named = match shaped {
                Some(last) => pick(last).0.moved(&last.rules, rules, end, limits.prefixes)?,
                None => Named::of(rules, end, limits.prefixes)?,
            };
            let atoms = Atoms::of(&named, last.map(pick).map(|(named, atoms)| (named, atoms)));
            Ok((named, atoms))
        };
        let sources = end(End::Sources, |last| &last.sources)?;
        let destinations = end(End::Destinations, |last| &last.destinations)?;
        let same = shaped
            .filter(|last| last.sources.1.same_sets(&sources.1) && last.destinations.1.same_sets(&destinations.1))
            .filter(|last| last.cells.len() <= limits.cells);
        let mut work = self.work;
        work.gathered += u64::from(shaped.is_none());
        work.cells += u64::from(same.is_none());
        let cells = match same {
            Some(last) => Arc::clone(&last.cells),
            None => Arc::new(cells::of(rules, &sources.1, &destinations.1, limits.cells)?),
        };
        let compiled = Compiled {
            sources: Arc::clone(sources.1.prefixes()),
            destinations: Arc::clone(destinations.1.prefixes()),
            cells: Arc::clone(&cells),
        };
        self.last = Some(Last { rules: Arc::clone(rules), sources, destinations, cells });
        self.work = work;
        Ok(compiled)
    }

    /// What it had to do so far.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }
}

/// Whether the rules differ in their prefixes at most.
fn same_shapes(last: &[Arc<Rule>], rules: &[Arc<Rule>]) -> bool {
    let shape = |rule: &Rule| (rule.id, rule.protocol, rule.action, rule.scope);
    let same = |(last, rule): (&Arc<Rule>, &Arc<Rule>)| {
        Arc::ptr_eq(last, rule) || shape(last) == shape(rule) && last.ports == rule.ports
    };
    last.len() == rules.len() && last.iter().zip(rules).all(same)
}

/// Prefixes (first port, bits) that make up an inclusive range.
fn port_prefixes(range: PortRange) -> impl Iterator<Item = (u16, u8)> {
    let mut next = u32::from(range.min);
    let end = u32::from(range.max) + 1;
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        // As large as alignment and what is left allow.
        let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
        let size = aligned.min((end - next).ilog2());
        let prefix = (u16::try_from(next).ok()?, u8::try_from(16 - size).ok()?);
        next += 1 << size;
        Some(prefix)
    })
}

#[cfg(test)]
mod tests;
