//! What is refused: the line, the field, the value, and words of the reason and of the fix.

use super::*;

struct Case {
    /// After the four lines of `interface()`, unless it begins with `[interface]`.
    text: &'static str,
    line: usize,
    field: &'static str,
    value: Option<&'static str>,
    why: &'static str,
    fix: &'static str,
}

const fn case(
    text: &'static str,
    line: usize,
    field: &'static str,
    value: Option<&'static str>,
    why: &'static str,
    fix: &'static str,
) -> Case {
    Case { text, line, field, value, why, fix }
}

/// Each text has this one problem only.
fn check(cases: &[Case]) {
    for case in cases {
        let text = case.text.replace("PRIVATE", PRIVATE).replace("PUBLIC", PUBLIC).replace("PEER", PEER);
        let text = text.replace("OTHER", OTHER);
        let whole = if text.contains("interface") { text } else { interface() + &text };
        let found = problems(&whole);
        let [problem] = &found[..] else { panic!("{whole}\n{found:#?}") };
        assert_eq!((problem.line, problem.field.as_str()), (case.line, case.field), "{whole}\n{problem}");
        let value = case.value.map(|value| value.replace("PUBLIC", PUBLIC).replace("PEER", PEER));
        assert_eq!(problem.value, value, "{whole}\n{problem}");
        assert!(problem.why.contains(case.why), "{whole}\n{problem}");
        assert!(problem.fix.contains(case.fix), "{whole}\n{problem}");
    }
}

#[test]
fn interfaces() {
    const KEY: &str = "[interface]\naddresses = [\"100.64.0.1/16\"]\n";
    check(&[
        case("# no interface\n", 1, "interface", None, "missing", "add [interface]"),
        case("[[interface]]\nmtu = 1420", 1, "interface", Some("[…]"), "must be a table", "write [interface]"),
        case("interface = 5", 1, "interface", Some("5"), "must be a table", "write [interface]"),
        case("[interface]\nprivate_key = \"PRIVATE\"", 1, "interface.addresses", None, "missing", "100.64.0.1/16"),
    ]);
    let key_cases = [
        ("", 1, "interface.private_key", None, "missing", "genkey"),
        ("private_key = \"abc\"", 3, "interface.private_key", None, "3 characters", "44 characters"),
        ("private_key = 5", 3, "interface.private_key", None, "must be a string, not a number", "in quotes"),
        ("private_key = [\"PRIVATE\"]", 3, "interface.private_key", None, "not a list", "in quotes"),
        ("private_key_file = 7", 3, "interface.private_key_file", Some("7"), "must be a string", "in quotes"),
        ("private_key_file = \"\"", 3, "interface.private_key_file", Some("\"\""), "empty", "path"),
        ("private_key_file = \"PRIVATE\"", 3, "interface.private_key_file", None, "is a key", "private_key"),
        (
            "private_key = \"PRIVATE\"\nprivate_key_file = \"x\"",
            4,
            "interface.private_key_file",
            Some("\"x\""),
            "private_key, too",
            "keep one",
        ),
        (
            "private_key_file = \"/nonexistent/key\"",
            3,
            "interface.private_key_file",
            Some("\"/nonexistent/key\""),
            "No such file",
            "genkey",
        ),
        (
            "private_key_file = \"/\"",
            3,
            "interface.private_key_file",
            Some("\"/\""),
            "no regular file",
            "holds the key",
        ),
        (
            "private_key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"",
            3,
            "interface.private_key",
            None,
            "zeros",
            "genkey",
        ),
    ];
    for (text, line, field, value, why, fix) in key_cases {
        let text = format!("{KEY}{text}").leak();
        check(&[case(text, line, field, value, why, fix)]);
    }
}

