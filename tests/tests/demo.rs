//! The demo is a scenario, too.

mod common;

use std::time::Instant;

use common::alone;
use peer_tests::demo::{Control, Options, run};
use peer_tests::lab::{find_daemon, find_wireguard_go};

#[test]
fn demo_passes() {
    passes(Control::Netbird);
}

#[test]
fn demo_with_a_file_passes() {
    passes(Control::Static);
}

/// One at a time: each looks whether the machine is as it was.
fn passes(control: Control) {
    let _alone = alone();
    let daemon = find_daemon().expect("peer-daemon");
    let wireguard_go = find_wireguard_go().expect("wireguard-go");
    let version = std::env::var("PEER_WIREGUARD_GO_VERSION").unwrap_or_else(|_| "of unknown version".to_owned());
    let options = Options {
        json: false,
        control,
        compare: false,
        daemon,
        image: None,
        wireguard_go,
        wireguard_go_version: version,
    };
    let start = Instant::now();
    assert!(run(&options).expect("the lab stands"), "a check failed");
    assert!(start.elapsed().as_secs() < 40, "{:?}", start.elapsed());
}
