//! What is in `deploy/monitoring`: the rules and the dashboard speak of what the daemon exposes, a real Prometheus makes
//! something of them, and the alerts fire when their causes are provoked.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{PATIENCE, alone, tell};
use peer_test_control::member::Habits;
use peer_tests::lab::{
    BEHIND, Binaries, Datagram, Direction, Download, ECHO_PORT, EchoSocket, GATEWAY, Mesh, MeshPlan, Metrics,
    Prometheus, find_prometheus, forge, iperf, page_within, promtool, random_flows, run, wait_for,
};
use peer_tests::manifests::{only, parse, pod, render};
use peer_tests::monitoring::{Dashboard, Names, Rules, families, faults, reference, repository};

/// What windows of rates are cut to: ten scrapes.
const WINDOW: &str = "10s";
/// What may take as long as a scan of the flow table, and as rules then need.
const ALERT: Duration = Duration::from_secs(40);

#[test]
fn rules_are_valid_and_fire_for_their_causes_and_not_before() {
    let rules = Rules::load().expect("rules");
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("whole.json"), rules.text()).expect("write");
    fs::write(folder.path().join("rules.json"), rules.without_annotations()).expect("write");
    let tests = repository("deploy/monitoring/alerts_test.yaml");
    fs::copy(&tests, folder.path().join("alerts_test.yaml")).expect("alerts_test.yaml");
    for arguments in [&["check", "rules", "whole.json"][..], &["test", "rules", "alerts_test.yaml"]] {
        let finished = promtool(folder.path(), arguments).expect("promtool");
        assert!(finished.status.success(), "{arguments:?}: {}{}", finished.stdout, finished.stderr);
    }
    let text = fs::read_to_string(tests).expect("read");
    let cases = parse(&text).expect("YAML");
    let cases = cases[0]["tests"].as_array().expect("tests").iter();
    let cases: Vec<_> = cases.flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten()).collect();
    for alert in rules.alerts().expect("alerts") {
        let of_it = |fires: bool| {
            cases.iter().any(|case| case["alertname"] == *alert.name && case["exp_alerts"].is_null() != fires)
        };
        assert!(of_it(true), "{}: no unit test in which it fires", alert.name);
        assert!(of_it(false), "{}: no unit test in which it does not", alert.name);
    }
}

#[test]
fn a_rule_that_changes_fails_its_unit_test() {
    let folder = tempfile::tempdir().expect("folder");
    let rules = Rules::load().expect("rules").without_annotations().replace("peer_ready == 0", "peer_ready == 7");
    fs::write(folder.path().join("rules.json"), rules).expect("write");
    let tests = repository("deploy/monitoring/alerts_test.yaml");
    fs::copy(tests, folder.path().join("alerts_test.yaml")).expect("alerts_test.yaml");
    let finished = promtool(folder.path(), &["test", "rules", "alerts_test.yaml"]).expect("promtool");
    assert!(!finished.status.success() && finished.stderr.contains("PeerNotReady"), "{}", finished.stderr);
}

#[test]
fn alerts_say_where_to_read_on() {
    let alerts = Rules::load().expect("rules").alerts().expect("alerts");
    let names: BTreeSet<_> = alerts.iter().map(|alert| &alert.name).collect();
    assert_eq!(names.len(), alerts.len(), "names are used once");
    for alert in &alerts {
        assert!(["critical", "warning", "info"].contains(&alert.severity.as_str()), "{alert:?}");
        let (file, anchor) = alert.runbook.split_once('#').expect("an anchor");
        let text = fs::read_to_string(repository(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut headings = text.lines().filter(|line| line.starts_with('#'));
        assert!(headings.any(|line| slug(line) == anchor), "{file} has no heading for #{anchor}");
    }
}

#[test]
fn the_dashboard_s_panels_are_whole() {
    let dashboard = Dashboard::load().expect("dashboard");
    let mut titles = BTreeSet::new();
    let mut places: Vec<(u64, u64, u64, u64)> = Vec::new();
    for panel in dashboard.panels() {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let title = text(&panel["title"]);
        assert!(titles.insert(title.clone()), "two panels {title}");
        assert!(!text(&panel["description"]).is_empty(), "{title}: no description");
        assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{title}: no unit");
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{title}: no query");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place"));
        let apart =
            |&(x2, y2, w2, h2): &(u64, u64, u64, u64)| x + w <= x2 || x2 + w2 <= x || y + h <= y2 || y2 + h2 <= y;
        assert!(x + w <= 24 && places.iter().all(apart), "{title} lies over another panel or outside");
        places.push((x, y, w, h));
    }
    assert!(titles.len() > 30, "{} panels", titles.len());
}

