//! The commands of the manifests that people run today, against our program under the official one's name.

mod common;

use common::{SECOND, joined};
use peer_test_control::account::SetupKey;
use peer_tests::lab::{Binaries, Mesh, MeshPlan, wait_for};

/// The readiness probe of the rootless Deployment, as it stands there.
const READINESS: &str = r#"out="$(netbird status 2>/dev/null || true)"
echo "$out" | grep -Eq '^Management:\s+Connected' &&
echo "$out" | grep -Eq '^Signal:\s+Connected'
"#;

#[test]
fn probes_of_manifests_pass() {
    let mesh = joined(&MeshPlan::default());
    let passes = |line: &str| mesh.node.shell(line).expect(line).status.success();
    let connected = r#"netbird status | grep -Eq '^Peers count: 1/1 Connected'"#;
    assert!(wait_for(SECOND * 5, || passes(connected)), "{}", mesh.node.status_text(&[]).expect("status"));
    for line in [
        READINESS,
        "netbird status --check live",
        "netbird status --check ready",
        "netbird status --check startup",
        "netbird status | grep -q '^Management: Connected$'",
        "netbird status | grep -q '^Signal: Connected$'",
        "netbird status | grep -q '^Relays: 1/1 Available$'",
        "netbird status | grep -q '^FQDN: node.netbird.selfhosted$'",
        "netbird status | grep -Eq '^NetBird IP: 100\\.90\\.[0-9]+\\.[0-9]+/16$'",
        "netbird status | grep -q '^Networks: .*198.51.100.0/24'",
        "netbird status -d | grep -q 'Connection type: Relayed'",
        "netbird status -d | grep -q '^Management: Connected to http://192.0.2.254:8080$'",
        "netbird status --json",
        "netbird routes list",
        "netbird networks list",
        "netbird version | grep -Eq '^[0-9]+\\.[0-9]+\\.[0-9]+'",
    ] {
        let finished = mesh.node.shell(line).expect(line);
        assert!(finished.status.success(), "{line}: {}{}", finished.stdout, finished.stderr);
        if line.contains("--check") {
            assert_eq!(
                (finished.stdout.as_str(), finished.stderr.as_str()),
                ("", ""),
                "{line}: silent as the official one"
            );
        }
    }
}

#[test]
fn the_status_has_the_official_one_s_lines_in_its_order() {
    let mesh = joined(&MeshPlan::default());
    let text = mesh.node.shell("netbird status").expect("status").stdout;
    let titles = [
        "OS",
        "Daemon version",
        "CLI version",
        "Profile",
        "Management",
        "Signal",
        "Relays",
        "Nameservers",
        "FQDN",
        "NetBird IP",
        "NetBird IPv6",
        "Interface type",
        "Wireguard port",
        "Quantum resistance",
        "Lazy connection",
        "SSH Server",
        "Networks",
        "Peers count",
    ];
    let found: Vec<_> = text.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let known: Vec<_> = found.iter().copied().filter(|title| titles.contains(title)).collect();
    assert_eq!(known, titles, "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&mesh.node.shell("netbird status --json").expect("status").stdout).expect("JSON");
    for key in [
        "peers",
        "cliVersion",
        "daemonVersion",
        "daemonStatus",
        "management",
        "signal",
        "relays",
        "netbirdIp",
        "publicKey",
        "usesKernelInterface",
        "wireguardPort",
        "fqdn",
        "quantumResistance",
        "networks",
        "forwardingRules",
        "dnsServers",
        "events",
        "lazyConnectionEnabled",
        "profileName",
        "sshServer",
    ] {
        assert!(json.get(key).is_some(), "{key}: {json}");
    }
    assert_eq!((&json["peers"]["total"], &json["daemonStatus"]), (&1.into(), &"Connected".into()), "{json}");
}

#[test]
fn probes_fail_where_nothing_is_connected() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    let fails = |mesh: &Mesh, line: &str| !mesh.node.shell(line).expect(line).status.success();
    for line in [READINESS, "netbird status --check live", "netbird status --check startup"] {
        assert!(fails(&mesh, line), "{line}: nothing runs");
    }
    let key = mesh.node.joining.as_ref().expect("joins").setup_key.clone().expect("a key");
    mesh.server.edit(|account| account.setup_keys.get_mut(&SetupKey::lookup(&key)).expect("known").revoked = true);
    mesh.node.launch().expect("launch");
    assert!(wait_for(SECOND * 10, || !fails(&mesh, "netbird status --check live")), "it lives");
    assert!(wait_for(SECOND * 10, || mesh.server.seen().setup_keys > 0));
    for line in [READINESS, "netbird status --check ready", "netbird status --check startup"] {
        assert!(wait_for(SECOND * 2, || fails(&mesh, line)), "{line}: the server did not let it in");
    }
}
