//! What `deploy/` asks a cluster for, and that the daemon takes all of it.

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{PATIENCE, SECOND, lab, page_by_relay, tell};
use peer_common::layout::DEFAULT_FLOWS;
use peer_test_control::member::Habits;
use peer_tests::lab::{Binaries, Mesh, MeshPlan, NODE_LAN, Plan, Process, find_daemon, get, get_within, run, wait_for};
use peer_tests::manifests::pod_security::{beyond_baseline, beyond_restricted};
use peer_tests::manifests::{MapMemory, bytes, invalid, name, only, pod, render, workspace};
use serde_json::{Value, json};

/// Every kustomization that can be applied, and the kind of its workload.
const FORMS: [(&str, &str); 5] = [
    ("overlays/daemonset", "DaemonSet"),
    ("overlays/daemonset-crio", "DaemonSet"),
    ("overlays/statefulset", "StatefulSet"),
    ("overlays/rootless", "Deployment"),
    ("example", "DaemonSet"),
];
/// The oldest and the newest Kubernetes whose schemas the manifests are held to.
const KUBERNETES: [&str; 2] = ["1.27.0", "1.37.0"];
/// What the end takes after draining: leave of peers and relays, deregistering, removing device and programs.
const AFTER_DRAIN: u64 = 8;

fn workload(folder: &str) -> Value {
    let kind = FORMS.iter().find(|(form, _)| *form == folder).expect("a form").1;
    only(&render(folder).expect(folder), kind).expect(folder).clone()
}

fn container(workload: &Value) -> &Value {
    let containers = pod(workload)["spec"]["containers"].as_array().expect("containers");
    assert_eq!(containers.len(), 1, "{}", name(workload));
    &containers[0]
}