#[test]
fn interface_values() {
    let cases = [
        ("listen_port = 65536", "listen_port", Some("65536"), "out of range", "0 to 65535"),
        ("listen_port = -1", "listen_port", Some("-1"), "out of range", "0 to 65535"),
        ("listen_port = 99999999999999999999", "listen_port", Some("99999999999999999999"), "range", "65535"),
        ("listen_port = \"51820\"", "listen_port", Some("\"51820\""), "not a string", "without quotes"),
        ("listen_port = 1.5", "listen_port", Some("1.5"), "not a fraction", "a number"),
        ("mtu = 575", "mtu", Some("575"), "out of range", "576 to 65455"),
        ("mtu = 65456", "mtu", Some("65456"), "out of range", "576 to 65455"),
        ("mtu = 0xffff_ffff", "mtu", Some("0xffffffff"), "out of range", "576 to 65455"),
        ("name = \"\"", "name", Some("\"\""), "empty", "1 to 15"),
        ("name = \"a234567890123456\"", "name", Some("\"a234567890123456\""), "16 bytes", "1 to 15"),
        ("name = \"wt/0\"", "name", Some("\"wt/0\""), "'/'", "letters"),
        ("name = \"wt 0\"", "name", Some("\"wt 0\""), "' '", "letters"),
        ("name = \"wt%d\"", "name", Some("\"wt%d\""), "'%'", "letters"),
        ("name = \"w\\u0007\"", "name", Some("\"w\\u{7}\""), "must not have", "letters"),
        ("name = \"..\"", "name", Some("\"..\""), "kernel", "letters"),
        ("name = 1979-05-27", "name", Some("1979-05-27"), "not a date", "write"),
        ("mtv = 1", "mtv", None, "unknown key", "write mtu"),
        ("ListenPort = 1", "ListenPort", None, "unknown key", "listen_port"),
        ("table = \"off\"", "table", None, "unknown key", "known keys are private_key"),
    ];
    for (line, key, value, why, fix) in cases {
        let text = interface().replace("[interface]", &format!("[interface]\n{line}")).leak();
        check(&[case(text, 2, format!("interface.{key}").leak(), value, why, fix)]);
    }
}

#[test]
fn own_addresses() {
    let cases = [
        ("[]", "interface.addresses", "[…]", "empty", "100.64.0.1/16"),
        ("\"100.64.0.1/16\"", "interface.addresses", "\"100.64.0.1/16\"", "must be a list", "[\"100.64.0.1/16\"]"),
        ("[3]", "interface.addresses[0]", "3", "not a number", "prefix length"),
        ("[\"100.64.0.1\"]", "interface.addresses[0]", "\"100.64.0.1\"", "no prefix length", "\"100.64.0.1/32\""),
        ("[\"100.64.0.1/33\"]", "interface.addresses[0]", "\"100.64.0.1/33\"", "bad prefix length", "0 to 32"),
        ("[\"fd00::1/129\"]", "interface.addresses[0]", "\"fd00::1/129\"", "bad prefix length", "0 to 128"),
        ("[\"fd00::1/+8\"]", "interface.addresses[0]", "\"fd00::1/+8\"", "bad prefix length", "0 to 128"),
        ("[\"wt0/8\"]", "interface.addresses[0]", "\"wt0/8\"", "no IP address", "10.0.0.0/8"),
        ("[\"::ffff:10.0.0.1/104\"]", "interface.addresses[0]", "\"::ffff:10.0.0.1/104\"", "IPv4", "\"10.0.0.1/8\""),
        ("[\"127.0.0.1/8\"]", "interface.addresses[0]", "\"127.0.0.1/8\"", "no address that a node", "overlay"),
        ("[\"ff02::1/128\"]", "interface.addresses[0]", "\"ff02::1/128\"", "no address that a node", "overlay"),
        ("[\"10.0.0.0/24\"]", "interface.addresses[0]", "\"10.0.0.0/24\"", "network's own", "overlay"),
        ("[\"10.0.0.255/24\"]", "interface.addresses[0]", "\"10.0.0.255/24\"", "broadcast", "overlay"),
        ("[\"10.0.0.1/0\"]", "interface.addresses[0]", "\"10.0.0.1/0\"", "whole Internet", "overlay"),
        (
            "[\"10.0.0.1/8\", \"10.0.0.1/16\"]",
            "interface.addresses[1]",
            "\"10.0.0.1/16\"",
            "same as interface.addresses[0] (line 3)",
            "once",
        ),
    ];
    for (addresses, field, value, why, fix) in cases {
        let text = format!("[interface]\nprivate_key = \"{PRIVATE}\"\naddresses = {addresses}\n").leak();
        check(&[case(text, 3, field, Some(value), why, fix)]);
    }
}

