//! `deploy/systemd/peer-daemon.service`: systemd takes it, it leaves little exposed, and it permits what the daemon needs.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use peer_tests::lab::{find_daemon, run};
use peer_tests::manifests::workspace;

const UNIT: &str = "deploy/systemd/peer-daemon.service";
/// docs/security.md says it: the daemon is root, in the host's network, and administers it.
const EXPOSURE: f64 = 2.5;
/// What the end takes after draining.
const AFTER_DRAIN: u64 = 8;

/// The unit, starting the daemon of this checkout.
fn unit() -> String {
    let text = fs::read_to_string(workspace().join(UNIT)).expect(UNIT);
    assert_eq!(text.matches("/usr/local/bin/peer-daemon up").count(), 1);
    text.replace("/usr/local/bin/peer-daemon up", &format!("{} up", find_daemon().expect("daemon").display()))
}

/// `systemd-analyze` about the unit in a file of its own.
fn analyze(arguments: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("peer-daemon.service");
    fs::write(&file, unit()).expect("written");
    let finished = run(Command::new("systemd-analyze").args(arguments).arg(&file)).expect("systemd-analyze");
    (finished.status.success(), finished.stdout + &finished.stderr)
}

fn values(name: &str) -> Vec<String> {
    let text = unit();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

fn value(name: &str) -> String {
    let mut values = values(name);
    assert_eq!(values.len(), 1, "{name}: {values:?}");
    values.remove(0)
}

#[test]
fn systemd_takes_the_unit_without_a_warning() {
    let (success, said) = analyze(&["verify"]);
    assert!(success && said.trim().is_empty(), "{said}");
}

#[test]
fn its_exposure_is_what_the_docs_say() {
    let threshold = format!("--threshold={}", EXPOSURE * 10.0);
    let (success, said) = analyze(&["security", "--offline=true", &threshold]);
    let level = said.lines().find_map(|line| line.split_once("Overall exposure level for peer-daemon.service: "));
    let level = level.expect("a level").1.split(' ').next().expect("a number");
    assert!(success && level.parse::<f64>().expect("a number") <= EXPOSURE, "{said}");
    // Other releases weigh otherwise: the figure is compared where it comes from the same one.
    let version = run(Command::new("systemd-analyze").arg("--version")).expect("a version").stdout;
    let version = version.split_whitespace().nth(1).expect("a number");
    let docs = fs::read_to_string(workspace().join("docs/security.md")).expect("docs");
    let (_, said) = docs.split_once("exposure ").expect("a figure");
    let (said, release) = said.split_once(" (systemd ").expect("and its release");
    assert!(!release.starts_with(&format!("{version};")) || said == level, "docs/security.md: {said}, not {level}");
}

#[test]
fn it_permits_what_the_daemon_needs_and_no_other_capability() {
    assert_eq!(value("CapabilityBoundingSet"), "CAP_NET_ADMIN CAP_BPF CAP_PERFMON");
    let writable: BTreeSet<_> = value("ReadWritePaths").split(' ').map(str::to_owned).collect();
    assert_eq!(writable, ["/sys/fs/bpf".to_owned()].into());
    assert_eq!(value("DeviceAllow"), "/dev/net/tun rw");
    assert!(values("ProtectKernelTunables").is_empty(), "it makes /sys/fs/bpf read-only");
    let stop: u64 = value("TimeoutStopSec").parse().expect("seconds");
    let help = run(Command::new(find_daemon().expect("daemon")).args(["up", "--help"])).expect("help").stdout;
    let drain =
        help.split_once("--drain-timeout").and_then(|(_, rest)| rest.split_once("[default: ")).expect("a default").1;
    let drain: u64 = drain.split('s').next().expect("seconds").parse().expect("a number");
    assert!(stop >= drain + AFTER_DRAIN, "{stop} s, draining takes {drain} s");
}
