use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn private(n: u16) -> PrivateKey {
    let mut bytes = [1; 32];
    // Not the first byte: some bits of it are no part of the key.
    bytes[1..3].copy_from_slice(&n.to_le_bytes());
    PrivateKey::from_bytes(bytes)
}

fn keys() -> (Keys, Arc<SignalStats>) {
    let stats = Arc::<SignalStats>::default();
    (Keys::new(private(0), stats.clone()), stats)
}

/// What peer `n` sends to us.
fn sealed(n: u16) -> (PublicKey, Vec<u8>) {
    let key = private(n);
    (key.public_key(), Sealer::new(&key, &private(0).public_key()).seal(b"hello"))
}

#[test]
fn a_key_is_derived_once_whichever_way_messages_go() {
    let (keys, stats) = keys();
    let (peer, body) = sealed(1);
    assert_eq!(keys.open(&peer, body.clone()).expect("authentic").as_slice(), b"hello");
    for _ in 0..3 {
        let answer = keys.seal(&peer, b"answer");
        assert_eq!(
            Sealer::new(&private(1), &private(0).public_key()).open(answer).expect("ours").as_slice(),
            b"answer"
        );
        assert_eq!(keys.open(&peer, body.clone()).expect("authentic").as_slice(), b"hello");
    }
    assert_eq!(stats.keys_derived(), 1);

    keys.seal(&sealed(2).0, b"offer");
    keys.open(&sealed(2).0, sealed(2).1).expect("authentic");
    assert_eq!(stats.keys_derived(), 2);
}

#[test]
fn of_what_does_not_open_nothing_is_kept() {
    let (keys, stats) = keys();
    let (_, body) = sealed(1);
    for eve in 2..5 {
        assert_eq!(keys.open(&private(eve).public_key(), body.clone()).err(), Some(OpenError::Forged));
    }
    assert_eq!((stats.keys(), stats.keys_derived()), (0, 3));
    assert_eq!(keys.open(&sealed(1).0, Vec::new()).err(), Some(OpenError::Short(0)));
    assert_eq!(stats.keys(), 0);
}

#[test]
fn strangers_make_nobody_forget_a_peer_that_we_send_to() {
    let (keys, stats) = keys();
    let (peer, body) = sealed(1);
    keys.seal(&peer, b"offer");
    let strangers = u16::try_from(MAX_OPENED).expect("few") + 50;
    for n in 2..2 + strangers {
        let (from, body) = sealed(n);
        keys.open(&from, body).expect("authentic");
    }
    assert_eq!(stats.keys(), 1 + MAX_OPENED as u64);
    let before = stats.keys_derived();
    keys.open(&peer, body).expect("authentic");
    keys.seal(&peer, b"candidate");
    assert_eq!(stats.keys_derived(), before);
}

fn table(size: usize, peers: impl IntoIterator<Item = u8>) -> Table {
    let mut table = Table::new(size);
    for n in peers {
        table.insert(&PublicKey([n; 32]), &any_sealer());
    }
    table
}

fn any_sealer() -> Sealer {
    // All keys are the same here: none is derived for each of many cases.
    static ONE: std::sync::OnceLock<Sealer> = std::sync::OnceLock::new();
    ONE.get_or_init(|| Sealer::new(&private(0), &private(1).public_key())).clone()
}

fn has(table: &Table, n: u8) -> bool {
    table.places.contains_key(&PublicKey([n; 32]))
}

#[test]
fn whoever_is_used_stays() {
    let mut table = table(3, 1..=3);
    for n in 4..100 {
        assert!(table.get(&PublicKey([2; 32])).is_some(), "before {n}");
        table.insert(&PublicKey([n; 32]), &any_sealer());
    }
    assert!(has(&table, 99) && has(&table, 2) && !has(&table, 1) && !has(&table, 3));
}

#[test]
fn a_table_whose_keys_are_all_used_takes_new_ones() {
    let mut table = table(3, 1..=3);
    for n in 1..=3 {
        assert!(table.get(&PublicKey([n; 32])).is_some());
    }
    table.insert(&PublicKey([4; 32]), &any_sealer());
    assert!(has(&table, 4) && !has(&table, 1) && has(&table, 2) && has(&table, 3));
}

#[test]
fn secrets_stay_where_they_are() {
    let mut table = table(64, [1]);
    let first = table.entries.as_ptr();
    for n in 2..200 {
        table.insert(&PublicKey([n; 32]), &any_sealer());
    }
    assert_eq!((table.entries.as_ptr(), table.entries.len()), (first, 64));
}

proptest! {
    /// Against what it promises: never more than fit, each found where it is, the newest always there.
    #[test]
    fn a_table_is_bounded_and_finds_what_it_has(
        size in 1..6_usize,
        steps in prop::collection::vec((any::<bool>(), 0..9_u8), 0..80),
    ) {
        let mut table = Table::new(size);
        let mut inserted = HashSet::new();
        for (insert, n) in steps {
            let peer = PublicKey([n; 32]);
            if insert {
                table.insert(&peer, &any_sealer());
                inserted.insert(n);
                prop_assert!(has(&table, n));
            } else {
                let there = has(&table, n);
                prop_assert_eq!(table.get(&peer).is_some(), there);
            }
            prop_assert_eq!(table.entries.len(), inserted.len().min(size));
            prop_assert_eq!(table.places.len(), table.entries.len());
            for (place, entry) in table.entries.iter().enumerate() {
                prop_assert_eq!(table.places.get(&entry.peer), Some(&place));
            }
        }
    }
}