#[test]
fn sections() {
    check(&[
        case("[[peers]]\n", 5, "peers", None, "unknown key", "write peer (as in [[peer]])"),
        case("[wireguard]\n", 5, "wireguard", None, "unknown key", "interface, peer, route, rule"),
        case("[peer]\npublic_key = \"PEER\"", 5, "peer", Some("{…}"), "more than one", "write [[peer]]"),
        case("[rule]\n", 5, "rule", Some("{…}"), "more than one", "write [[rule]]"),
    ]);
    let found = problems(&format!("peer = [7]\n{}", interface()));
    assert_eq!(found[0].to_string(), "peer[0] = 7: must be a table; write [[peer]] and the keys on lines of their own");
}

#[test]
fn peers() {
    check(&[
        case("[[peer]]\n", 5, "peer[0].public_key", None, "missing", "pubkey"),
        case("\n[[peer]]\npublic_key = \"abc\"", 7, "peer[0].public_key", Some("\"abc\""), "3 characters", "44"),
        case("[[peer]]\npublic_key = 1", 6, "peer[0].public_key", Some("1"), "not a number", "quotes"),
        case(
            "[[peer]]\npublic_key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"",
            6,
            "peer[0].public_key",
            None,
            "zeros",
            "pubkey",
        ),
        case("[[peer]]\npublic_key = \"PUBLIC\"", 6, "peer[0].public_key", None, "this node's own", "[[peer]]"),
        case(
            "[[peer]]\npublic_key = \"PEER\"\n[[peer]]\npublic_key = \"PEER\"",
            8,
            "peer[1].public_key",
            None,
            "same as peer[0].public_key (line 6)",
            "one [[peer]]",
        ),
    ]);
    let cases = [
        ("preshared_key = \"short\"", "preshared_key", None, "5 characters", "44"),
        ("persistent_keepalive = 65536", "persistent_keepalive", Some("65536"), "out of range", "65535"),
        ("persistent_keepalive = \"25\"", "persistent_keepalive", Some("\"25\""), "seconds", "\"off\""),
        ("persistent_keepalive = true", "persistent_keepalive", Some("true"), "not a boolean", "0 to 65535"),
        ("AllowedIPs = []", "AllowedIPs", None, "unknown key", "write allowed_ips"),
        ("preshared-key = \"OTHER\"", "preshared-key", None, "unknown key", "write preshared_key"),
        ("\"end point\" = 1", "\"end point\"", None, "unknown key", "write endpoint"),
        ("allowed_ips = [\"10.0.0.1/8\"]", "allowed_ips[0]", Some("\"10.0.0.1/8\""), "bits set", "\"10.0.0.0/8\""),
        ("allowed_ips = [\"fd00::1/64\"]", "allowed_ips[0]", Some("\"fd00::1/64\""), "bits set", "\"fd00::/64\""),
        ("allowed_ips = \"10.0.0.0/8\"", "allowed_ips", Some("\"10.0.0.0/8\""), "must be a list", "allowed_ips = ["),
        ("allowed_ips = [[]]", "allowed_ips[0]", Some("[…]"), "not a list", "10.0.0.0/8"),
        (
            "allowed_ips = [\"100.64.0.1/32\"]",
            "allowed_ips[0]",
            Some("\"100.64.0.1/32\""),
            "own address, see interface.addresses[0] (line 3)",
            "peer's overlay address",
        ),
        (
            "allowed_ips = [\"10.0.0.0/8\", \"10.0.0.0/8\"]",
            "allowed_ips[1]",
            Some("\"10.0.0.0/8\""),
            "same as peer[0].allowed_ips[0] (line 7)",
            "remove one",
        ),
    ];
    for (line, key, value, why, fix) in cases {
        let text = format!("[[peer]]\npublic_key = \"PEER\"\n{line}\n").leak();
        check(&[case(text, 7, format!("peer[0].{key}").leak(), value, why, fix)]);
    }
    check(&[case(
        "[[peer]]\npublic_key = \"PEER\"\nallowed_ips = [\"10.0.0.0/8\"]\n\
         [[peer]]\npublic_key = \"OTHER\"\nallowed_ips = [\n  \"10.1.0.0/16\",\n  \"10.0.0.0/8\",\n]",
        12,
        "peer[1].allowed_ips[1]",
        Some("\"10.0.0.0/8\""),
        "same as peer[0].allowed_ips[0] (line 7)",
        "one peer",
    )]);
}

