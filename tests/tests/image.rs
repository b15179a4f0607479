//! The image, run by podman with what the `DaemonSet` gives it.

mod common;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{PATIENCE, SECOND, alone, page, tell};
use peer_test_control::member::Habits;
use peer_tests::demo::{self, Control};
use peer_tests::lab::{
    Binaries, Container, DEPLOYED, GATEWAY, Image, Lab, Mesh, MeshPlan, NameServer, Namespace, Plan, SERVERS,
    find_daemon, find_wireguard_go, page_within, patient, wait_for,
};
use peer_tests::suite::Suite;
use peer_tests::{manifests, scenarios};
use serde_json::{Value, json};

/// From the start of the daemon, or of podman, until packets can flow.
const AIM: Duration = Duration::from_secs(1);
/// The same where more wants to run than there are CPUs.
const AIM_BUSY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    Suite::default()
        .always(scenarios![the_daemon_set_gives_what_is_given_here])
        .needing(
            images,
            scenarios![
                the_demo_passes_from_the_image,
                the_demo_with_a_file_passes_from_the_image,
                it_is_ready_within_a_second,
                sigterm_ends_it_and_leaves_nothing,
                with_less_it_says_what_is_missing,
                servers_are_found_by_dns,
                probes_by_shell_need_the_image_with_tools,
            ],
        )
        .run()
}

fn the_demo_passes_from_the_image([minimal, _]: [PathBuf; 2]) {
    demo_passes(minimal, Control::Netbird);
}

fn the_demo_with_a_file_passes_from_the_image([minimal, _]: [PathBuf; 2]) {
    demo_passes(minimal, Control::Static);
}

fn demo_passes(minimal: PathBuf, control: Control) {
    let _alone = alone();
    let options = demo::Options {
        json: false,
        control,
        compare: false,
        daemon: find_daemon().expect("peer-daemon"),
        image: Some(minimal),
        wireguard_go: find_wireguard_go().expect("wireguard-go"),
        wireguard_go_version: "as installed".to_owned(),
    };
    assert!(demo::run(&options).expect("the lab stands"), "a check failed");
    nothing_is_left();
}

/// What the scenarios here run with is what the manifest says, and no more.
fn the_daemon_set_gives_what_is_given_here((): ()) {
    let objects = manifests::render("overlays/daemonset").expect("manifests");
    let pod = &manifests::pod(manifests::only(&objects, "DaemonSet").expect("a DaemonSet"))["spec"];
    let daemon = &pod["containers"][0];
    let security = &daemon["securityContext"];
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"], "add": DEPLOYED}));
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["privileged"], false);
    assert_eq!((&pod["securityContext"]["runAsUser"], &pod["securityContext"]["runAsGroup"]), (&json!(0), &json!(0)));
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!((&daemon["command"], &daemon["args"]), (&json!(null), &json!(["up"])), "the image's entry point");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let named = |list: Vec<Value>, name: &str| list.into_iter().find(|it| it["name"] == name).expect("there");
    for (volume, on_the_node, inside) in [
        ("bpffs", "/sys/fs/bpf", Container::BPFFS),
        ("tun", Container::TUN, Container::TUN),
        ("state", "/var/lib/peer", Container::STATE),
    ] {
        assert_eq!(named(list(&pod["volumes"]), volume)["hostPath"]["path"], on_the_node);
        assert_eq!(named(list(&daemon["volumeMounts"]), volume)["mountPath"], inside);
    }
    assert_eq!(named(list(&daemon["env"]), "NB_BPFFS")["value"], Container::BPFFS);
    assert_eq!(named(list(&daemon["env"]), "NB_REQUIRE_PINS")["value"], "true");
}

fn it_is_ready_within_a_second([minimal, _]: [PathBuf; 2]) {
    let _alone = alone();
    let mut lab = lab(&minimal);
    let busy = is_busy();
    let start = Instant::now();
    lab.node.start().expect("ready");
    let with_podman = start.elapsed();
    let own = age(&lab.node.namespace);
    let limit = if busy { AIM_BUSY } else { AIM };
    tell(&format!(
        "ready {own:.2?} after the daemon's start, {with_podman:.2?} after podman's; the aim is {AIM:?}, held here is {limit:?}"
    ));
    assert!(own <= patient(limit), "{own:?}");
    assert!(with_podman <= patient(limit), "{with_podman:?} with podman");
}

fn sigterm_ends_it_and_leaves_nothing([minimal, _]: [PathBuf; 2]) {
    let _alone = alone();
    let mut lab = lab(&minimal);
    let devices = lab.node.namespace.devices().expect("devices");
    lab.up().expect("up");
    page(lab.client(), GATEWAY);
    assert_eq!(
        lab.node.metric("peer_dataplane_info", &[("mode", "ebpf"), ("hardened", "false")]).expect("metrics"),
        1.0
    );
    assert!(!lab.node.pins().expect("pins").is_empty());
    assert!(!lab.node.state_files().expect("state").is_empty(), "its control socket, as its root is read-only");
    let status = lab.node.stop().expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert_eq!(lab.node.namespace.devices().expect("devices"), devices);
    assert_eq!(lab.node.pins().expect("pins"), Vec::<PathBuf>::new());
    let processes = Namespace::processes_in(lab.node.namespace.id().expect("namespace")).expect("processes");
    assert_eq!(processes, Vec::<u32>::new());
    drop(lab);
    nothing_is_left();
}

