use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use peer_core::desired::{Action, PortRange, Protocol, Scope, UplinkChoice};

use super::*;

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a prefix")
}

#[test]
fn a_whole_file() {
    let desired = read(&format!(
        r#"
        [interface]
        private_key = "{PRIVATE}"
        listen_port = 51_820
        addresses = ["100.64.0.1/16", "fd00::1/64"]
        mtu = 0x500
        name = "wt-1"

        [[peer]]
        public_key = "{PEER}"
        preshared_key = "{OTHER}"
        endpoint = "192.0.2.1:51820"
        allowed_ips = ["100.64.0.2/32", "fd00::2/128"]
        persistent_keepalive = 25

        [[peer]]
        public_key = "{OTHER}"
        endpoint = "[2001:db8::1]:4500"
        persistent_keepalive = "off"

        [[route]]
        destination = "10.0.0.0/8"

        [[route]]
        destination = "fd01::/16"
        masquerade = false
        uplink = "eth0"

        [[rule]]
        sources = ["100.64.0.0/16"]
        destinations = ["10.0.0.0/8", "10.9.0.0/16"]
        protocol = "tcp"
        ports = [22, "80", "8000-8100"]
        action = "accept"

        [[rule]]
        id = 77
        action = "drop"
        "#
    ))
    .unwrap_or_else(|problems| panic!("{problems}"));

    let interface = &desired.interface;
    assert_eq!((interface.name.as_str(), interface.listen_port, interface.mtu), ("wt-1", 51820, 1280));
    assert_eq!(interface.private_key.public_key().to_string(), PUBLIC);
    assert_eq!(interface.addresses, [net("100.64.0.1/16"), net("fd00::1/64")]);

    let [first, second] = &desired.peers[..] else { panic!("{:?}", desired.peers) };
    assert_eq!(first.public_key.to_string(), PEER);
    assert_eq!(first.preshared_key.as_ref().map(|key| key.expose_base64().to_string()).as_deref(), Some(OTHER));
    assert_eq!(first.endpoint, Some("192.0.2.1:51820".parse().expect("an endpoint")));
    assert_eq!(*first.allowed_ips, [net("100.64.0.2/32"), net("fd00::2/128")]);
    assert_eq!(first.persistent_keepalive.map(u16::from), Some(25));
    assert_eq!(second.endpoint, Some("[2001:db8::1]:4500".parse().expect("an endpoint")));
    assert_eq!((&second.preshared_key, second.persistent_keepalive), (&None, None));
    assert!(second.allowed_ips.is_empty());

    let [first, second] = &desired.routes[..] else { panic!("{:?}", desired.routes) };
    assert_eq!((first.destination, first.masquerade, &first.uplink), (net("10.0.0.0/8"), true, &UplinkChoice::Auto));
    let named = UplinkChoice::Named("eth0".to_owned());
    assert_eq!((second.destination, second.masquerade, &second.uplink), (net("fd01::/16"), false, &named));

    let [first, second] = &desired.rules[..] else { panic!("{:?}", desired.rules) };
    assert_eq!((first.id, first.protocol, first.action, first.scope), (1, Protocol::Tcp, Action::Accept, Scope::Both));
    assert_eq!(first.sources, [net("100.64.0.0/16")]);
    assert_eq!(first.destinations, [net("10.0.0.0/8"), net("10.9.0.0/16")]);
    let ports = [(22, 22), (80, 80), (8000, 8100)].map(|(min, max)| PortRange { min, max });
    assert_eq!(first.ports, ports);
    assert_eq!((second.id, second.protocol, second.action), (77, Protocol::Any, Action::Drop));
    assert!(second.sources.is_empty() && second.destinations.is_empty() && second.ports.is_empty());
}

#[test]
fn what_is_left_out_has_a_default() {
    let desired = read(&interface()).expect("the least there can be");
    let interface = &desired.interface;
    assert_eq!((interface.name.as_str(), interface.listen_port, interface.mtu), ("wt0", 0, 1420));
    assert!(desired.peers.is_empty() && desired.routes.is_empty() && desired.rules.is_empty());
}

#[test]
fn the_example_of_the_documentation_is_taken() {
    let documented: String = include_str!("../lib.rs")
        .lines()
        .skip_while(|line| *line != "//! ```toml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//!")))
        .collect();
    let text = documented.replace("private_key_file = \"wt0.key\"", &format!("private_key = \"{PRIVATE}\""));
    // The peer of the example has the public key that belongs to our private key.
    let desired = read(&text.replace(PUBLIC, PEER)).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((desired.peers.len(), desired.routes.len(), desired.rules.len()), (1, 1, 1));
}

#[test]
fn boundaries_are_inside() {
    for line in ["mtu = 576", "mtu = 65455", "listen_port = 0", "listen_port = 65535", "name = \"a23456789012345\""] {
        let text = interface().replace("[interface]", &format!("[interface]\n{line}"));
        assert!(read(&text).is_ok(), "{line}");
    }
    for lines in [
        "persistent_keepalive = 0",
        "persistent_keepalive = 65535",
        "endpoint = \"[fe80::1%2]:1\"",
        "allowed_ips = [\"0.0.0.0/0\", \"::/0\"]",
        "allowed_ips = [\"100.64.0.0/16\"]",
        "allowed_ips = []",
    ] {
        let text = format!("{}[[peer]]\npublic_key = \"{PEER}\"\n{lines}\n", interface());
        assert!(read(&text).is_ok(), "{lines}");
    }
    for lines in ["protocol = \"udp\"\nports = [1, 65535, \"1-65535\", \"7-7\"]", "ports = []", "id = 4294967295"] {
        let text = format!("{}[[rule]]\naction = \"drop\"\n{lines}\n", interface());
        assert!(read(&text).is_ok(), "{lines}");
    }
}

#[test]
fn tables_may_stand_in_any_notation() {
    let text = format!(
        "peer = [{{ public_key = '{PEER}' }}, {{ public_key = \"{OTHER}\" }}]\r\n\
         interface.private_key = \"\"\"{PRIVATE}\"\"\"\r\n\
         interface.addresses = [\"100.64.0.1/16\", ] # the comma is allowed\r\n"
    );
    assert_eq!(read(&text).expect("TOML").peers.len(), 2);
}

#[test]
fn a_file_is_loaded_with_the_key_beside_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (config, key) = (dir.path().join("peer.toml"), dir.path().join("wt0.key"));
    fs::write(&key, format!("{PRIVATE}\n")).expect("writable");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("own file");
    let text = interface().replace(&format!("private_key = \"{PRIVATE}\""), "private_key_file = \"wt0.key\"");
    fs::write(&config, &text).expect("writable");
    let desired = load(&config).expect("good");
    assert_eq!(desired.interface.private_key.public_key().to_string(), PUBLIC);

    let absolute = text.replace("wt0.key", key.to_str().expect("UTF-8"));
    assert!(parse(&absolute, Path::new("/nonexistent")).is_ok(), "an absolute path does not depend on the base");
}