#[test]
fn endpoints() {
    let cases = [
        ("1.2.3.4", "a port is missing", "write \"1.2.3.4:51820\""),
        ("2001:db8::1", "a port is missing", "write \"[2001:db8::1]:51820\""),
        ("[2001:db8::1]", "a port is missing", "write \"[2001:db8::1]:51820\""),
        ("2001:db8::1:51820", "brackets", "write \"[2001:db8::1]:51820\""),
        ("1.2.3.4:", "bad port", "\"1.2.3.4:51820\""),
        ("1.2.3.4:65536", "bad port", "\"1.2.3.4:51820\""),
        ("[fd00::1]:http", "bad port", "\"[fd00::1]:51820\""),
        ("1.2.3.4:0", "port 0", "\"1.2.3.4:51820\""),
        ("0.0.0.0:51820", "no address of a host", "reached"),
        ("[ff02::1]:51820", "no address of a host", "reached"),
        ("255.255.255.255:51820", "no address of a host", "reached"),
        ("[::ffff:1.2.3.4]:51820", "IPv4 in IPv6", "write \"1.2.3.4:51820\""),
        ("[fe80::1]:51820", "link-local", "\"[fe80::1%2]:51820\""),
        (
            "vpn.example.com:4500",
            "names are not looked up",
            "IP address that the name stands for, such as \"192.0.2.1:4500\"",
        ),
        ("vpn.example.com", "names are not looked up", "\"192.0.2.1:51820\""),
        ("", "no IP address", "\"192.0.2.1:51820\""),
        (":51820", "no IP address", "\"192.0.2.1:51820\""),
        ("1.2.3:51820", "no IP address", "\"192.0.2.1:51820\""),
        ("udp://1.2.3.4:51820", "no IP address", "\"192.0.2.1:51820\""),
    ];
    for (endpoint, why, fix) in cases {
        let text = format!("[[peer]]\npublic_key = \"PEER\"\nendpoint = \"{endpoint}\"\n").leak();
        let value = format!("\"{endpoint}\"").leak();
        check(&[case(text, 7, "peer[0].endpoint", Some(value), why, fix)]);
    }
}

#[test]
fn routes() {
    check(&[
        case("[[route]]\n", 5, "route[0].destination", None, "missing", "10.0.0.0/8"),
        case(
            "[[route]]\ndestination = \"10.1.0.0/8\"",
            6,
            "route[0].destination",
            Some("\"10.1.0.0/8\""),
            "bits set",
            "\"10.0.0.0/8\"",
        ),
        case(
            "[[route]]\ndestination = \"10.0.0.0/8\"\n[[route]]\ndestination = \"10.0.0.0/8\"",
            8,
            "route[1].destination",
            Some("\"10.0.0.0/8\""),
            "same as route[0].destination (line 6)",
            "keep one",
        ),
    ]);
    let cases = [
        ("masquerade = \"yes\"", "masquerade", Some("\"yes\""), "not a string", "true or false"),
        ("uplink = \"\"", "uplink", Some("\"\""), "empty", "1 to 15"),
        ("uplink = [\"eth0\"]", "uplink", Some("[…]"), "not a list", "\"eth0\""),
        ("uplink = \"wt0\"", "uplink", Some("\"wt0\""), "overlay's own device", "\"auto\""),
        ("masqerade = true", "masqerade", None, "unknown key", "write masquerade"),
    ];
    for (line, key, value, why, fix) in cases {
        let text = format!("[[route]]\ndestination = \"10.0.0.0/8\"\n{line}\n").leak();
        check(&[case(text, 7, format!("route[0].{key}").leak(), value, why, fix)]);
    }
}