#[test]
fn the_kustomization_has_what_the_operator_and_grafana_look_for() {
    let objects = render("monitoring").expect("rendered");
    let kinds: BTreeSet<_> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert_eq!(kinds, ["ConfigMap", "PodMonitor", "PrometheusRule"].into());
    let map = only(&objects, "ConfigMap").expect("one");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1", "the sidecar's label");
    let dashboard = fs::read_to_string(repository("deploy/monitoring/dashboard.json")).expect("read");
    assert_eq!(map["data"]["peer.json"], *dashboard);
    let monitor = &only(&objects, "PodMonitor").expect("one")["spec"];
    let endpoint = &monitor["podMetricsEndpoints"][0];
    for (folder, kind) in [("overlays/daemonset", "DaemonSet"), ("overlays/statefulset", "StatefulSet")] {
        let objects = render(folder).expect("rendered");
        let pod = pod(only(&objects, kind).expect("one"));
        for (label, value) in monitor["selector"]["matchLabels"].as_object().expect("labels") {
            assert_eq!(pod["metadata"]["labels"][label], *value, "{folder}");
        }
        let ports = pod["spec"]["containers"][0]["ports"].as_array().expect("ports");
        assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{folder}: {ports:?}");
    }
}

/// With PEER_WRITE_DOCS=1 it writes docs/metrics.md.
#[test]
fn the_reference_is_what_the_daemon_exposes_and_rules_and_dashboard_name_nothing_else() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    mesh.node.arguments = ["--flow-log", "/run/lab/flows.log"].map(str::to_owned).to_vec();
    mesh.node.start().expect("the node is ready");
    mesh.join(Habits::default()).expect("a member");
    page_within(PATIENCE, &mesh.member().namespace, GATEWAY).expect("a first page");
    let open = mesh.node.open_metrics().expect("OpenMetrics");
    let (status, classic) = mesh.node.probe("/metrics").expect("text");
    assert_eq!(status, 200);

    let folder = tempfile::tempdir().expect("folder");
    let metrics = folder.path().join("metrics.txt");
    fs::write(&metrics, &classic).expect("write");
    let line = "exec \"$PROMTOOL\" check metrics < metrics.txt";
    let promtool = find_prometheus("promtool").expect("promtool");
    let mut lint = std::process::Command::new("sh");
    let lint = run(lint.args(["-c", line]).env("PROMTOOL", promtool).current_dir(folder.path())).expect("sh");
    assert!(lint.status.success(), "promtool check metrics: {}{}", lint.stdout, lint.stderr);

    let families = families(&open).expect("families");
    for family in &families {
        let name = &family.name;
        assert!(name.starts_with("peer_") || name.starts_with("process_"), "{name}");
        assert!(
            family.help.ends_with('.') && family.help.len() > 5,
            "{name}: the help is no sentence: {}",
            family.help
        );
        let unit =
            ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}"))).unwrap_or_default();
        assert_eq!(family.unit, unit, "{name}: the unit at the end of the name is the one declared");
        assert!(["counter", "gauge", "histogram"].contains(&family.kind.as_str()), "{name}: {}", family.kind);
    }
    let names = Names::of(&Metrics::parse(&classic).expect("classic"));
    let alerts = Rules::load().expect("rules").alerts().expect("alerts");
    let dashboard = Dashboard::load().expect("dashboard");
    let alerts_say = alerts.iter().map(|alert| (alert.name.clone(), alert.expression.clone()));
    let panels_say = dashboard.queries().map(|query| (query.panel.clone(), query.filled(WINDOW)));
    for (place, expression) in alerts_say.chain(panels_say) {
        let faults = faults(&expression, &names);
        assert!(faults.is_empty(), "{place}: {faults:#?} in {expression}");
    }

    let path = repository("docs/metrics.md");
    let wanted = reference(&families, &alerts);
    if std::env::var_os("PEER_WRITE_DOCS").is_some() {
        fs::write(&path, &wanted).expect("write");
    }
    let found = fs::read_to_string(&path).expect("docs/metrics.md");
    assert!(
        found == wanted,
        "docs/metrics.md is not what the daemon exposes: PEER_WRITE_DOCS=1 cargo test -p peer-tests --test monitoring reference"
    );
}

/// Small tables, so that a few hundred flows fill them.
const SMALL: [&str; 6] = ["--max-flows", "512", "--peer-flows", "4096", "--nat-ports", "20480-20543"];

#[test]
fn a_prometheus_makes_something_of_the_dashboard_and_alerts_fire_when_provoked() {
    let _alone = alone();
    let plan = MeshPlan { carriers_apart: true, ..MeshPlan::default() };
    let mut mesh = Mesh::prepare(&plan, &Binaries::find().expect("programs")).expect("mesh");
    mesh.node.arguments = [&SMALL[..], &["--drain-timeout", "60s"]].concat().into_iter().map(str::to_owned).collect();
    mesh.node.start().expect("the node is ready");
    let rules = Rules::load().expect("rules");
    let prometheus = Prometheus::start(&mesh.node, &rules.hastened(WINDOW, "1s")).expect("prometheus");
    mesh.join(Habits::default()).expect("a member");
    page_within(PATIENCE, &mesh.member().namespace, GATEWAY).expect("a first page");
    mesh.gateway.start_iperf().expect("iperf3");
    iperf(&mesh.member().namespace, GATEWAY, Direction::Download, 5).expect("traffic");
    dashboard_has_data(&prometheus);
    let calm: Vec<_> = prometheus.firing().expect("alerts").iter().map(|alert| alert["alertname"].clone()).collect();
    // Without its ten minutes the first is as quick as TCP, which loses packets until it knows how fast it may be.
    let early = ["PeerDatagramsLost", "PeerConflict"];
    assert!(calm.iter().all(|name| early.contains(&name.as_str())), "nothing was provoked yet: {calm:?}");

    // Keeps the node from going at once when it is told to: it drains. Established, so it is not evicted either.
    let download = Download::start(&mesh.member().namespace, GATEWAY, 1 << 40).expect("a download");
    ports_exhausted(&mesh, &prometheus);
    flows_refused(&mesh, &prometheus);
    drops(&mesh, &prometheus);
    carriers_away(&mut mesh, &prometheus);
    mesh.server.kill();
    fires(&prometheus, "PeerManagementAway", || ());
    not_ready(&mut mesh, &prometheus);
    assert!(download.received() > 0);
    download.stop().expect("the download went on");
    fires(&prometheus, "PeerAbsent", || ());
}

