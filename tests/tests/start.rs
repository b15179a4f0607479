//! Starts that succeed with little, and starts that are refused.

mod common;

use std::fs;

use common::{lab, page};
use peer_tests::lab::{Binaries, Capabilities, GATEWAY, Lab, Plan, RouteEntry};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Bits of `/proc/PID/status`.
const NET_ADMIN: u64 = 1 << 12;
const BPF: u64 = 1 << 39;

#[test]
fn runs_with_net_admin_and_bpf_alone() {
    let mut lab = lab(&Plan { capabilities: Capabilities::Minimal, ..Plan::default() });
    page(lab.client(), GATEWAY);
    let pid = lab.node.daemon().expect("daemon").pid();
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).expect("mounts");
    let sysctls = mounts.lines().find(|line| line.contains(" /proc/sys proc ")).expect("a mount of its own");
    assert!(sysctls.contains(" ro,"), "sysctls are out of its reach: {sysctls}");
    for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
        let held = capabilities(&mut lab, set);
        assert_eq!(held & !(NET_ADMIN | BPF), 0, "{set}: {held:#x}");
    }
    assert_eq!(capabilities(&mut lab, "CapBnd"), NET_ADMIN | BPF);
    assert_eq!(
        lab.node.metric("peer_dataplane_info", &[("mode", "ebpf"), ("hardened", "true")]).expect("metrics"),
        1.0
    );
}

#[test]
fn has_no_fences_with_perfmon_and_gives_it_up() {
    let mut lab = lab(&Plan { capabilities: Capabilities::Deployed, ..Plan::default() });
    page(lab.client(), GATEWAY);
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        let held = thread_capabilities(&mut lab, set);
        assert!(held.len() > 3, "control side and shard have threads of their own");
        assert!(held.iter().all(|held| held & !(NET_ADMIN | BPF) == 0), "{set}: {held:#x?}");
    }
    assert_eq!(
        lab.node.metric("peer_dataplane_info", &[("mode", "ebpf"), ("hardened", "false")]).expect("metrics"),
        1.0
    );
}

#[test]
fn a_bad_configuration_is_refused_before_anything_is_opened() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.config.routes.push(RouteEntry::masqueraded("198.51.100.300/24"));
    let line = lab.node.config.to_string().lines().position(|line| line.contains(".300")).expect("there") + 1;
    let devices = lab.node.namespace.devices().expect("devices");
    let finished = lab.node.run_to_end().expect("it ends");
    assert_eq!(finished.status.code(), Some(78), "{}", finished.stderr);
    for part in ["destination", "198.51.100.300/24", &line.to_string()] {
        assert!(finished.stderr.contains(part), "{part} in: {}", finished.stderr);
    }
    assert_eq!(lab.node.namespace.devices().expect("devices"), devices);
    assert_eq!(lab.node.pins().expect("pins"), Vec::<std::path::PathBuf>::new());
    let socket = lab.node.namespace.enter(|| fs::exists("/run/netbird.sock")).expect("/run");
    assert!(!socket, "no control socket");
    assert!(!finished.stderr.contains(&lab.node.config.private_key), "secrets are not repeated");
}

#[test]
fn what_stands_where_the_control_socket_should_be_is_not_replaced() {
    let lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    let socket = "/run/netbird.sock";
    lab.node.namespace.write(socket.as_ref(), "somebody's").expect("written");
    let devices = lab.node.namespace.devices().expect("devices");
    let finished = lab.node.run_to_end().expect("it ends");
    assert!(!finished.status.success());
    for part in [socket, "a regular file", "--control-socket"] {
        assert!(finished.stderr.contains(part), "{part} in: {}", finished.stderr);
    }
    assert_eq!(lab.node.namespace.read(socket).expect("there"), "somebody's");
    assert_eq!(lab.node.namespace.devices().expect("devices"), devices);
    assert_eq!(lab.node.pins().expect("pins"), Vec::<std::path::PathBuf>::new());
}

/// A daemon that waited for the other end of a pipe would neither become ready nor end.
#[test]
fn a_pipe_in_the_state_directory_is_neither_read_nor_replaced() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    let file = "/run/lab/state/endpoints.json";
    // By the system call: where these tests run in a machine of their own there is no command for it.
    let make = || mknodat(CWD, file, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
    lab.node.namespace.enter(make).expect("a pipe");
    lab.up().expect("start");
    page(lab.client(), GATEWAY);
    let log = lab.node.daemon().expect("daemon").log();
    assert!(log.contains("a pipe stands where a regular file should be"), "{log}");
    assert!(lab.node.stop().expect("stop").success());
    let kind = lab.node.namespace.enter(|| fs::symlink_metadata(file)).expect("there").file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind), "{kind:?}");
}

fn capabilities(lab: &mut Lab, set: &str) -> u64 {
    let pid = lab.node.daemon().expect("daemon").pid();
    held(&format!("/proc/{pid}/status"), set)
}

/// Of each thread: capabilities belong to threads.
fn thread_capabilities(lab: &mut Lab, set: &str) -> Vec<u64> {
    let pid = lab.node.daemon().expect("daemon").pid();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    threads.map(|thread| held(&thread.expect("a thread").path().join("status").display().to_string(), set)).collect()
}

fn held(status: &str, set: &str) -> u64 {
    let status = fs::read_to_string(status).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':')).expect("a set");
    u64::from_str_radix(line.trim(), 16).expect("a mask")
}
