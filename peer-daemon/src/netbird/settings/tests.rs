use clap::Parser as _;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: UpArgs,
}

const KEY: &str = "A2C8E62B-38F5-4553-B31E-DD66C696CEBB";

fn args(line: &[&str]) -> UpArgs {
    Line::try_parse_from([&["up"], line].concat()).expect("taken").args
}

fn resolve(line: &[&str], kept: &Kept) -> Settings {
    Settings::resolve(&args(line), &PrivateKey::from_bytes([7; 32]), kept).expect("usable")
}

#[test]
fn a_bare_start_has_the_defaults_of_the_official_client() {
    let settings = resolve(&[], &Kept::default());
    assert_eq!(settings.management.to_string(), "https://api.netbird.io:443");
    assert_eq!((settings.interface_name.as_str(), settings.listen_port), ("wt0", ListenPort::Preferably(51820)));
    assert_eq!((settings.mtu(None), settings.mtu(Some(1400))), (1280, 1400));
    assert!(settings.server_routes && settings.ipv6 && !settings.block_inbound);
    assert!(settings.setup_key.read().expect("none").is_none());
}

#[test]
fn flags_go_before_what_an_earlier_client_left() {
    let kept = Kept {
        management_url: Some("https://old.example:443".to_owned()),
        interface_name: Some("nb0".to_owned()),
        listen_port: Some(51999),
        mtu: Some(1280),
        disable_server_routes: true,
        dns_labels: vec!["a".to_owned()],
        ..Kept::default()
    };
    let settings = resolve(&[], &kept);
    assert_eq!(settings.management.to_string(), "https://old.example:443");
    assert_eq!((settings.interface_name.as_str(), settings.listen_port), ("nb0", ListenPort::Preferably(51999)));
    assert!(!settings.server_routes && settings.flags.disable_server_routes);
    assert_eq!(settings.dns_labels, ["a"]);
    assert_eq!(settings.mtu(Some(1400)), 1400, "the official client's default is no wish");
    let line = [
        "--management-url",
        "http://10.99.0.1:8080",
        "--interface-name=wt0",
        "--wireguard-port=1234",
        "--disable-server-routes=false",
        "--extra-dns-labels=b,c",
        "--mtu=1420",
    ];
    let settings = resolve(&line, &kept);
    assert_eq!(settings.management.to_string(), "http://10.99.0.1:8080");
    assert_eq!((settings.interface_name.as_str(), settings.listen_port), ("wt0", ListenPort::Exactly(1234)));
    assert!(settings.server_routes);
    assert_eq!(settings.dns_labels, ["b", "c"]);
    assert_eq!(settings.mtu(Some(1400)), 1420);
}

#[test]
fn what_cannot_be_used_is_named_and_no_secret_is_shown() {
    for (line, field) in [
        (vec!["--management-url", "api.netbird.io"], "--management-url"),
        (vec!["--setup-key", "not-a-key-at-all"], "NB_SETUP_KEY"),
        (vec!["--preshared-key", "not-a-key-at-all"], "NB_PRESHARED_KEY"),
        (vec!["--block-lan-access"], "NB_BLOCK_LAN_ACCESS"),
        (vec!["--external-ip-map", "gateway"], "NB_EXTERNAL_IP_MAP"),
        (vec!["--external-ip-map", "203.0.113.7/2001:db8::1"], "NB_EXTERNAL_IP_MAP"),
        (vec!["--external-ip-map", "203.0.113.7/"], "NB_EXTERNAL_IP_MAP"),
    ] {
        let error = check(&args(&line)).expect_err(field).to_string();
        assert!(error.contains(field) && !error.contains("not-a-key-at-all"), "{error}");
    }
    check(&args(&["--block-lan-access=false", "--setup-key", KEY, "--preshared-key="])).expect("usable");
    let kept = Kept { block_lan_access: true, ..Kept::default() };
    Settings::resolve(&args(&[]), &PrivateKey::from_bytes([7; 32]), &kept)
        .expect_err("a restriction is not dropped in silence");
}

#[test]
fn direct_paths_are_sought_unless_relays_are_forced() {
    let line = ["--external-ip-map=203.0.113.7,203.0.113.8/10.1.0.1,203.0.113.9/eth1", "--ice-interfaces=eth0, eth1,"];
    let ice = resolve(&line, &Kept::default()).ice.expect("the default");
    assert_eq!(ice.interfaces.only, ["eth0", "eth1"]);
    let leads: Vec<_> = ice.interfaces.external.into_iter().map(|external| external.leads_to).collect();
    let address = LeadsTo::Address("10.1.0.1".parse().expect("an address"));
    assert_eq!(leads, [LeadsTo::Any, address, LeadsTo::Device("eth1".to_owned())]);
    for line in [["--force-relay"], ["--force-turn"]] {
        assert!(resolve(&line, &Kept::default()).ice.is_none(), "{line:?}");
    }
}

#[test]
fn a_setup_key_in_a_file_is_read_when_it_is_needed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key");
    let settings = resolve(&["--setup-key-file", path.to_str().expect("text")], &Kept::default());
    assert!(settings.setup_key.read().expect_err("no file").to_string().contains("--setup-key-file"));
    std::fs::write(&path, format!("{KEY}\n")).expect("written");
    assert_eq!(settings.setup_key.read().expect("read").expect("a key").expose(), KEY);
    std::fs::remove_file(&path).expect("removed");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let error = settings.setup_key.read().expect_err("nobody writes to it, and nobody waits for that").to_string();
    assert!(error.contains("--setup-key-file") && error.contains("a pipe"), "{error}");
}

#[test]
fn the_official_configuration_is_looked_for_where_it_is_named_and_where_it_was() {
    assert_eq!(elsewhere(&args(&["--config", "/x/config.json"]))[0], PathBuf::from("/x/config.json"));
    assert_eq!(elsewhere(&args(&[])), [PathBuf::from("/etc/netbird/config.json")]);
}