fn with_less_it_says_what_is_missing([minimal, _]: [PathBuf; 2]) {
    let _alone = alone();
    let mut lab = lab(&minimal);
    let devices = lab.node.namespace.devices().expect("devices");
    // For every user, as an emptyDir with fsGroup is for its own.
    lab.node.namespace.exec("chmod", &["0777", "/run/lab/state"]).expect("chmod");
    type Take = fn(&mut Container);
    let cases: [(Take, &[&str]); 5] = [
        (|it| it.capabilities.retain(|it| *it != "NET_ADMIN"), &["CAP_NET_ADMIN", "securityContext.capabilities.add"]),
        (|it| it.capabilities.retain(|it| *it != "BPF"), &["CAP_BPF", "securityContext.capabilities.add"]),
        (|it| it.tun = false, &["/dev/net/tun"]),
        (|it| it.bpffs = false, &["/run/bpf", "is not a BPF file system", "mount"]),
        // As for the form without privileges.
        (|it| (it.user, it.capabilities) = (None, Vec::new()), &["CAP_NET_ADMIN", "CAP_BPF"]),
    ];
    for (take, parts) in cases {
        let container = lab.node.container.as_mut().expect("a container");
        let whole = (container.user, container.capabilities.clone(), container.tun, container.bpffs);
        take(container);
        let finished = lab.node.run_to_end().expect("it ends");
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert_eq!(finished.status.code(), Some(1), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part} in: {said}");
        }
        assert_eq!(lab.node.namespace.devices().expect("devices"), devices, "{parts:?}");
        assert_eq!(lab.node.pins().expect("pins"), Vec::<PathBuf>::new(), "{parts:?}");
        let container = lab.node.container.as_mut().expect("a container");
        (container.user, container.capabilities, container.tun, container.bpffs) = whole;
    }
    // What only costs time is no reason to end.
    lab.node.container.as_mut().expect("a container").capabilities.retain(|it| *it != "PERFMON");
    lab.up().expect("up");
    page(lab.client(), GATEWAY);
    assert_eq!(
        lab.node.metric("peer_dataplane_info", &[("mode", "ebpf"), ("hardened", "true")]).expect("metrics"),
        1.0
    );
}

/// A static program has no name service modules to load.
fn servers_are_found_by_dns([minimal, _]: [PathBuf; 2]) {
    let _alone = alone();
    const NAME: &str = "management.lab.test";
    let mut mesh = mesh(&minimal);
    let address = Ipv4Addr::new(192, 0, 2, 254);
    let names = NameServer::start(&mesh.internet.namespace, SERVERS, NAME, address).expect("name server");
    let joining = mesh.node.joining.as_mut().expect("joins");
    joining.url = joining.url.replace(&SERVERS.to_string(), NAME);
    mesh.node.container.as_mut().expect("a container").options.push(format!("--dns={SERVERS}"));
    mesh.node.start().expect("ready");
    assert!(names.asked() > 0);
    mesh.join(Habits::default()).expect("a member");
    page_within(PATIENCE, &mesh.member().namespace, GATEWAY).expect("page");
}

fn probes_by_shell_need_the_image_with_tools([minimal, tools]: [PathBuf; 2]) {
    let _alone = alone();
    let mut mesh = mesh(&tools);
    mesh.node.start().expect("ready");
    for line in [
        r#"out="$(netbird status)"; echo "$out" | grep -Eq '^Management:\s+Connected'"#,
        "netbird status --check ready",
        "wget -qO- http://127.0.0.1:9090/livez",
        "curl --silent --fail http://127.0.0.1:9090/readyz",
        "test -s /etc/ssl/certs/ca-certificates.crt",
    ] {
        let finished = mesh.node.shell(line).expect(line);
        assert!(finished.status.success(), "{line}: {}{}", finished.stdout, finished.stderr);
    }
    mesh.node.stop().expect("it ends");
    drop(mesh);

    let mut lab = lab(&minimal);
    lab.node.start().expect("ready");
    let finished = lab.node.inside(&["netbird", "status", "--check", "ready"]).expect("it runs");
    assert!(finished.status.success(), "{}", finished.stderr);
    assert!(!lab.node.shell("true").expect("podman answers").status.success(), "there is no shell");
}

/// The archives, minimal and with tools.
fn images() -> Result<[PathBuf; 2], String> {
    let images = Image::find().expect("archives");
    images.ok_or_else(|| "PEER_IMAGE and PEER_IMAGE_TOOLS name no archives; `cargo xtask image` writes them".to_owned())
}

fn lab(archive: &Path) -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.container = Some(Container::deployed(Image::load(archive).expect("image")));
    lab
}

fn mesh(archive: &Path) -> Mesh {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    mesh.node.container = Some(Container::deployed(Image::load(archive).expect("image")));
    mesh
}

fn is_busy() -> bool {
    let load = fs::read_to_string("/proc/loadavg").expect("load");
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).expect("a number");
    load > std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64)
}

/// How long ago the daemon's process began.
fn age(node: &Namespace) -> Duration {
    let processes = Namespace::processes_in(node.id().expect("namespace")).expect("processes");
    let is_daemon = |pid: &&u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it == "peer-daemon\n");
    let daemon = processes.iter().find(is_daemon).expect("it runs");
    peer_tests::lab::age(*daemon).expect("its age")
}

/// No control group, no storage: podman's own things are in the node's `/run`.
#[track_caller]
fn nothing_is_left() {
    let ours = format!("peer-lab-{}-", std::process::id());
    let groups = || {
        let folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().filter_map(|it| fs::read_dir(it).ok());
        let names = folders.flatten().flatten().map(|it| it.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&ours)).collect::<Vec<_>>()
    };
    assert!(wait_for(SECOND, || groups().is_empty()), "{:?}", groups());
    let storage = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab-podman");
    let left: Vec<_> = fs::read_dir(storage).into_iter().flatten().flatten().map(|it| it.file_name()).collect();
    let of_us = format!("{}-", std::process::id());
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(&of_us)), "{left:?}");
}
