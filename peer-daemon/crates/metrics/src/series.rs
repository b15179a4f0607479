//! Counters of tables that grow with the network, in a bounded number of series.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Counters by key. The first `limit` keys have series of their own, all others are summed up in one. A key stays where it
/// is until it leaves the table, so that no series ever falls, and none changes its meaning.
#[derive(Clone, Debug)]
pub struct Series<K, const N: usize> {
    limit: usize,
    own: BTreeMap<K, Row<N>>,
    others: HashMap<K, [u64; N]>,
    rest: [u64; N],
}

/// Counters of one key.
#[derive(Clone, Copy, Debug)]
struct Row<const N: usize> {
    last: [u64; N],
    sum: [u64; N],
}

impl<K: Copy + Ord + Hash, const N: usize> Series<K, N> {
    /// With series of their own for this many keys.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, own: BTreeMap::new(), others: HashMap::new(), rest: [0; N] }
    }

    /// Takes the table as it is now. A counter that has fallen has begun anew.
    pub fn update(&mut self, table: impl IntoIterator<Item = (K, [u64; N])>) {
        let table: BTreeMap<K, [u64; N]> = table.into_iter().collect();
        self.own.retain(|key, _| table.contains_key(key));
        self.others.retain(|key, _| table.contains_key(key));
        for (key, now) in table {
            if let Some(row) = self.own.get_mut(&key) {
                grow(&mut row.sum, &row.last, &now);
                row.last = now;
            } else if let Some(last) = self.others.get_mut(&key) {
                grow(&mut self.rest, last, &now);
                *last = now;
            } else if self.own.len() < self.limit {
                self.own.insert(key, Row { last: now, sum: now });
            } else {
                grow(&mut self.rest, &[0; N], &now);
                self.others.insert(key, now);
            }
        }
    }

    /// Keys that have series of their own, with their counters.
    pub fn own(&self) -> impl Iterator<Item = (&K, &[u64; N])> {
        self.own.iter().map(|(key, row)| (key, &row.sum))
    }

    /// The counters of all others, those that have left included.
    #[must_use]
    pub fn rest(&self) -> &[u64; N] {
        &self.rest
    }

    /// How many keys of the table have no series of their own.
    #[must_use]
    pub fn others(&self) -> usize {
        self.others.len()
    }
}

fn grow<const N: usize>(sum: &mut [u64; N], last: &[u64; N], now: &[u64; N]) {
    for ((sum, last), now) in sum.iter_mut().zip(last).zip(now) {
        *sum += if now >= last { now - last } else { *now };
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_keys_have_series_and_keep_them() {
        let mut series = Series::<u32, 1>::new(2);
        series.update([(7, [10]), (8, [20])]);
        series.update([(1, [5]), (7, [11]), (8, [20])]);
        assert_eq!(series.own().collect::<Vec<_>>(), [(&7, &[11]), (&8, &[20])]);
        assert_eq!((series.rest(), series.others()), (&[5], 1));
        // One leaves: the place is for the next that comes, not for one that was counted among the others.
        series.update([(1, [9]), (8, [20])]);
        series.update([(1, [9]), (8, [20]), (9, [1])]);
        assert_eq!(series.own().collect::<Vec<_>>(), [(&8, &[20]), (&9, &[1])]);
        assert_eq!((series.rest(), series.others()), (&[9], 1));
    }

    #[test]
    fn counters_that_begin_anew_go_on_and_what_has_left_stays_in_the_sum() {
        let mut series = Series::<u32, 1>::new(1);
        series.update([(1, [100]), (2, [50])]);
        series.update([(1, [30]), (2, [20])]);
        series.update([(1, [30])]);
        assert_eq!(series.own().collect::<Vec<_>>(), [(&1, &[130])]);
        assert_eq!((series.rest(), series.others()), (&[70], 0));
    }

    proptest! {
        #[test]
        fn no_series_falls_and_there_are_no_more_than_the_limit(
            tables in vec(btree_map(0_u8..12, 0_u64..1000, 0..12), 1..20),
        ) {
            let mut series = Series::<u8, 1>::new(4);
            let mut before = BTreeMap::new();
            let mut rest = 0;
            for table in tables {
                series.update(table.iter().map(|(key, value)| (*key, [*value])));
                let now: BTreeMap<u8, u64> = series.own().map(|(key, sum)| (*key, sum[0])).collect();
                prop_assert!(now.len() <= 4);
                prop_assert_eq!(now.len() + series.others(), table.len());
                for (key, sum) in &now {
                    prop_assert!(before.get(key).is_none_or(|last| last <= sum));
                    prop_assert!(table.contains_key(key));
                }
                prop_assert!(series.rest()[0] >= rest);
                (before, rest) = (now, series.rest()[0]);
            }
        }
    }
}
