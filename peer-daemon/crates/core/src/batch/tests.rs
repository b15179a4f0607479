use proptest::prelude::*;

use super::*;

fn batch<M: Clone>(items: &[(&[u8], M)]) -> Batch<M> {
    let bytes = items.iter().map(|(item, _)| item.len()).sum();
    let mut batch = Batch::with_capacity(bytes, items.len());
    for (item, meta) in items {
        assert!(batch.push(item, meta.clone()));
    }
    batch
}

/// The runs as lists of item lengths.
fn lengths<M: PartialEq>(batch: &Batch<M>, max_items: usize, max_bytes: usize) -> Vec<Vec<usize>> {
    batch
        .runs(max_items, max_bytes)
        .map(|(bytes, segment, _)| bytes.chunks(segment).map(<[u8]>::len).collect())
        .collect()
}

#[test]
fn keeps_order_and_refuses_what_does_not_fit() {
    let mut batch = Batch::with_capacity(8, 3);
    assert!(batch.is_empty() && batch.has_room(8) && !batch.has_room(9));
    assert!(batch.push(b"abc", 1) && batch.push(b"de", 2));
    assert!(!batch.has_room(4) && !batch.push(b"1234", 3), "bytes are used up");
    assert!(batch.push(b"fgh", 3));
    assert!(!batch.has_room(0) && !batch.push(b"", 4), "items are used up");
    assert_eq!((batch.len(), batch.bytes()), (3, 8));
    let items: Vec<_> = batch.iter().collect();
    assert_eq!(items, [(&b"abc"[..], &1), (b"de", &2), (b"fgh", &3)]);
    batch.clear();
    assert!(batch.is_empty() && batch.bytes() == 0 && batch.has_room(8));
}

#[test]
fn filling_gives_back_what_it_did_not_use() {
    let mut batch = Batch::with_capacity(10, 4);
    assert!(batch.push_with(8, |room| {
        assert_eq!(room.len(), 8);
        room[..2].copy_from_slice(b"ab");
        Some((2, ()))
    }));
    assert!(batch.push_with(8, |_| None), "there was room, but nothing to push");
    assert_eq!((batch.len(), batch.bytes()), (1, 2));
    assert!(!batch.push_with(9, |_| unreachable!("no room")));
    assert!(batch.push_with(3, |_| Some((99, ()))), "a length beyond the room is the room");
    assert_eq!(batch.bytes(), 5);
}

#[test]
fn items_are_writable_in_place() {
    let mut batch = batch(&[(b"ab", 1_u8), (b"c", 2)]);
    batch.for_each_mut(|item, meta| item.iter_mut().for_each(|byte| *byte += meta));
    assert_eq!(batch.iter().map(|(item, _)| item).collect::<Vec<_>>(), [&b"bc"[..], b"e"]);
}

#[test]
fn a_run_is_of_one_length_and_its_last_may_be_shorter() {
    let of = |lengths: &[usize]| {
        let items: Vec<_> = lengths.iter().map(|&len| (&[7; 9][..len], ())).collect();
        batch(&items)
    };
    let runs = |sizes: &[usize]| lengths(&of(sizes), usize::MAX, usize::MAX);
    assert!(runs(&[]).is_empty());
    assert_eq!(runs(&[4]), [vec![4]]);
    assert_eq!(runs(&[4, 4, 4]), [vec![4, 4, 4]]);
    assert_eq!(runs(&[4, 4, 3]), [vec![4, 4, 3]]);
    assert_eq!(runs(&[4, 3, 3]), [vec![4, 3], vec![3]], "the shorter one ends the run");
    assert_eq!(runs(&[3, 4, 4]), [vec![3], vec![4, 4]], "a longer one starts another");
    assert_eq!(runs(&[4, 3, 4]), [vec![4, 3], vec![4]]);
}

#[test]
fn a_run_ends_where_the_metadata_changes() {
    let batch = batch(&[(b"aa", 1), (b"bb", 1), (b"cc", 2), (b"dd", 1)]);
    let runs: Vec<_> = batch.runs(9, 99).collect();
    assert_eq!(runs, [(&b"aabb"[..], 2, &1), (b"cc", 2, &2), (b"dd", 2, &1)]);
}

