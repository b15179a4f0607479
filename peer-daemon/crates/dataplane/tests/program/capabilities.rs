//! What the kernel asks for before it takes the programs.

use caps::{CapSet, Capability};

use crate::bench::with_bench_under;
use crate::lab::{PEER, SERVER};
use crate::packet::tcp;
use crate::{Bench, REDIRECT};

/// Leaves the thread CAP_NET_ADMIN, CAP_BPF and `more`.
fn keep_only(more: &[Capability]) {
    let kept = [Capability::CAP_NET_ADMIN, Capability::CAP_BPF].into_iter().chain(more.iter().copied()).collect();
    caps::set(None, CapSet::Effective, &kept).expect("capabilities can be given up");
}

fn forwards(bench: &mut Bench) {
    assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), true)).0, REDIRECT);
}

#[test]
fn the_programs_load_without_perfmon() {
    with_bench_under(|| keep_only(&[]), forwards);
}

#[test]
fn the_programs_load_with_perfmon() {
    with_bench_under(|| keep_only(&[Capability::CAP_PERFMON]), forwards);
}