#[test]
fn every_object_fits_the_schemas_of_kubernetes() {
    for (folder, _) in FORMS {
        for object in render(folder).expect(folder) {
            for version in KUBERNETES {
                let judged = invalid(&object, version, Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("schemas");
                assert_eq!(judged, None, "{folder}: {} in Kubernetes {version}", name(&object));
            }
        }
    }
}

#[test]
fn a_field_that_does_not_exist_does_not_fit() {
    let mut wrong = workload("overlays/daemonset");
    wrong["spec"]["template"]["spec"]["hostNetworks"] = true.into();
    let judged = invalid(&wrong, KUBERNETES[1], Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("schemas");
    assert!(judged.expect("refused").contains("hostNetworks"));
}

/// Also what stands in no overlay that is applied by itself: the folders are all known to this test.
#[test]
fn every_kustomization_is_looked_at() {
    let known = ["base", "components", "example", "monitoring", "overlays", "systemd"];
    let folders = std::fs::read_dir(workspace().join("deploy")).expect("deploy").flatten();
    for folder in folders.map(|folder| folder.file_name().to_string_lossy().into_owned()) {
        assert!(known.contains(&folder.as_str()), "deploy/{folder}: add it to FORMS, or to what is known");
    }
    let overlays = std::fs::read_dir(workspace().join("deploy/overlays")).expect("overlays").flatten();
    for folder in overlays.map(|folder| format!("overlays/{}", folder.file_name().to_string_lossy())) {
        assert!(FORMS.iter().any(|(form, _)| *form == folder), "deploy/{folder} is not in FORMS");
    }
}

#[test]
fn node_forms_have_three_capabilities_and_nothing_else() {
    for folder in ["overlays/daemonset", "overlays/statefulset"] {
        let workload = workload(folder);
        let expected = json!({
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "BPF", "PERFMON"]},
        });
        assert_eq!(container(&workload)["securityContext"], expected, "{folder}");
        let spec = &pod(&workload)["spec"];
        let expected = json!({"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(spec["securityContext"], expected, "{folder}");
        assert!(spec.get("initContainers").is_none(), "{folder}: nothing is to be prepared by iptables");
    }
}

/// The exact list that docs/security.md gives.
#[test]
fn what_node_forms_do_beyond_the_baseline_is_known() {
    let common = ["hostPath /sys/fs/bpf", "hostPath /dev/net/tun", "capability NET_ADMIN", "capability BPF"];
    let more = ["capability PERFMON", "hostPort 9590", "hostPort 51820"];
    let of = |state: &[&'static str]| [&["hostNetwork"], state, &common, &more].concat();
    assert_eq!(beyond_baseline(pod(&workload("overlays/daemonset"))), of(&["hostPath /var/lib/peer"]));
    assert_eq!(beyond_baseline(pod(&workload("overlays/statefulset"))), of(&[]));
    let text = std::fs::read_to_string(workspace().join("docs/security.md")).expect("docs/security.md");
    for violation in of(&["hostPath /var/lib/peer"]) {
        let value = violation.rsplit(' ').next().expect("a word");
        assert!(text.contains(&format!("`{value}`")), "docs/security.md does not name {violation}");
    }
}

#[test]
fn the_rootless_form_is_restricted() {
    assert_eq!(beyond_restricted(pod(&workload("overlays/rootless"))), Vec::<String>::new());
    let deployment = workload("overlays/rootless");
    assert_eq!(pod(&deployment)["spec"]["securityContext"]["runAsUser"], 65532);
    assert_eq!(container(&deployment)["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container(&deployment)["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
}

/// As long as this fails to start, the manifest must not promise what it does not do.
#[test]
fn the_rootless_form_has_no_replicas_while_the_daemon_needs_capabilities() {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65532", "--regid=65532", "--clear-groups", "--bounding-set=-all", "--no-new-privs", "--"]);
    // Not below this tree, which may lie where only root gets to: a clone in `mktemp -d` does.
    let state = tempfile::tempdir().expect("state");
    std::os::unix::fs::chown(state.path(), Some(65532), Some(65532)).expect("its own");
    command.arg(find_daemon().expect("daemon")).args(["up", "--state-dir"]).arg(state.path());
    let finished = run(command.env("NB_MANAGEMENT_URL", "http://127.0.0.1:1")).expect("it ends");
    assert!(!finished.status.success() && finished.stderr.contains("CAP_NET_ADMIN"), "{}", finished.stderr);
    assert_eq!(workload("overlays/rootless")["spec"]["replicas"], 0);
}

#[test]
fn namespaces_ask_for_the_level_that_their_pods_need() {
    for (folder, kind) in FORMS {
        let objects = render(folder).expect(folder);
        let level = if kind == "Deployment" { "restricted" } else { "privileged" };
        let namespace = only(&objects, "Namespace").expect(folder);
        for mode in ["enforce", "audit", "warn"] {
            let label = format!("pod-security.kubernetes.io/{mode}");
            assert_eq!(namespace["metadata"]["labels"][&label], level, "{folder}");
        }
        for object in objects
            .iter()
            .filter(|object| !["Namespace", "PriorityClass"].contains(&object["kind"].as_str().expect("a kind")))
        {
            assert_eq!(object["metadata"]["namespace"], namespace["metadata"]["name"], "{folder}: {}", name(object));
        }
    }
}

#[test]
fn mounts_are_those_that_the_daemon_needs() {
    let host = |path: &str, kind: &str| json!({"path": path, "type": kind});
    let spec = pod(&workload("overlays/daemonset"))["spec"].clone();
    let volumes: Vec<_> = spec["volumes"].as_array().expect("volumes").clone();
    let found = |name: &str| volumes.iter().find(|volume| volume["name"] == name).expect(name).clone();
    assert_eq!(found("state")["hostPath"], host("/var/lib/peer", "DirectoryOrCreate"));
    assert_eq!(found("bpffs")["hostPath"], host("/sys/fs/bpf", "Directory"));
    assert_eq!(found("tun")["hostPath"], host("/dev/net/tun", "CharDevice"));
    assert_eq!(found("setup-key")["secret"], json!({"secretName": "peer-setup-key", "defaultMode": 0o400}));
    assert_eq!(volumes.len(), 4);
    let set = workload("overlays/statefulset");
    let claims = &set["spec"]["volumeClaimTemplates"];
    assert_eq!(claims[0]["metadata"]["name"], "state");
    assert_eq!(claims[0]["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    let retention = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"], retention, "the identity outlives the set");
    for (folder, _) in FORMS {
        let workload = workload(folder);
        for mount in container(&workload)["volumeMounts"].as_array().expect("mounts") {
            // Everything below /sys/fs is closed by the runtimes' AppArmor profile.
            let path = mount["mountPath"].as_str().expect("a path");
            assert!(!path.starts_with("/sys"), "{folder}: {path}");
            assert!(mount.get("mountPropagation").is_none(), "{folder}: pins need none");
        }
    }
    let rootless = pod(&workload("overlays/rootless"))["spec"]["volumes"][0].clone();
    assert_eq!(rootless["emptyDir"]["medium"], "Memory", "a peer that deletes itself on exit");
}

#[test]
fn two_pods_never_have_one_node() {
    let set = workload("overlays/daemonset");
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
    assert_eq!(set["spec"]["updateStrategy"], strategy);
    assert_eq!(workload("overlays/statefulset")["spec"]["replicas"], 1);
    for folder in ["overlays/daemonset", "overlays/statefulset"] {
        let spec = pod(&workload(folder))["spec"].clone();
        assert_eq!((&spec["hostNetwork"], &spec["dnsPolicy"]), (&true.into(), &"ClusterFirstWithHostNet".into()));
    }
    let spec = &pod(&set)["spec"];
    assert_eq!(spec["nodeSelector"], json!({"kubernetes.io/os": "linux", "peer/router": "true"}));
    assert_eq!(spec["tolerations"], json!([{"key": "peer/router", "operator": "Exists", "effect": "NoSchedule"}]));
}

#[test]
fn nothing_is_told_to_the_kubernetes_api() {
    for (folder, kind) in FORMS {
        let objects = render(folder).expect(folder);
        assert_eq!(only(&objects, "ServiceAccount").expect(folder)["automountServiceAccountToken"], false);
        let workload = only(&objects, kind).expect(folder);
        let spec = &pod(workload)["spec"];
        assert_eq!(
            (&spec["automountServiceAccountToken"], &spec["enableServiceLinks"]),
            (&false.into(), &false.into())
        );
        assert_eq!(spec["serviceAccountName"], only(&objects, "ServiceAccount").expect(folder)["metadata"]["name"]);
        assert_eq!(spec["priorityClassName"], only(&objects, "PriorityClass").expect(folder)["metadata"]["name"]);
        for kind in ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"] {
            assert!(only(&objects, kind).is_err(), "{folder}: {kind}");
        }
        // What selects and what is selected.
        let (selector, labels) = (&workload["spec"]["selector"]["matchLabels"], &pod(workload)["metadata"]["labels"]);
        for (label, value) in selector.as_object().expect("a selector") {
            assert_eq!(&labels[label], value, "{folder}");
        }
    }
}

#[test]
fn a_grace_period_is_longer_than_the_drain() {
    let drain = default_of(&help("up"), "--drain-timeout");
    let drain: u64 = drain.strip_suffix('s').expect("seconds").parse().expect("a number");
    for (folder, _) in FORMS {
        let workload = workload(folder);
        let grace = pod(&workload)["spec"]["terminationGracePeriodSeconds"].as_u64().expect("a period");
        assert!(grace >= drain + AFTER_DRAIN, "{folder}: {grace} s, draining takes {drain} s");
        assert!(container(&workload).get("lifecycle").is_none(), "SIGTERM drains: no hook is needed");
    }
}

/// Names, values and ports: what the daemon would not know, or would ignore, it is not given.
#[test]
fn the_daemon_knows_every_argument_and_variable() {
    let help = help("up");
    let known: BTreeSet<_> = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next()).collect();
    assert!(known.contains("NB_HEALTH_ADDR") && known.len() > 20, "{known:?}");
    for (folder, kind) in FORMS {
        let objects = render(folder).expect(folder);
        let workload = only(&objects, kind).expect(folder);
        let container = container(workload);
        let settings = only(&objects, "ConfigMap").expect(folder);
        assert_eq!(container["envFrom"], json!([{"configMapRef": {"name": settings["metadata"]["name"]}}]), "{folder}");
        let environment = environment(settings, container, "192.0.2.7");
        for (name, _) in environment.iter().filter(|(name, _)| name != "NODE_IP" && name != "POD_IP") {
            assert!(known.contains(name.as_str()), "{folder}: {name} is no variable of the daemon");
        }
        let arguments = container["args"].as_array().expect("arguments").iter().filter_map(Value::as_str);
        // A setup key that no server takes, so that it ends once its command line and environment were read.
        let mut command = Command::new(find_daemon().expect("daemon"));
        command.args(arguments).env_clear().envs(environment.iter().cloned()).env("NB_SETUP_KEY", "none");
        let finished = run(&mut command).expect("it ends");
        assert_eq!(finished.status.code(), Some(78), "{folder}: {}", finished.stderr);
        assert!(finished.stderr.contains("NB_SETUP_KEY"), "{folder}: {}", finished.stderr);
        assert!(!finished.stderr.contains("without effect"), "{folder}: {}", finished.stderr);
        let value = |name: &str| environment.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        for port in container["ports"].as_array().expect("ports") {
            let number = port["containerPort"].to_string();
            let listens = match port["name"].as_str().expect("a name") {
                "health" => value("NB_HEALTH_ADDR").expect("an address").rsplit(':').next().map(str::to_owned),
                "wireguard" => value("NB_WIREGUARD_PORT"),
                other => panic!("{folder}: nothing listens at port {other}"),
            };
            assert_eq!(listens.as_deref(), Some(number.as_str()), "{folder}");
        }
        // Files that it is told of are mounted.
        for (name, below) in
            [("NB_SETUP_KEY_FILE", "/run/peer/"), ("NB_STATE_DIR", "/var/lib/netbird"), ("NB_BPFFS", "/run/bpf")]
        {
            let Some(path) = value(name) else { continue };
            assert!(path.starts_with(below), "{folder}: {name}");
            let mounts = container["volumeMounts"].as_array().expect("mounts");
            let mounted = mounts.iter().any(|mount| path.starts_with(mount["mountPath"].as_str().expect("a path")));
            assert!(mounted, "{folder}: nothing is mounted at {path}");
        }
    }
}

#[test]
fn the_setup_key_of_the_example_is_none() {
    let objects = render("example").expect("example");
    let secret = only(&objects, "Secret").expect("a secret");
    assert_eq!(secret["metadata"]["name"], "peer-setup-key", "the name that the pods mount, without a hash");
    let text = std::fs::read_to_string(workspace().join("deploy/example/setup-key")).expect("a file");
    let finished = run(Command::new(find_daemon().expect("daemon")).arg("up").env("NB_SETUP_KEY", text.trim()));
    let finished = finished.expect("it ends");
    assert_eq!(finished.status.code(), Some(78), "{}", finished.stderr);
    assert!(finished.stderr.contains("NB_SETUP_KEY") && !finished.stderr.contains(text.trim()), "{}", finished.stderr);
}

/// The probes' paths have answers, and those of the kind that they are asked for.
#[test]
fn probes_ask_what_the_daemon_answers() {
    let lab = lab(&Plan::default());
    for (folder, _) in FORMS {
        let workload = workload(folder);
        let container = container(&workload);
        for (probe, path) in [("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
            let get = &container[probe]["httpGet"];
            assert_eq!((&get["path"], &get["port"]), (&path.into(), &"health".into()), "{folder}: {probe}");
            let (status, body) = lab.node.probe(path).expect("an answer");
            assert_eq!(status, 200, "{path}: {body}");
        }
        // The daemon itself gives its packet thread three seconds before it says that it hangs.
        assert!(container["livenessProbe"]["timeoutSeconds"].as_u64() > Some(3), "{folder}");
    }
}

/// What a pod may take: maps of its own and, for the minute after an upgrade, those of another layout as well; and the
/// daemon with a session for each of so many peers.
#[test]
fn memory_is_enough_for_maps_and_daemon() {
    const SESSIONS: u64 = 10_000;
    /// Of a peer with a session: design and `netbird_large` have it.
    const SESSION: u64 = 12 << 10;
    let mut lab = lab(&Plan::default());
    let cpus = std::thread::available_parallelism().expect("CPUs").get() as u64;
    let here = MapMemory { cpus, flows: DEFAULT_FLOWS.into() };
    let measured = lab.node.metric("peer_bpf_map_bytes", &[]).expect("metrics") as u64;
    let ratio = measured as f64 / here.at_start() as f64;
    assert!((0.95..1.1).contains(&ratio), "maps take {measured} bytes, by their layouts {}", here.at_start());
    let daemon = resident(lab.node.daemon().expect("daemon").pid());
    let large = MapMemory { cpus: 64, ..here };
    let request = large.at_start() + daemon;
    let limit = 2 * large.full() + daemon + SESSIONS * SESSION;
    let mib = |bytes: u64| bytes >> 20;
    tell(&format!(
        "maps {} MiB at the start, {} MiB full; daemon {} MiB; a pod needs {} MiB, and no more than {} MiB",
        mib(large.at_start()),
        mib(large.full()),
        mib(daemon),
        mib(request),
        mib(limit)
    ));
    for folder in ["overlays/daemonset", "overlays/statefulset"] {
        let resources = container(&workload(folder))["resources"].clone();
        let requested = bytes(&resources["requests"]["memory"]).expect("a request");
        let allowed = bytes(&resources["limits"]["memory"]).expect("a limit");
        assert!((request..2 * request).contains(&requested), "{folder}: {} MiB", mib(requested));
        assert!((limit..limit * 3 / 2).contains(&allowed), "{folder}: {} MiB", mib(allowed));
        assert!(resources["limits"].get("cpu").is_none(), "{folder}: throttling drops packets");
        assert!(resources["requests"]["cpu"].is_string(), "{folder}");
    }
}

#[test]
fn nodes_with_cri_o_get_a_profile_that_lets_bpf_in() {
    let [set, plain] = ["overlays/daemonset-crio", "overlays/daemonset"].map(workload);
    let mut expected = beyond_baseline(pod(&plain));
    expected.push("seccomp Unconfined".to_owned());
    let mut found = beyond_baseline(pod(&set));
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "nothing else is opened");
}

/// Started with the arguments, variables and capabilities of the `DaemonSet`, it joins, serves, and ends in its grace period.
#[test]
fn what_the_daemon_set_says_joins_a_network() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    let node = mesh.node.namespace.clone();
    let objects = render("overlays/daemonset").expect("rendered");
    let set = only(&objects, "DaemonSet").expect("a set");
    let container = container(set);
    // What it mounts, and what is yours.
    let joining = mesh.node.joining.clone().expect("joins");
    node.mount_bpffs(Path::new("/run/bpf")).expect("bpffs");
    node.hide(Path::new("/var/lib")).expect("a place for its state");
    node.enter(|| std::fs::create_dir_all("/run/peer")).expect("a place for its key");
    node.write(Path::new("/run/peer/setup-key"), &joining.setup_key.expect("a key")).expect("key");
    let settings = only(&objects, "ConfigMap").expect("settings");
    let environment = environment(settings, container, &NODE_LAN.to_string());
    let added = container["securityContext"]["capabilities"]["add"].as_array().expect("capabilities").iter();
    let capabilities: String =
        added.map(|name| format!(",+{}", name.as_str().expect("a name").to_lowercase())).collect();
    let set_of = format!("-all{capabilities}");
    let mut command = node.contained_command("setpriv");
    command.args(["--bounding-set", &set_of, "--inh-caps", &set_of, "--ambient-caps", &set_of, "--no-new-privs", "--"]);
    command.arg(find_daemon().expect("daemon"));
    command.args(container["args"].as_array().expect("arguments").iter().filter_map(Value::as_str));
    command.envs(environment).env("NB_MANAGEMENT_URL", &joining.url).env("NB_HOSTNAME", "node");
    let mut daemon = Process::start("peer-daemon", &mut command).expect("it starts");
    let health = SocketAddr::new(NODE_LAN, 9590);
    let ready = wait_for(PATIENCE, || matches!(get(&node, health, "/readyz"), Ok((200, _))));
    assert!(ready, "not ready:\n{}", daemon.log());
    mesh.join(Habits::default()).expect("a member");
    page_by_relay(&mesh);
    let reached = get_within(SECOND, &mesh.member().namespace, health, "/metrics");
    assert!(reached.is_err(), "members have no business at the health port: {reached:?}");
    assert!(matches!(get(&mesh.gateway.namespace, health, "/metrics"), Ok((200, _))), "Prometheus has");
    let grace = pod(set)["spec"]["terminationGracePeriodSeconds"].as_u64().expect("a period");
    let ended = daemon.terminate(Duration::from_secs(grace)).expect("a signal");
    assert!(ended.is_some_and(|status| status.success()), "{}", daemon.log());
    let pins = node.enter(|| std::fs::exists("/run/bpf/peer")).expect("bpffs");
    assert!(!pins && !node.devices().expect("devices").contains(&"wt0".to_owned()), "nothing is left");
}

/// The container's variables, as the kubelet would put them in on a node with that address.
fn environment(settings: &Value, container: &Value, address: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let settings = settings["data"].as_object().expect("settings").iter();
    let mut environment: Vec<_> = settings.map(|(name, value)| (name.clone(), text(value))).collect();
    for variable in container["env"].as_array().expect("variables") {
        let value = variable["value"].as_str().unwrap_or(address);
        let value = value.replace("$(NODE_IP)", address).replace("$(POD_IP)", address);
        environment.push((text(&variable["name"]), value));
    }
    environment
}

/// Resident memory of a process.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("KiB");
    kib << 10
}

fn help(command: &str) -> String {
    run(Command::new(find_daemon().expect("daemon")).args([command, "--help"])).expect("help").stdout
}

/// The default that the help gives a flag.
fn default_of(help: &str, flag: &str) -> String {
    let rest = help.split_once(&format!("{flag} ")).expect("the flag").1;
    let rest = rest.split_once("[default: ").expect("a default").1;
    rest.split(']').next().expect("its end").to_owned()
}
