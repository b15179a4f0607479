//! What the kernel asks for before it takes the programs.

use caps::{CapSet, Capability};
use peer_common::layout::program;

use crate::bench::with_bench_under;
use crate::lab::{PEER, SERVER};
use crate::packet::tcp;
use crate::{Bench, REDIRECT};

/// Leaves the thread CAP_NET_ADMIN, CAP_BPF and `more`.
pub(crate) fn keep_only(more: &[Capability]) {
    let kept = [Capability::CAP_NET_ADMIN, Capability::CAP_BPF].into_iter().chain(more.iter().copied()).collect();
    caps::set(None, CapSet::Effective, &kept).expect("capabilities can be given up");
}

/// Instructions that the verifier looks at, half of what the kernel allows: other verifiers look at more.
const BUDGET: u32 = 500_000;

fn forwards(bench: &mut Bench, more: &[Capability]) {
    let all = caps::read(None, CapSet::Permitted).expect("own capabilities");
    keep_only(more);
    for name in
        [program::WT0_INGRESS, program::WT0_LAST, program::WT0_EGRESS, program::UPLINK_INGRESS, program::DESCRIBE]
    {
        let verified = bench.verified_instructions(name);
        eprintln!("{name} with NET_ADMIN, BPF and {more:?}: {verified} instructions verified");
        assert!((1..BUDGET).contains(&verified));
    }
    caps::set(None, CapSet::Effective, &all).expect("what is permitted may be had again");
    assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), true)).0, REDIRECT);
}

#[test]
fn the_programs_load_without_perfmon() {
    with_bench_under(|| keep_only(&[]), |bench| forwards(bench, &[]));
}

#[test]
fn the_programs_load_with_perfmon() {
    const PERFMON: &[Capability] = &[Capability::CAP_PERFMON];
    with_bench_under(|| keep_only(PERFMON), |bench| forwards(bench, PERFMON));
}