#[test]
fn rules() {
    check(&[case("[[rule]]\n", 5, "rule[0].action", None, "missing", "\"accept\"")]);
    let cases = [
        ("protocol = \"sctp\"", "protocol", Some("\"sctp\""), "none of the values", "\"any\" or \"tcp\""),
        ("protocol = \"TCP\"", "protocol", Some("\"TCP\""), "none of the values", "\"tcp\""),
        ("protocol = 6", "protocol", Some("6"), "not a number", "\"tcp\""),
        ("ports = [80]", "ports", Some("[…]"), "only tcp and udp", "protocol = \"tcp\""),
        ("protocol = \"icmp\"\nports = [8]", "ports", Some("[…]"), "only tcp and udp", "leave the ports out"),
        ("protocol = \"tcp\"\nports = 80", "ports", Some("80"), "must be a list", "[80,"),
        ("protocol = \"tcp\"\nports = [0]", "ports[0]", Some("0"), "out of range", "1 to 65535"),
        ("protocol = \"tcp\"\nports = [22, 65536]", "ports[1]", Some("65536"), "out of range", "1 to 65535"),
        ("protocol = \"tcp\"\nports = [\"ssh\"]", "ports[0]", Some("\"ssh\""), "no port", "8000-8100"),
        ("protocol = \"tcp\"\nports = [\"0-5\"]", "ports[0]", Some("\"0-5\""), "no port", "1 to 65535"),
        ("protocol = \"tcp\"\nports = [\"90-80\"]", "ports[0]", Some("\"90-80\""), "ends before", "\"80-90\""),
        ("protocol = \"tcp\"\nports = [\"1-2-3\"]", "ports[0]", Some("\"1-2-3\""), "no port", "1 to 65535"),
        ("protocol = \"tcp\"\nports = [true]", "ports[0]", Some("true"), "not a boolean", "80"),
        ("sources = [\"10.0.0.1\"]", "sources[0]", Some("\"10.0.0.1\""), "no prefix length", "\"10.0.0.1/32\""),
        ("destinations = [\"10.0.0.1/8\"]", "destinations[0]", Some("\"10.0.0.1/8\""), "bits set", "\"10.0.0.0/8\""),
        ("id = 0", "id", Some("0"), "out of range", "1 to 4294967295"),
        ("id = 4294967296", "id", Some("4294967296"), "out of range", "1 to 4294967295"),
        ("dest = []", "dest", None, "unknown key", "known keys are sources"),
    ];
    for (lines, key, value, why, fix) in cases {
        let text = format!("[[rule]]\naction = \"accept\"\n{lines}\n").leak();
        let line = 6 + lines.lines().count();
        check(&[case(text, line, format!("rule[0].{key}").leak(), value, why, fix)]);
    }
    check(&[
        case(
            "[[rule]]\naction = \"allow\"",
            6,
            "rule[0].action",
            Some("\"allow\""),
            "none of",
            "\"accept\" or \"drop\"",
        ),
        case(
            "[[rule]]\naction = \"drop\"\nid = 5\n[[rule]]\naction = \"drop\"\nid = 5",
            10,
            "rule[1].id",
            Some("5"),
            "same as rule[0].id (line 7)",
            "id of its own",
        ),
        case(
            "[[rule]]\naction = \"drop\"\nid = 2\n[[rule]]\naction = \"drop\"",
            7,
            "rule[0].id",
            Some("2"),
            "also the id of rule[1] (line 8)",
            "another id",
        ),
    ]);
}

