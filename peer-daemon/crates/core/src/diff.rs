//! What differs between two long lists in one order: those of a large mesh change often, and little at a time.

/// So many entries ahead are looked at for the one that is wanted: some have gone or come.
const AHEAD: usize = 8;

/// Entries of `last`, then of `next`, that have no counterpart near the same place of the other. One that moved further is in
/// both. Costs little where the lists are the same.
pub fn lists<'a, T>(last: &'a [T], next: &'a [T], same: impl Fn(&T, &T) -> bool) -> (Vec<&'a T>, Vec<&'a T>) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    let (mut olds, mut news) = (last, next);
    while let ([old, olds_after @ ..], [entry, news_after @ ..]) = (olds, news) {
        if same(old, entry) {
            (olds, news) = (olds_after, news_after);
        } else if let Some(skip) = olds_after.iter().take(AHEAD).position(|old| same(old, entry)) {
            gone.extend(&olds[..=skip]);
            olds = &olds[skip + 1..];
        } else if let Some(skip) = news_after.iter().take(AHEAD).position(|entry| same(old, entry)) {
            new.extend(&news[..=skip]);
            news = &news[skip + 1..];
        } else {
            // One was replaced by another.
            gone.push(old);
            new.push(entry);
            (olds, news) = (olds_after, news_after);
        }
    }
    gone.extend(olds);
    new.extend(news);
    (gone, new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_more_and_one_less_are_all_that_is_told() {
        let last: Vec<u32> = (0..100).collect();
        let mut next = last.clone();
        next.insert(40, 1000);
        next.remove(70);
        assert_eq!(lists(&last, &next, u32::eq), (vec![&69], vec![&1000]));
    }

    proptest! {
        /// What is not told is the same in both, in the same order.
        #[test]
        fn without_it_both_are_the_same(
            last in prop::collection::vec(0_u8..20, 0..40),
            next in prop::collection::vec(0_u8..20, 0..40),
        ) {
            let (gone, new) = lists(&last, &next, u8::eq);
            let rest = |all: &[u8], told: &[&u8]| -> Vec<u8> {
                all.iter().filter(|entry| !told.iter().any(|told| std::ptr::eq(*told, *entry))).copied().collect()
            };
            prop_assert_eq!(rest(&last, &gone), rest(&next, &new));
        }
    }
}
