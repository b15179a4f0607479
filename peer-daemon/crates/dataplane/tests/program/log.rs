//! What the programs say of exhaustion: by aya-log where the kernel takes the program that logs, else as a bare reason.

use aya::programs::ProgramError;
use caps::{CapSet, Capability};
use peer_common::DropReason;
use peer_common::layout::map;

use crate::bench::{Bench, with_bench};
use crate::capabilities::keep_only;
use crate::lab::{PEER, SERVER};
use crate::packet::udp;

/// Where aya-log leaves its records.
const AYA_LOGS: &str = "AYA_LOGS";

/// Has new flows refused for each reason in turn; what the reasons are called in the log.
fn exhaust(bench: &mut Bench) -> [(DropReason, &'static str); 2] {
    let mut port = 4000..;
    let mut passes = |bench: &mut Bench| !bench.refuses(&udp((PEER, port.next().expect("a port")), (SERVER, 53)));
    bench.config(|config| config.nat_port_count = 2);
    assert!(passes(bench) && passes(bench));
    bench.allow_telling();
    assert!(!passes(bench));
    assert!(!passes(bench), "told once a second, dropped always");
    bench.config(|config| config.peer_quota = 2);
    bench.allow_telling();
    assert!(!passes(bench));
    assert!(!passes(bench));
    assert_eq!((bench.drops(DropReason::PortShare), bench.drops(DropReason::PeerQuota)), (2, 2));
    [
        (DropReason::PortShare, "ports are scarce, and its peer has its share"),
        (DropReason::PeerQuota, "its peer has too many"),
    ]
}

/// Whether the kernel takes the logging program of somebody with these capabilities.
fn is_taken(bench: &mut Bench, capabilities: &[Capability]) -> bool {
    let all = caps::read(None, CapSet::Permitted).expect("own capabilities");
    keep_only(capabilities);
    let installed = bench.install_logger();
    caps::set(None, CapSet::Effective, &all).expect("what is permitted may be had again");
    match installed {
        Ok(()) => true,
        Err(ProgramError::LoadError { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn is_logged(bench: &mut Bench) {
    let expected = exhaust(bench).map(|(_, what)| format!("new flow refused: {what}"));
    let records = bench.records(AYA_LOGS);
    let said: Vec<_> = records.iter().map(|record| String::from_utf8_lossy(record)).collect();
    assert_eq!(said.len(), expected.len(), "{said:?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(&expected) && said.contains("peer_ebpf::log"), "{said:?}: {expected}");
    }
    assert_eq!(bench.records(map::REFUSALS), Vec::<Vec<u8>>::new());
}

fn is_told(bench: &mut Bench) {
    let expected = exhaust(bench).map(|(reason, _)| (reason as u32).to_ne_bytes().to_vec());
    assert_eq!(bench.records(map::REFUSALS), expected);
    assert_eq!(bench.records(AYA_LOGS), Vec::<Vec<u8>>::new());
}

#[test]
fn exhaustion_is_logged() {
    with_bench(|bench| {
        assert!(is_taken(bench, &[Capability::CAP_PERFMON]), "by every kernel");
        is_logged(bench);
    });
}

#[test]
fn exhaustion_is_logged_or_told_without_perfmon() {
    with_bench(|bench| if is_taken(bench, &[]) { is_logged(bench) } else { is_told(bench) });
}

#[test]
fn exhaustion_is_told_without_the_logging_program() {
    with_bench(is_told);
}
