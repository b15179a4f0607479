//! The most recent of many flows, in memory that does not grow with their number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use peer_common::{Flow, FlowKey, Mapping};

/// A flow as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) key: FlowKey,
    pub(super) flow: Flow,
    pub(super) mapping: Option<Mapping>,
}

/// Keeps the `limit` flows that were active last.
#[derive(Debug)]
pub(super) struct Recent {
    limit: usize,
    kept: BinaryHeap<Reverse<Candidate>>,
    seen: u64,
}

impl Candidate {
    /// Time of the last packet of either direction.
    pub(super) fn active(&self) -> u64 {
        self.mapping.map_or(0, |mapping| mapping.last_seen).max(self.flow.last_seen)
    }

    fn rank(&self) -> (u64, u64, FlowKey) {
        (self.active(), self.flow.created, self.key)
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Recent {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, kept: BinaryHeap::new(), seen: 0 }
    }

    pub(super) fn add(&mut self, candidate: Candidate) {
        self.seen += 1;
        if self.kept.len() < self.limit {
            self.kept.push(Reverse(candidate));
        } else if let Some(mut least) = self.kept.peek_mut()
            && candidate > least.0
        {
            *least = Reverse(candidate);
        }
    }

    /// The most recent first, and how many more there are.
    pub(super) fn finish(self) -> (Vec<Candidate>, u64) {
        let more = self.seen - self.kept.len() as u64;
        (self.kept.into_sorted_vec().into_iter().map(|Reverse(candidate)| candidate).collect(), more)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(out: u64, back: Option<u64>, number: u32) -> Candidate {
        Candidate {
            key: FlowKey { protocol: number, ..FlowKey::default() },
            flow: Flow { last_seen: out, ..Flow::default() },
            mapping: back.map(|last_seen| Mapping { last_seen, ..Mapping::default() }),
        }
    }

    #[test]
    fn either_direction_counts_and_the_rest_is_told() {
        let mut recent = Recent::new(2);
        for candidate in [candidate(1, Some(9), 0), candidate(5, None, 1), candidate(3, Some(2), 2)] {
            recent.add(candidate);
        }
        let (kept, more) = recent.finish();
        assert_eq!(kept.iter().map(Candidate::active).collect::<Vec<_>>(), [9, 5]);
        assert_eq!(more, 1);
    }

    proptest! {
        #[test]
        fn it_is_the_head_of_the_sorted_list(
            times in prop::collection::vec((0_u64..50, prop::option::of(0_u64..50)), 0..100),
            limit in 1_usize..20,
        ) {
            let mut all: Vec<_> = (0..).zip(&times).map(|(number, (out, back))| candidate(*out, *back, number)).collect();
            let mut recent = Recent::new(limit);
            all.iter().for_each(|candidate| recent.add(*candidate));
            let (kept, more) = recent.finish();
            all.sort_by(|a, b| b.cmp(a));
            prop_assert_eq!(kept.len() as u64 + more, all.len() as u64);
            all.truncate(limit);
            prop_assert_eq!(kept, all);
        }
    }
}