/// The alert fires while its cause is provoked again and again.
#[track_caller]
fn fires(prometheus: &Prometheus, alert: &str, provoke: impl Fn()) {
    let begun = Instant::now();
    let fires = || {
        provoke();
        prometheus.firing().is_ok_and(|firing| firing.iter().any(|labels| labels["alertname"] == alert))
    };
    assert!(wait_for(ALERT, fires), "{alert} does not fire: {:?}\n{}", prometheus.firing(), prometheus.log());
    tell(&format!("{alert} fired after {:.1} s", begun.elapsed().as_secs_f64()));
}

/// Every query is understood and has values; what is a number for people to see must be one.
fn dashboard_has_data(prometheus: &Prometheus) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let mut queries = 0;
    for query in Dashboard::load().expect("dashboard").queries() {
        let found = prometheus.query_range(&query.filled(WINDOW), now - 5.0, now, 1).expect("an answer");
        let mut values = found.iter().flat_map(|found| &found.points).map(|(_, value)| *value);
        // Without kernel.bpf_stats_enabled, which is not ours to set, the kernel counts no runs: 0 / 0.
        let counted = query.panel != "Time per run of a program";
        assert!(values.any(|value| value.is_finite() || !counted), "{}: no data for {}", query.panel, query.expression);
        queries += 1;
    }
    tell(&format!("{queries} queries of the dashboard have data"));
}

/// 80 sockets towards one port of the service want 80 NAT ports; there are 64.
fn ports_exhausted(mesh: &Mesh, prometheus: &Prometheus) {
    let open = |_| EchoSocket::open(&mesh.member().namespace, (GATEWAY, ECHO_PORT).into());
    let sockets: Vec<_> = (0..80).map(open).collect::<Result<_, _>>().expect("sockets");
    // Those without a port are told so: the next call says it, in place of sending.
    let is_told = |error: &anyhow::Error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::HostUnreachable)
    };
    let send = || {
        for result in sockets.iter().map(|socket| socket.send(b"a port")) {
            assert!(result.as_ref().err().is_none_or(is_told), "{result:?}");
        }
    };
    fires(prometheus, "PeerPortsExhausted", send);
}

/// 600 flows do not fit into a table of 512.
fn flows_refused(mesh: &Mesh, prometheus: &Prometheus) {
    let member = mesh.member();
    let (IpAddr::V4(source), IpAddr::V4(network)) = (member.overlay().expect("an address"), BEHIND) else {
        panic!("IPv4 addresses")
    };
    let open = || random_flows(&member.namespace, source, network, 0..600).expect("flows");
    fires(prometheus, "PeerFlowsRefused", open);
    fires(prometheus, "PeerFlowTableNearlyFull", open);
}

/// Packets that no rule refuses, and that are not forwarded all the same.
fn drops(mesh: &Mesh, prometheus: &Prometheus) {
    let member = mesh.member();
    let source = member.overlay().expect("an address");
    let packet = Datagram::udp((source, 4000), (GATEWAY, ECHO_PORT), b"options").with_ipv4_option();
    let packets = vec![packet; 200];
    fires(prometheus, "PeerPacketsDropped", || forge(&member.namespace, "wg0", &packets).expect("forge"));
}

/// Signal and the relay go and come back, and with them the path of the member.
fn carriers_away(mesh: &mut Mesh, prometheus: &Prometheus) {
    let carriers = mesh.carriers.as_mut().expect("apart");
    carriers.kill();
    fires(prometheus, "PeerSignalAway", || ());
    fires(prometheus, "PeerRelayAway", || ());
    carriers.resume().expect("resume");
    page_within(PATIENCE * 3, &mesh.member().namespace, GATEWAY).expect("a page again");
}

/// A node that drains is not ready as long as it forwards.
fn not_ready(mesh: &mut Mesh, prometheus: &Prometheus) {
    mesh.node.daemon().expect("it runs").signal(libc::SIGTERM).expect("SIGTERM");
    fires(prometheus, "PeerNotReady", || ());
}

/// The anchor that a heading has on the usual web interfaces of repositories.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