#[test]
fn limits_cut_runs_but_never_items() {
    let batch = batch(&[(b"aaaa", ()), (b"bbbb", ()), (b"cccc", ()), (b"dddd", ()), (b"ee", ())]);
    assert_eq!(lengths(&batch, 2, 99), [vec![4, 4], vec![4, 4], vec![2]]);
    assert_eq!(lengths(&batch, 9, 12), [vec![4, 4, 4], vec![4, 2]]);
    assert_eq!(lengths(&batch, 9, 9), [vec![4, 4], vec![4, 4], vec![2]]);
    assert_eq!(lengths(&batch, 9, 1), [vec![4], vec![4], vec![4], vec![4], vec![2]]);
    assert_eq!(lengths(&batch, 1, 99).len(), 5);
}

proptest! {
    #[test]
    fn runs_are_the_items_in_order_within_the_limits_and_maximal(
        items in prop::collection::vec((1_usize..5, 0_u8..2), 0..24),
        max_items in 1_usize..6,
        max_bytes in 1_usize..20,
    ) {
        let payload: Vec<(Vec<u8>, u8)> =
            (0_u8..).zip(&items).map(|(number, &(len, meta))| (vec![number; len], meta)).collect();
        let batch = batch(&payload.iter().map(|(item, meta)| (&item[..], *meta)).collect::<Vec<_>>());
        let mut unpacked = Vec::new();
        let mut before: Option<(usize, usize, usize, usize, u8)> = None;
        for (bytes, segment, &meta) in batch.runs(max_items, max_bytes) {
            let count = bytes.len().div_ceil(segment);
            let last = bytes.len() - (count - 1) * segment;
            prop_assert!(count <= max_items);
            prop_assert!(bytes.len() <= max_bytes || count == 1);
            if let Some((bytes_before, count_before, segment_before, last_before, meta_before)) = before {
                // The first item of this run had a reason not to be the last of the one before.
                prop_assert!(
                    meta != meta_before
                        || last_before < segment_before
                        || segment > segment_before
                        || count_before == max_items
                        || bytes_before + segment > max_bytes
                );
            }
            unpacked.extend(bytes.chunks(segment).map(|item| (item.to_vec(), meta)));
            before = Some((bytes.len(), count, segment, last, meta));
        }
        prop_assert_eq!(unpacked, payload);
    }
}

#[test]
fn scattered_items_keep_order_and_gaps_end_runs() {
    let mut batch = Batch::<u8>::with_capacity(64, 5);
    assert!(batch.push(b"head", 1));
    batch.scatter_with(|room, items| {
        room[..4].copy_from_slice(b"aabb");
        room[10..12].copy_from_slice(b"cc");
        assert!(items.push(0..2, 1) && items.push(2..4, 1) && items.push(10..12, 1));
        assert!(!items.push(11..12, 1), "overlaps");
        assert!(!items.push(58..61, 1), "beyond the room");
    });
    let items: Vec<_> = batch.iter().map(|(bytes, _)| bytes.to_vec()).collect();
    assert_eq!(items, [b"head".to_vec(), b"aa".to_vec(), b"bb".to_vec(), b"cc".to_vec()]);
    assert_eq!((batch.len(), batch.bytes()), (4, 10));
    assert_eq!(batch.get(3), Some((&b"cc"[..], &1)));
    assert_eq!(batch.get(4), None);
    let runs: Vec<_> = batch.runs(64, 64).map(|(bytes, segment, _)| (bytes.to_vec(), segment)).collect();
    assert_eq!(runs, [(b"headaa".to_vec(), 4), (b"bb".to_vec(), 2), (b"cc".to_vec(), 2)]);
    assert!(batch.push(b"tail", 2));
    batch.scatter_with(|_, items| assert!(!items.push(0..1, 1), "no item left"));
    batch.clear();
    assert_eq!((batch.len(), batch.bytes()), (0, 0));
}

#[test]
fn what_is_not_retained_is_gone_and_breaks_runs() {
    let mut batch = Batch::with_capacity(100, 10);
    for item in [&b"aa"[..], b"xx", b"bb", b"cc"] {
        assert!(batch.push(item, ()));
    }
    batch.retain(|item, ()| item != b"xx");
    assert_eq!((batch.len(), batch.bytes()), (3, 6));
    let runs: Vec<_> = batch.runs(64, 100).map(|(bytes, segment, ())| (bytes.to_vec(), segment)).collect();
    assert_eq!(runs, [(b"aa".to_vec(), 2), (b"bbcc".to_vec(), 2)], "a gap is never sent");
    assert!(batch.push(b"dd", ()), "its room is free again after a clear, not before");
    assert_eq!(batch.iter().map(|(item, ())| item.to_vec()).collect::<Vec<_>>(), [b"aa", b"bb", b"cc", b"dd"]);
}
