//! What one table has that another one has not.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What makes the one table the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference<'a, K, V> {
    /// Keys to be removed, in order.
    pub(super) gone: Vec<&'a K>,
    /// Entries to be written, in order.
    pub(super) new: Vec<(&'a K, &'a V)>,
}

/// Both are walked once, side by side.
pub(super) fn difference<'a, K: Ord, V: PartialEq>(
    holds: &'a BTreeMap<K, V>,
    wanted: &'a BTreeMap<K, V>,
) -> Difference<'a, K, V> {
    let mut difference = Difference { gone: Vec::new(), new: Vec::new() };
    let mut held = holds.iter().peekable();
    for (key, value) in wanted {
        let same = loop {
            match held.peek().map(|(held, _)| (*held).cmp(key)) {
                Some(Ordering::Less) => difference.gone.extend(held.next().map(|(key, _)| key)),
                Some(Ordering::Equal) => break held.next().is_some_and(|(_, held)| held == value),
                Some(Ordering::Greater) | None => break false,
            }
        };
        if !same {
            difference.new.push((key, value));
        }
    }
    difference.gone.extend(held.map(|(key, _)| key));
    difference
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn applied_it_makes_one_the_other_and_touches_nothing_that_stays(
            holds in prop::collection::btree_map(0_u8..30, 0_u8..3, 0..20),
            wanted in prop::collection::btree_map(0_u8..30, 0_u8..3, 0..20),
        ) {
            let found = difference(&holds, &wanted);
            let mut made = holds.clone();
            for key in &found.gone {
                prop_assert!(made.remove(key).is_some());
            }
            for (key, value) in &found.new {
                prop_assert!(made.insert(**key, **value) != Some(**value));
            }
            prop_assert_eq!(made, wanted);
        }
    }
}
