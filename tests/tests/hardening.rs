//! The process has no more than it needs: seen from outside, with traffic that goes on.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use common::{joined, lab, page, page_by_relay};
use peer_tests::lab::{Binaries, Capabilities, GATEWAY, Mesh, MeshPlan, NODE_LAN, Node, Plan, Udp, run, wait_for};

/// Bits of `/proc/PID/status`.
const NET_ADMIN: u64 = 1 << 12;
const BPF: u64 = 1 << 39;
/// Those of `peer_hardening`.
const MEASURES: [&str; 5] = ["capabilities", "no_new_privileges", "not_dumpable", "no_core", "seccomp"];

#[test]
fn as_plain_root_with_a_file_it_gives_everything_else_up() {
    let mut lab = lab(&Plan { capabilities: Capabilities::Root, ..Plan::default() });
    page(lab.client(), GATEWAY);
    assert_confined(&mut lab.node);
    // Taking over what an earlier process left needs no more.
    lab.node.kill().expect("killed");
    lab.node.start().expect("again");
    page(lab.client(), GATEWAY);
    assert_confined(&mut lab.node);
    assert!(lab.node.stop().expect("it ends").success());
}

#[test]
fn as_plain_root_in_a_network_it_gives_everything_else_up_and_hides_its_keys() {
    let mut mesh = Mesh::prepare(
        &MeshPlan { capabilities: Capabilities::Root, ..MeshPlan::default() },
        &Binaries::find().expect("programs"),
    )
    .expect("mesh");
    let joining = mesh.node.joining.as_mut().expect("it joins");
    let setup_key = joining.setup_key.take().expect("a key");
    // One as an argument, one as a variable.
    let preshared = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    joining.environment.push(("NB_PRESHARED_KEY".to_owned(), preshared.to_owned()));
    mesh.node.arguments.extend(["-k".to_owned(), setup_key.clone()]);
    mesh.node.start().expect("start");
    assert_confined(&mut mesh.node);
    let pid = mesh.node.daemon().expect("daemon").pid();
    for (file, told) in [("cmdline", "--control-socket"), ("environ", "NB_PRESHARED_KEY=****")] {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).expect("as root with all capabilities");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(told), "{file} is that of the daemon: {text}");
        assert!(!text.contains(&setup_key) && !text.contains(preshared), "{file} still has a key");
    }
    let log = mesh.node.daemon().expect("daemon").log();
    assert!(!log.contains(&setup_key) && !log.contains(preshared), "nor has the log");
    assert!(mesh.node.stop().expect("it ends").success());
}

#[test]
fn with_the_capabilities_of_a_pod_it_is_confined_as_well() {
    let mut mesh = joined(&MeshPlan { capabilities: Capabilities::Deployed, ..MeshPlan::default() });
    assert_confined(&mut mesh.node);
    page_by_relay(&mesh);
}

#[test]
fn a_port_below_1024_keeps_the_capability_that_it_takes() {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    let plan = MeshPlan { capabilities: Capabilities::Root, ..MeshPlan::default() };
    let mut mesh = Mesh::prepare(&plan, &Binaries::find().expect("programs")).expect("mesh");
    let joining = mesh.node.joining.as_mut().expect("it joins");
    joining.environment.push(("NB_WIREGUARD_PORT".to_owned(), "443".to_owned()));
    mesh.node.start().expect("start");
    assert_eq!(mesh.node.status().expect("status")["interface"]["listen_port"], 443);
    let pid = mesh.node.daemon().expect("daemon").pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let held = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).expect("a set");
    let held = u64::from_str_radix(held.trim(), 16).expect("a mask");
    assert_eq!(held, NET_ADMIN | BPF | NET_BIND_SERVICE);
    assert!(mesh.node.stop().expect("it ends").success());
}