#[test]
fn an_mtu_too_small_for_ipv6_wherever_ipv6_is() {
    for more in [
        format!("[[peer]]\npublic_key = \"{PEER}\"\nallowed_ips = [\"fd00::2/128\"]"),
        "[[route]]\ndestination = \"fd01::/16\"".to_owned(),
    ] {
        let text = interface().replace("[interface]", "[interface]\nmtu = 1279") + &more;
        let field = "interface.mtu";
        check(&[case(text.leak(), 2, field, Some("1279"), "too small for IPv6, see", "write 1280 or more")]);
    }
}

#[test]
fn syntax() {
    let unquoted = "[[peer]]\npublic_key = \"PEER\"\n[[peer]]\nendpoint = 1.2.3.4:51820";
    let no_header = "[interface\n";
    check(&[
        case(
            unquoted,
            8,
            "peer[1].endpoint",
            Some("1.2.3.4:51820"),
            "not TOML",
            "write it as in endpoint = \"192.0.2.1:51820\"",
        ),
        case("[interface]\nmtu = 1420\nmtu = 1421", 3, "interface.mtu", Some("1421"), "duplicate key", "keep one"),
        case("[interface]\nmtu =", 2, "interface.mtu", None, "not TOML", "mtu = 1420"),
        case(no_header, 1, "", None, "not TOML", "[interface]"),
        case("[interface]\nname = \"wt0", 2, "interface.name", Some("\"wt0"), "not TOML", "name = \"wt0\""),
        case("[peer]\n[peer]\n", 6, "", None, "duplicate key", "write [[peer]]"),
        case("[[route]] # LAN\nendpoint = 1.2.3.4:51820", 6, "", None, "not TOML", "text in quotes"),
    ]);
    // The first problem of each line, and all lines.
    let found = problems("[interface]\nmtu = \nname = wt0 wt1\n[[peer]]\nendpoint = 1.2.3.4:5\n");
    let places: Vec<_> = found.iter().map(|problem| (problem.line, problem.field.as_str())).collect();
    assert_eq!(places, [(2, "interface.mtu"), (3, "interface.name"), (5, "peer[0].endpoint")]);
}

#[test]
fn all_problems_at_once_in_the_order_of_lines() {
    let text = format!(
        "[[rule]]\n\
         action = \"allow\"\n\
         [[peer]]\n\
         endpoint = \"1.2.3.4\"\n\
         allowed_ips = [\"10.0.0.1/8\", \"x\"]\n\
         [interface]\n\
         private_key = \"{PRIVATE}\"\n\
         addresses = []\n\
         mtu = 1\n\
         colour = \"red\"\n"
    );
    let path = Path::new("peer.toml").to_owned();
    let problems = read(&text).expect_err("bad");
    assert_eq!(problems.iter().len(), 8);
    assert!(problems.to_string().starts_with("line 2: rule[0].action = \"allow\": "));
    let shown = Error::Invalid { path, problems }.to_string();
    let lines: Vec<_> = shown.lines().collect();
    let starts = [
        "peer.toml:2: rule[0].action = \"allow\": ",
        "peer.toml:3: peer[0].public_key: is missing; ",
        "peer.toml:4: peer[0].endpoint = \"1.2.3.4\": a port is missing; write \"1.2.3.4:51820\"",
        "peer.toml:5: peer[0].allowed_ips[0] = \"10.0.0.1/8\": ",
        "peer.toml:5: peer[0].allowed_ips[1] = \"x\": ",
        "peer.toml:8: interface.addresses = […]: is empty; ",
        "peer.toml:9: interface.mtu = 1: ",
        "peer.toml:10: interface.colour: is an unknown key; ",
    ];
    assert_eq!(lines.len(), starts.len(), "{shown}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn long_values_are_shortened_and_control_characters_escaped() {
    let text = format!("{}[[route]]\ndestination = '{}'\n", interface(), "\u{e4}.y".repeat(500));
    let found = problems(&text);
    let shown = found[0].value.as_deref().expect("shown");
    assert!(shown.chars().count() < 80 && shown.ends_with("…\""), "{shown}");
    let text = format!("{}[[route]]\ndestination = \"\\u001b[31m\"\n", interface());
    assert_eq!(problems(&text)[0].value.as_deref(), Some("\"\\u{1b}[31m\""));
}
