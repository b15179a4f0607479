//! A TCP download goes on while the daemon comes and goes.

mod common;

use std::thread;
use std::time::Duration;

use common::{SECOND, alone, lab, page, tell};
use peer_tests::lab::{Download, GATEWAY, Lab, Plan, wait_for};

const BYTES: u64 = 100_000_000;
/// How much of it must be through before the daemon goes.
const MIDDLE: u64 = BYTES / 5;
/// TCP backs off while the node is away; a longer stall is a lost session.
const LONGEST_STALL: Duration = Duration::from_secs(15);

#[test]
fn a_download_goes_on_over_a_clean_restart() {
    let _alone = alone();
    let mut lab = Lab::prepare(&Plan::default(), &peer_tests::lab::Binaries::find().expect("programs")).expect("lab");
    lab.node.arguments = vec!["--keep-dataplane".to_owned()];
    lab.up().expect("up");
    let download = halfway(&lab);
    let kept = lab.node.pins().expect("pins");
    let status = lab.node.stop().expect("stop");
    assert!(status.success(), "{status}");
    assert_eq!(lab.node.pins().expect("pins"), kept, "pins stay");
    assert!(lab.node.namespace.devices().expect("devices").contains(&"wt0".to_owned()), "wt0 stays");
    lab.node.start().expect("second start");
    finish("clean restart", download);
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), 0);
    lab.node.arguments.clear();
    lab.node.stop().expect("stop");
    lab.node.start().expect("third start");
    leaves_nothing(lab);
}

#[test]
fn a_download_goes_on_over_kill_9() {
    let _alone = alone();
    let mut lab = lab(&Plan::default());
    page(lab.client(), GATEWAY);
    // What was learned in the last moments dies with the daemon.
    assert!(wait_for(SECOND * 10, || !lab.node.state_files().expect("state").is_empty()), "endpoints are kept");
    let download = halfway(&lab);
    let kept = lab.node.pins().expect("pins");
    lab.node.kill().expect("kill");
    assert_eq!(lab.node.pins().expect("pins"), kept, "pins stay");
    assert!(lab.node.namespace.devices().expect("devices").contains(&"wt0".to_owned()), "wt0 stays");
    // Without a daemon for a while: datagrams are lost, and the download waits.
    thread::sleep(SECOND / 2);
    lab.node.start().expect("second start");
    finish("kill -9", download);
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), 0);
    page(lab.client(), GATEWAY);
    leaves_nothing(lab);
}

fn halfway(lab: &Lab) -> Download {
    let download = Download::start(&lab.client().namespace, GATEWAY, BYTES).expect("download");
    assert!(wait_for(SECOND * 20, || download.received() > MIDDLE), "only {} bytes", download.received());
    assert!(download.received() < BYTES, "over before the daemon went");
    download
}

fn finish(what: &str, download: Download) {
    let stall = download.finish().expect("the download is whole");
    tell(&format!("{what} in the middle of a download: longest stall {:.2} s", stall.as_secs_f64()));
    assert!(stall < LONGEST_STALL, "{stall:?}");
}

fn leaves_nothing(mut lab: Lab) {
    lab.node.stop().expect("stop");
    assert_eq!(lab.node.pins().expect("pins"), Vec::<std::path::PathBuf>::new());
    assert!(!lab.node.namespace.devices().expect("devices").contains(&"wt0".to_owned()), "wt0 is gone");
}
