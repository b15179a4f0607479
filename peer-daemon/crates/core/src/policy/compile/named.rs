//! Prefixes with the rules that name them.

use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};

use super::TooLarge;
use super::atoms::MAPPED;
use crate::desired::Rule;

/// A rule, as far as prefixes in one notation go: its IPv4 prefixes make pairs with each other, and so do those in IPv6
/// notation, mapped ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Half {
    /// Position of the rule.
    pub(super) rule: u32,
    v4: bool,
}

/// Which end of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Sources,
    Destinations,
}

/// The prefixes of one end, each once and in order, with all that name it.
#[derive(Debug)]
pub(super) struct Named(Vec<(Ipv6Net, Arc<[Half]>)>);

impl Named {
    /// Those of `rules`.
    pub(super) fn of(rules: &[Arc<Rule>], end: End, limit: usize) -> Result<Self, TooLarge> {
        let mut named: Vec<(Ipv6Net, Half)> = Vec::new();
        for (position, rule) in (0..).zip(rules) {
            named.extend(end.of(rule).iter().map(|net| by(position, net)));
        }
        named.sort_unstable();
        named.dedup();
        let groups = named.chunk_by(|one, other| one.0 == other.0);
        let mut groups: Vec<_> = groups.map(|same| (same[0].0, same.iter().map(|(_, half)| *half).collect())).collect();
        // It ends what wider prefixes say, whether or not anybody names it.
        if let Err(place) = groups.binary_search_by_key(&MAPPED, |(net, _): &(_, Arc<[Half]>)| *net) {
            groups.insert(place, (MAPPED, Arc::default()));
        }
        Self(groups).within(end, limit)
    }

    /// Those of `rules`, whose prefixes differ in few places from the `last` ones, of which this is.
    pub(super) fn moved(
        &self,
        last: &[Arc<Rule>],
        rules: &[Arc<Rule>],
        end: End,
        limit: usize,
    ) -> Result<Self, TooLarge> {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for ((position, last), rule) in (0..).zip(last).zip(rules) {
            if Arc::ptr_eq(last, rule) {
                continue;
            }
            let (last, wanted) = (end.of(last), end.of(rule));
            if last == wanted {
                continue;
            }
            let ends = |nets: &[IpNet]| {
                let mut named: Vec<_> = nets.iter().map(|net| by(position, net)).collect();
                named.sort_unstable();
                named.dedup();
                named
            };
            let (last, wanted) = (ends(last), ends(wanted));
            gone.extend(last.iter().filter(|named| wanted.binary_search(named).is_err()));
            new.extend(wanted.iter().filter(|named| last.binary_search(named).is_err()));
        }
        gone.sort_unstable();
        new.sort_unstable();
        Self(self.merged(&gone, &new)).within(end, limit)
    }

    /// One pass over what is there; groups that nothing concerns stay the same.
    fn merged(&self, gone: &[(Ipv6Net, Half)], new: &[(Ipv6Net, Half)]) -> Vec<(Ipv6Net, Arc<[Half]>)> {
        let mut merged = Vec::with_capacity(self.0.len() + new.len());
        let (mut gone, mut new) = (gone.chunk_by(same).peekable(), new.chunk_by(same).peekable());
        for (net, halves) in &self.0 {
            while let Some(before) = new.next_if(|group| group[0].0 < *net) {
                merged.push((before[0].0, before.iter().map(|(_, half)| *half).collect()));
            }
            let lost = gone.next_if(|group| group[0].0 == *net).unwrap_or_default();
            let added = new.next_if(|group| group[0].0 == *net).unwrap_or_default();
            if lost.is_empty() && added.is_empty() {
                merged.push((*net, Arc::clone(halves)));
                continue;
            }
            let kept = halves.iter().copied().filter(|half| !lost.iter().any(|(_, lost)| lost == half));
            let mut halves: Vec<Half> = kept.chain(added.iter().map(|(_, half)| *half)).collect();
            halves.sort_unstable();
            if !halves.is_empty() || *net == MAPPED {
                merged.push((*net, halves.into()));
            }
        }
        merged.extend(new.map(|group| (group[0].0, group.iter().map(|(_, half)| *half).collect())));
        merged
    }

    fn within(self, end: End, limit: usize) -> Result<Self, TooLarge> {
        let needed = self.0.len();
        if needed > limit { Err(TooLarge { what: end.what(), needed, limit }) } else { Ok(self) }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Ipv6Net, &Arc<[Half]>)> {
        self.0.iter().map(|(net, halves)| (*net, halves))
    }
}

impl End {
    fn of(self, rule: &Rule) -> &[IpNet] {
        match self {
            Self::Sources => &rule.sources,
            Self::Destinations => &rule.destinations,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Sources => "source prefixes",
            Self::Destinations => "destination prefixes",
        }
    }
}

fn by(position: u32, net: &IpNet) -> (Ipv6Net, Half) {
    (widen(net), Half { rule: position, v4: net.addr().is_ipv4() })
}

fn same(one: &(Ipv6Net, Half), other: &(Ipv6Net, Half)) -> bool {
    one.0 == other.0
}

fn widen(net: &IpNet) -> Ipv6Net {
    match net {
        IpNet::V4(net) => Ipv6Net::new_assert(net.network().to_ipv6_mapped(), 96 + net.prefix_len()),
        IpNet::V6(net) => net.trunc(),
    }
}