/// Root reads and writes other users' files by CAP_DAC_OVERRIDE only, which is given up.
#[test]
fn a_state_directory_of_another_user_is_refused_with_the_remedy() {
    const STATE: &str = "/run/lab/state";
    let plan = MeshPlan { capabilities: Capabilities::Root, ..MeshPlan::default() };
    let mesh = Mesh::prepare(&plan, &Binaries::find().expect("programs")).expect("mesh");
    let theirs = || {
        chown(STATE, Some(65534), Some(65534))?;
        fs::set_permissions(STATE, Permissions::from_mode(0o700))
    };
    mesh.node.namespace.enter(theirs).expect("another's");
    let finished = mesh.node.run_to_end().expect("it ends");
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains(&format!("chown -R root: {STATE}")), "{}", finished.stderr);
    assert_eq!(mesh.node.state_files().expect("files"), Vec::<std::path::PathBuf>::new());
}

/// What a prefix route with a rule opens on the node itself, as with the official client; and what is left of it.
#[test]
fn a_route_opens_the_node_unless_it_is_protected() {
    const PORT: u16 = 10250;
    for protect in [false, true] {
        let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
        if protect {
            mesh.node.arguments.push("--protect-node".to_owned());
        }
        let kubelet = Udp::bind(&mesh.node.namespace, NODE_LAN, PORT).expect("socket");
        mesh.node.start().expect("start");
        mesh.join(Default::default()).expect("a member");
        page_by_relay(&mesh);
        let member = Udp::bind(&mesh.member().namespace, "0.0.0.0".parse().expect("an address"), 0).expect("socket");
        member.connect((NODE_LAN, PORT).into()).expect("connect");
        let reason = [("reason", "policy_default")];
        let mut reached = false;
        let mut dropped = 0.0;
        let decided = wait_for(common::PATIENCE, || {
            member.send(b"pods?").expect("send");
            reached = kubelet.receive(common::SECOND / 5).expect("receive").is_some();
            dropped = mesh.node.metric("peer_dropped_packets_total", &reason).expect("metrics");
            reached || dropped > 0.0
        });
        assert!(decided, "neither reached nor dropped");
        assert_eq!((reached, dropped > 0.0), (!protect, protect), "protect: {protect}");
        // What is beside the node is served all the same.
        page_by_relay(&mesh);
    }
}

/// Every thread, because capabilities and filters belong to threads.
#[track_caller]
fn assert_confined(node: &mut Node) {
    let pid = node.daemon().expect("daemon").pid();
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten().collect();
    assert!(threads.len() > 3, "control side and shard have threads of their own");
    for thread in threads {
        let status = fs::read_to_string(thread.path().join("status")).expect("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect(name);
            line.trim().to_owned()
        };
        let set = |name: &str| u64::from_str_radix(&field(name), 16).expect("a mask");
        let name = field("Name");
        assert_eq!((set("CapEff"), set("CapPrm")), (NET_ADMIN | BPF, NET_ADMIN | BPF), "{name}");
        assert_eq!((set("CapInh"), set("CapAmb")), (0, 0), "{name}");
        if node.capabilities == Capabilities::Root {
            assert_eq!(set("CapBnd"), 0, "{name}");
        }
        assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"), "{name}");
        let filters: u32 = field("Seccomp_filters").parse().expect("a number");
        assert!(filters >= 2, "{name}: {filters}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().rev().take(3).collect::<Vec<_>>(), ["bytes", "0", "0"]);
    // Root without CAP_SYS_PTRACE, and without what newer kernels take for it when only reading is asked for.
    let environ = format!("/proc/{pid}/environ");
    let less = "--bounding-set=-sys_ptrace,-sys_admin,-perfmon";
    let finished = run(Command::new("setpriv").args([less, "--", "cat", &environ])).expect("it ends");
    assert!(
        !finished.status.success() && finished.stderr.contains("denied"),
        "{}: {}",
        finished.status,
        finished.stderr
    );
    // And what the daemon itself says.
    for measure in MEASURES {
        assert_eq!(node.metric("peer_hardening", &[("measure", measure)]).expect("metrics"), 1.0, "{measure}");
    }
    let hardening = node.status().expect("status")["hardening"].clone();
    assert!(MEASURES.iter().all(|measure| hardening[measure] == true), "{hardening}");
    assert!(node.status_text(&["-d"]).expect("status").contains("hardening: capabilities, "));
    let doctor = node.doctor().expect("doctor");
    assert!(doctor["findings"].as_array().expect("findings").iter().all(|found| found["check"] != "hardening"));
}
