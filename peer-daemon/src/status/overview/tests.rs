use super::*;

/// Recorded from a client of version 0.77.1, the three within seconds.
const JSON: &str = include_str!("../testdata/status-json.txt");
const SUMMARY: &str = include_str!("../testdata/status.txt");
const DETAIL: &str = include_str!("../testdata/status-d.txt");

fn recorded() -> Overview {
    serde_json::from_str(JSON).expect("understood")
}

fn summary(overview: &Overview, expanded: Expanded) -> String {
    // Recorded on x86_64.
    let text = Summary { overview, expanded, is_static: false }.to_string();
    text.replacen("linux/arm64", "linux/amd64", 1)
}

#[test]
fn the_json_of_a_real_client_is_read_and_written_alike() {
    assert_eq!(serde_json::to_string(&recorded()).expect("written"), JSON.trim_end());
}

#[test]
fn the_summary_is_that_of_a_real_client() {
    assert_eq!(summary(&recorded(), Expanded::No), SUMMARY);
}

#[test]
fn the_details_are_those_of_a_real_client() {
    let overview = recorded();
    let now = "2026-11-22T07:00:24.4Z".parse().expect("a time");
    let text = Detail { overview: &overview, now }.to_string() + &summary(&overview, Expanded::Yes);
    assert_eq!(text, DETAIL);
}

#[test]
fn a_peer_that_has_not_yet_joined_says_what_it_lacks() {
    let mut overview = Overview { profile_name: "default".to_owned(), ..Overview::default() };
    overview.management.error = "connection refused\nManagement: Connected".to_owned();
    let text = summary(&overview, Expanded::No);
    assert!(text.contains("\nManagement: Disconnected, reason: connection refused Management: Connected\n"), "{text}");
    for line in ["Signal: Disconnected", "NetBird IP: N/A", "Interface type: N/A", "Wireguard port: N/A", "Networks: -"]
    {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    let json = serde_json::to_string(&overview).expect("written");
    assert!(json.contains(r#""netbirdIp":"","publicKey""#) && json.contains(r#""details":null"#), "{json}");
    assert_eq!(serde_json::from_str::<Overview>(&json).expect("read"), overview);
    overview.daemon_status = DaemonStatus::NeedsLogin;
    let help = overview.needs_help().expect("help");
    assert!(help.starts_with("Daemon status: NeedsLogin\n") && help.contains("NB_SETUP_KEY"), "{help}");
    assert!(!help.lines().any(|line| line.starts_with("Management:")), "{help}");
}

#[test]
fn filters_leave_out_the_others() {
    let shown = |filter: Filter| {
        let mut overview = recorded();
        assert!(filter.is_set());
        filter.apply(&mut overview);
        assert_eq!(overview.peers.total, 2, "the count stays");
        overview.peers.details.into_iter().map(|peer| peer.fqdn).collect::<Vec<_>>()
    };
    let (node, probe) = ("node.netbird.selfhosted", "rprobe.netbird.selfhosted");
    let ip = |text: &str| vec![text.parse().expect("an address")];
    assert_eq!(shown(Filter { ips: ip("100.102.207.10"), ..Filter::default() }), [probe]);
    assert_eq!(shown(Filter { ips: ip("fdaf:ed1f:53cb:59ac:ba70:8e3b:c98:5aee"), ..Filter::default() }), [node]);
    assert_eq!(shown(Filter { names: vec!["no".into(), "rp".into()], ..Filter::default() }), [node, probe]);
    assert_eq!(shown(Filter { status: Some(PeerState::Connecting), ..Filter::default() }), [probe]);
    assert_eq!(shown(Filter { connection_type: Some(ConnectionType::Direct), ..Filter::default() }), [node]);
    assert!(shown(Filter { connection_type: Some(ConnectionType::Relayed), ..Filter::default() }).is_empty());
    assert!(!Filter::default().is_set());
}
