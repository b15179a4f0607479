//! What hosts of the LAN open towards members, on routes that keep sources.

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{PATIENCE, SECOND, becomes, page};
use peer_tests::lab::{Binaries, GATEWAY, GATEWAY6, Lab, Plan, Udp, add_address, sysctl, wait_for};

/// A lab whose routes keep sources, and whose LAN knows the way to the members.
fn keeping_sources() -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.config.routes.iter_mut().for_each(|route| route.masquerade = false);
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        sysctl(&lab.node.namespace, key, "1").expect("sysctl");
    }
    // The kernel takes addresses of routers that it has learned away when it becomes one itself.
    let _ = add_address(&lab.node.namespace, "eth0", peer_tests::lab::NODE_LAN6, 64);
    lab.up().expect("up");
    for (net, by) in [("100.64.0.0/16", "198.51.100.1"), ("fd00:64::/64", "2001:db8:2::1")] {
        lab.gateway.namespace.exec("ip", &["route", "replace", net, "via", by]).expect("ip");
    }
    // A member that has never spoken has no session.
    page(lab.client(), GATEWAY);
    lab
}

/// Whether a datagram of a host of the LAN reaches the member, unasked, and the answer the host.
fn reaches(lab: &Lab, host: IpAddr, port: u16) -> bool {
    let member = if host.is_ipv4() { lab.client().overlay() } else { lab.client().overlay6() };
    let there = Udp::bind(&lab.client().namespace, member, port).expect("socket");
    let host = Udp::bind(&lab.gateway.namespace, host, port).expect("socket");
    host.send_to(b"from the LAN", SocketAddr::new(member, port)).expect("send");
    let Ok(Some((_, from))) = there.receive(SECOND) else { return false };
    there.send_to(b"answer", from).expect("send");
    matches!(host.receive(SECOND), Ok(Some((content, _))) if content == b"answer")
}

/// Notes of the check, without those of the other family.
fn notes(lab: &Lab, family: &str) -> Vec<String> {
    let report = lab.node.doctor().expect("doctor");
    let findings = report["findings"].as_array().expect("findings").iter();
    let of_check = findings.filter(|finding| finding["check"] == "forwarding" && finding["severity"] == "note");
    of_check.map(ToString::to_string).filter(|text| text.contains(&format!("over {family}"))).collect()
}

#[test]
fn doctor_says_whether_the_kernel_forwards_what_the_lan_opens() {
    for (host, family, off, table) in [
        (GATEWAY, "IPv4", "net/ipv4/conf/eth0/forwarding", "ip"),
        (GATEWAY6, "IPv6", "net/ipv6/conf/all/forwarding", "ip6"),
    ] {
        let lab = keeping_sources();
        let node = &lab.node.namespace;
        assert!(wait_for(PATIENCE, || reaches(&lab, host, 7801)), "{family}: the kernel forwards it");
        assert_eq!(notes(&lab, family), Vec::<String>::new());
        sysctl(node, off, "0").expect("sysctl");
        assert!(!reaches(&lab, host, 7802), "{family}: nobody does");
        let found = notes(&lab, family);
        let named = off.replace('/', ".");
        assert!(found.len() == 1 && found[0].contains(&named) && found[0].contains("-w net."), "{found:?}");
        sysctl(node, off, "1").expect("sysctl");
        becomes(0, || notes(&lab, family).len());
        let chain = format!("add chain {table} guard forward {{ type filter hook forward priority 0; policy drop; }}");
        node.exec("nft", &[&format!("add table {table} guard; {chain}")]).expect("nft");
        assert!(!reaches(&lab, host, 7803), "{family}: a closed chain");
        let found = notes(&lab, family);
        let rule = format!("{table} guard forward iifname {{ eth0, wt0 }} oifname {{ eth0, wt0 }} accept");
        assert!(found.len() == 1 && found[0].contains("drops all that is forwarded"), "{found:?}");
        assert!(found[0].contains(&format!("nft 'add rule {rule}'")), "{found:?}");
        // Its remedy helps.
        node.exec("nft", &[&format!("add rule {rule}")]).expect("nft");
        assert!(wait_for(PATIENCE, || reaches(&lab, host, 7804)), "{family}: the rule lets it pass");
        assert!(notes(&lab, family)[0].contains("unless one does"), "{family}");
    }
}
