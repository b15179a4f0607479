use peer_core::desired::{Unsupported, UnsupportedKind};

use super::facts::{Device, Facts, Feature, Hook, Ipv6, Role};
use super::*;
use crate::chain::{Neighbour, Owner};
use crate::netfilter::ForwardChain;
use crate::tc::Filter;

fn hook(egress: bool, owners: Vec<Owner>) -> Hook {
    let neighbour = |(id, owner)| Neighbour { program: id, link: id + 100, owner };
    Hook {
        egress,
        chain: Ok((1..).zip(owners).map(neighbour).collect()),
        filters: Ok(Vec::new()),
        own_filter: None,
        pinned: true,
    }
}

fn device(name: &str, role: Role, hooks: Vec<Hook>) -> Device {
    Device {
        name: name.into(),
        role,
        mtu: if role == Role::Mesh { 1420 } else { 1500 },
        features: Ok([("rx-lro".into(), false), ("rx-gro-list".into(), false)].into()),
        rp_filter: Some(0),
        src_valid_mark: Some(false),
        forwarding4: Some(true),
        forwarding6: Some(true),
        force_forwarding6: None,
        keeps_sources: [true; 2],
        has_cilium_directory: false,
        hooks,
    }
}

/// A node as it should be.
fn good() -> Facts {
    let own = |egress| hook(egress, vec![Owner::Own]);
    let mut nothing = hook(true, Vec::new());
    nothing.pinned = false;
    let devices = vec![
        device("eth0", Role::Uplink, vec![own(false), nothing]),
        device("wt0", Role::Mesh, vec![own(false), own(true)]),
    ];
    Facts { devices, ..Facts::default() }
}

fn cilium(name: &str) -> Owner {
    Owner::Cilium(name.into())
}

fn filter(name: &str) -> Filter {
    Filter { priority: 1, handle: 1, kind: "bpf".into(), name: Some(name.into()), program: Some(4) }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(judge(&good()), []);
}

#[test]
fn cilium_behind_us_is_as_it_should_be() {
    let mut facts = good();
    facts.devices[0].hooks[0] = hook(false, vec![Owner::Own, cilium("cil_from_netdev")]);
    facts.devices[0].hooks[1].chain = hook(true, vec![cilium("cil_to_netdev")]).chain;
    assert_eq!(judge(&facts), []);
}

/// One change of a good node, and what must be found: check, severity, words of the text, of the owner and of the remedy.
type Case = (fn(&mut Facts), Check, Severity, &'static str, &'static str, &'static str);

#[track_caller]
fn table(cases: &[Case]) {
    for (change, check, severity, what, owner, remedy) in cases {
        let mut facts = good();
        change(&mut facts);
        let found = judge(&facts);
        let [finding] = found.as_slice() else { panic!("{what}: {found:#?}") };
        assert_eq!((finding.check, finding.severity), (*check, *severity), "{finding:?}");
        assert!(finding.what.contains(what), "{finding:?}");
        assert!(finding.owner.as_deref().unwrap_or_default().contains(owner), "{finding:?}");
        assert!(finding.remedy.contains(remedy), "{finding:?}");
    }
}

#[test]
fn order() {
    use Severity::{Problem, Unknown, Warning};
    table(&[
        (
            |facts| facts.devices[0].hooks[0] = hook(false, vec![cilium("cil_from_netdev"), Owner::Own]),
            Check::Order,
            Problem,
            "no packet reaches us",
            "Cilium (cil_from_netdev)",
            "goes ahead",
        ),
        (
            |facts| facts.devices[0].hooks[0] = hook(false, vec![Owner::Unknown(None), Owner::Own]),
            Check::Order,
            Warning,
            "only if it lets them pass",
            "unknown owner, id 1",
            "not fought",
        ),
        (
            |facts| facts.devices[0].hooks[0] = hook(false, vec![Owner::Unknown(Some("probe".into())), Owner::Own]),
            Check::Order,
            Warning,
            "program 1",
            "probe",
            "behind ours",
        ),
        (
            |facts| facts.devices[1].hooks[1] = hook(true, Vec::new()),
            Check::Order,
            Problem,
            "pinned for egress but not attached",
            "",
            "start it",
        ),
        (
            |facts| facts.devices[0].hooks[0].chain = Err("Operation not permitted".into()),
            Check::Order,
            Unknown,
            "not permitted",
            "",
            "CAP_NET_ADMIN",
        ),
        (
            |facts| {
                let hook = &mut facts.devices[0].hooks[0];
                hook.chain = Ok(Vec::new());
                hook.filters = Ok(vec![filter("cil_from_netdev-eth0"), filter("peer_uplink_in/wt0")]);
                hook.own_filter = Some(1);
            },
            Check::Order,
            Problem,
            "cil_from_netdev-eth0",
            "Cilium",
            "bpf-filter-priority",
        ),
        (
            |facts| {
                let twice = vec![Owner::Own, cilium("cil_from_netdev"), cilium("cil_from_netdev")];
                facts.devices[0].hooks[0] = hook(false, twice);
            },
            Check::StaleCilium,
            Warning,
            "2 times",
            "Cilium",
            "bpftool",
        ),
        (
            |facts| facts.devices[1].hooks[0] = hook(false, vec![Owner::Own, cilium("cil_from_netdev")]),
            Check::CiliumDevice,
            Warning,
            "cil_from_netdev at ingress",
            "Cilium",
            "devices=eth0",
        ),
        (
            |facts| facts.devices[1].hooks[0].filters = Ok(vec![filter("cil_from_netdev-wt0")]),
            Check::CiliumDevice,
            Warning,
            "filter cil_from_netdev-wt0",
            "Cilium",
            "devices=eth0",
        ),
        (
            |facts| facts.devices[1].has_cilium_directory = true,
            Check::CiliumDevice,
            Warning,
            "its directory of links",
            "Cilium",
            "forceDeviceDetection",
        ),
    ]);
}

#[test]
fn another_peer_on_the_node_is_no_conflict() {
    let mut facts = good();
    facts.devices[0].hooks[0] = hook(false, vec![Owner::Peer("wt1".into()), Owner::Own]);
    assert_eq!(judge(&facts), []);
}

#[test]
fn system() {
    use Severity::{Note, Problem, Unknown, Warning};
    const NEEDED: Feature = Feature { name: "bpf_loop", since: "5.17", instead: None };
    const USEFUL: Feature = Feature { name: "TCX", since: "6.6", instead: Some("clsact filters are used") };
    table(&[
        (|facts| facts.capabilities.bpf = false, Check::Capabilities, Problem, "CAP_BPF missing", "", "add BPF to"),
        (
            |facts| (facts.capabilities.bpf, facts.capabilities.net_admin) = (false, false),
            Check::Capabilities,
            Problem,
            "CAP_BPF and CAP_NET_ADMIN",
            "",
            "add BPF, NET_ADMIN to",
        ),
        (
            |facts| (facts.capabilities.bpf, facts.capabilities.withheld) = (false, true),
            Check::Capabilities,
            Problem,
            "CAP_BPF missing",
            "",
            "runAsUser: 0",
        ),
        (|facts| facts.capabilities.perfmon = false, Check::Capabilities, Note, "twice their cost", "", "PERFMON"),
        (|facts| facts.kernel = Some(vec![(NEEDED, Ok(false))]), Check::Kernel, Problem, "bpf_loop", "", "5.17"),
        (|facts| facts.kernel = Some(vec![(USEFUL, Ok(false))]), Check::Kernel, Warning, "clsact filters", "", ""),
        (|facts| facts.kernel = Some(vec![(NEEDED, Err("no".into()))]), Check::Kernel, Unknown, "bpf_loop: no", "", ""),
        (|facts| facts.bpffs.is_bpffs = Ok(false), Check::Bpffs, Warning, "no BPF file system", "", "mount -t bpf"),
        (|facts| facts.bpffs.is_bpffs = Err("none".into()), Check::Bpffs, Problem, "none", "", "hostPath"),
        (|facts| facts.bpffs.writable = Ok(false), Check::Bpffs, Problem, "cannot be written", "", "readOnly"),
        (|facts| facts.bpffs.propagated = Some(false), Check::Bpffs, Note, "private", "", ""),
        (|facts| facts.tun = Some(Err("Not permitted".into())), Check::Tun, Problem, "Not permitted", "", "CharDevice"),
        (|facts| facts.tun = Some(Ok(libc::IFF_MULTI_QUEUE)), Check::Tun, Problem, "vnet headers", "", "kernel"),
    ]);
    let mut facts = good();
    facts.tun = Some(Ok(libc::IFF_MULTI_QUEUE | libc::IFF_VNET_HDR));
    facts.kernel = Some(vec![(NEEDED, Ok(true)), (USEFUL, Ok(true))]);
    assert_eq!(judge(&facts), []);
}

#[test]
fn network() {
    use Severity::{Note, Problem, Unknown, Warning};
    table(&[
        (|facts| facts.nat_ports = 20480..=30000, Check::NatPorts, Warning, "NodePorts", "Kubernetes", "below 30000"),
        (
            |facts| facts.nat_bounds = vec!["redis-server (pid 7) has TCP port 15000".into()],
            Check::NatPorts,
            Note,
            "TCP port 15000",
            "",
            "--nat-ports",
        ),
        (
            |facts| facts.absent_sources = vec![std::net::Ipv4Addr::new(192, 0, 2, 1).into()],
            Check::NatAddresses,
            Warning,
            "no uplink has this address",
            "",
            "--nat-addresses",
        ),
        (|facts| facts.nat_ports = 62000..=63000, Check::NatPorts, Warning, "rewritten", "Cilium", "below 32768"),
        (
            |facts| facts.sysctls.local_ports = Some(1024..=21000),
            Check::NatPorts,
            Warning,
            "20480-21000",
            "ip_local_port_range",
            "ip_local_reserved_ports",
        ),
        (
            |facts| {
                facts.sysctls.local_ports = Some(1024..=65535);
                facts.sysctls.reserved_ports = vec![20480..=29998];
            },
            Check::NatPorts,
            Warning,
            "20480-29999",
            "ip_local_port_range",
            "",
        ),
        (|facts| facts.sysctls.writable = false, Check::ProcSys, Note, "IPv6 forwarding", "", ""),
        (
            |facts| facts.sysctls.src_valid_mark = Some(true),
            Check::SrcValidMark,
            Warning,
            "proxy",
            "NetBird",
            "all.src",
        ),
        (
            |facts| facts.devices[0].src_valid_mark = Some(true),
            Check::SrcValidMark,
            Warning,
            "proxy",
            "none of ours",
            "eth0.src_valid_mark=0",
        ),
        (|facts| facts.devices[0].rp_filter = Some(1), Check::RpFilter, Note, "strict", "", ""),
        (
            |facts| {
                facts.devices.push(device("eth1", Role::Uplink, Vec::new()));
                facts.devices[0].rp_filter = Some(1);
            },
            Check::RpFilter,
            Warning,
            "several uplinks",
            "",
            "eth0.rp_filter=2",
        ),
        (
            |facts| {
                facts.wants_v6 = true;
                facts.devices[1].forwarding6 = Some(false);
            },
            Check::Forwarding6,
            Note,
            "looked up for the route",
            "",
            "wt0.forwarding=1",
        ),
        (
            |facts| facts.devices[0].features = Ok([("rx-lro".into(), true)].into()),
            Check::Offloads,
            Warning,
            "lro is on",
            "",
            "ethtool -K eth0 lro off",
        ),
        (
            |facts| facts.devices[0].features = Ok([("rx-gro-list".into(), true)].into()),
            Check::Offloads,
            Warning,
            "rx-gro-list is on",
            "",
            "rx-gro-list off",
        ),
        (
            |facts| facts.devices[1].features = Ok([("tx-udp-segmentation".into(), false)].into()),
            Check::Kernel,
            Note,
            "packet by packet",
            "",
            "",
        ),
        (|facts| facts.devices[0].features = Err("no".into()), Check::Offloads, Unknown, "no", "", ""),
        (|facts| facts.devices[0].mtu = 1499, Check::Mtu, Warning, "1420", "", "1419"),
        (|facts| facts.absent = vec!["eth7".into()], Check::Uplinks, Problem, "no such device", "", "appears"),
        (
            |facts| facts.unserved = vec![("10.0.0.0/8".into(), "eth1 belongs to bond0".into())],
            Check::Uplinks,
            Problem,
            "belongs to bond0",
            "",
            "uplink",
        ),
        (
            |facts| facts.busy_port = Some((51820, Some("wg (pid 7)".into()))),
            Check::UdpPort,
            Problem,
            "",
            "wg (pid 7)",
            "stop",
        ),
        (|facts| facts.busy_port = Some((51820, None)), Check::UdpPort, Problem, "", "ss -lunp", "listen_port"),
    ]);
}

#[test]
fn remedies_name_what_the_node_is_configured_by() {
    let mut facts = good();
    facts.unserved = vec![("10.222.0.0/24".into(), "no device leads there".into())];
    facts.busy_port = Some((51820, None));
    facts.devices[0].mtu = 1280;
    let remedies =
        |facts: &Facts| judge(facts).iter().map(|finding| finding.remedy.clone()).collect::<Vec<_>>().join("|");
    let file = remedies(&facts);
    assert!(["`uplink`", "`listen_port`", "`mtu`"].iter().all(|word| file.contains(word)), "{file}");
    facts.configuration = Configuration::NetBird;
    let netbird = remedies(&facts);
    assert!(["dashboard", "NB_WIREGUARD_PORT", "NB_MTU"].iter().all(|word| netbird.contains(word)), "{netbird}");
    assert!(!netbird.contains('`'), "{netbird}");
}

#[test]
fn reserved_nat_ports_are_no_conflict() {
    let mut facts = good();
    facts.sysctls.local_ports = Some(1024..=65535);
    facts.sysctls.reserved_ports = vec![20480..=25000, 25001..=29999];
    assert_eq!(judge(&facts), []);
}

#[test]
fn the_worst_comes_first() {
    let mut facts = good();
    facts.capabilities.perfmon = false;
    facts.nat_ports = 20480..=30000;
    facts.bpffs.writable = Ok(false);
    let severities: Vec<_> = judge(&facts).iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Problem, Severity::Warning, Severity::Note]);
}

#[test]
fn every_check_has_a_name_of_its_own() {
    let mut names: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Check::ALL.len());
}

fn addresses(all: &[&str]) -> Vec<std::net::IpAddr> {
    all.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn what_is_not_served_names_the_route_and_what_members_see() {
    let unsupported =
        |kind, detail: &str| vec![Unsupported { kind, name: "office".to_owned(), detail: detail.to_owned() }];
    let cases = [
        (UnsupportedKind::ExitNode, "0.0.0.0/0", "lose their Internet", "official clients"),
        (UnsupportedKind::DomainRoute, "svc.test", "do not reach it", "by its prefix"),
        (UnsupportedKind::Forwarding, "2", "2 of its rules", "official clients"),
    ];
    for (kind, detail, what, remedy) in cases {
        let found = judge(&Facts { unsupported: unsupported(kind, detail), ..good() });
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!((finding.check, finding.severity), (Check::Unsupported, Severity::Warning));
        assert_eq!(finding.subject.as_deref(), Some("office"));
        assert!(finding.what.contains(detail) && finding.what.contains(what), "{}", finding.what);
        assert!(finding.remedy.contains(remedy), "{}", finding.remedy);
    }
}

#[test]
fn an_address_that_the_kernel_refuses_names_the_switches() {
    const NETBIRD: &str = "NB_DISABLE_IPV6=true";
    table(&[
        (
            |facts| (facts.absent_addresses, facts.ipv6) = (addresses(&["fd64::1"]), Ipv6::Off),
            Check::MeshAddresses,
            Severity::Warning,
            "IPv6 is off: fd64::1 is left out",
            "net.ipv6.conf.wt0.disable_ipv6",
            "sysctl -w net.ipv6.conf.wt0.disable_ipv6=0",
        ),
        (
            |facts| (facts.absent_addresses, facts.ipv6) = (addresses(&["fd64::1"]), Ipv6::Off),
            Check::MeshAddresses,
            Severity::Warning,
            "IPv4 only",
            "",
            NETBIRD,
        ),
        (
            |facts| (facts.absent_addresses, facts.ipv6) = (addresses(&["fd64::1"]), Ipv6::Absent),
            Check::MeshAddresses,
            Severity::Warning,
            "IPv6 is off",
            "ipv6.disable=1",
            NETBIRD,
        ),
        (
            |facts| (facts.absent_addresses, facts.ipv6) = (addresses(&["100.64.0.1"]), Ipv6::Off),
            Check::MeshAddresses,
            Severity::Problem,
            "the address 100.64.0.1 is missing",
            "",
            "its log",
        ),
    ]);
    let off = Facts { ipv6: Ipv6::Off, ..good() };
    assert_eq!(judge(&off), [], "where no IPv6 is wanted nothing is wrong");
}

fn closed(family: &'static str, has_rules: bool) -> ForwardChain {
    ForwardChain { family, table: "filter".into(), name: "FORWARD".into(), has_rules }
}

#[test]
fn what_the_lan_opens_and_nobody_forwards_is_noted_on_routes_that_keep_sources() {
    use Severity::Note;
    table(&[
        (
            |facts| facts.devices[0].forwarding4 = Some(false),
            Check::Forwarding,
            Note,
            "net.ipv4.conf.eth0.forwarding is 0: what hosts of the LAN open towards members over IPv4 is not forwarded",
            "",
            "sysctl -w net.ipv4.conf.eth0.forwarding=1",
        ),
        (
            |facts| facts.sysctls.forwarding6 = Some(false),
            Check::Forwarding,
            Note,
            "net.ipv6.conf.all.forwarding is 0",
            "",
            "force_forwarding=1",
        ),
        (
            |facts| facts.closed_chains = Ok(vec![closed("ip", false)]),
            Check::Forwarding,
            Note,
            "ip filter FORWARD drops all that is forwarded: what hosts of the LAN open towards members over IPv4",
            "a firewall",
            "nft 'add rule ip filter FORWARD iifname { eth0, wt0 } oifname { eth0, wt0 } accept'",
        ),
        (
            |facts| facts.closed_chains = Ok(vec![closed("ip6", true)]),
            Check::Forwarding,
            Note,
            "drops what none of its rules accepts",
            "a firewall",
            "nft 'add rule ip6",
        ),
    ]);
}

#[test]
fn forwarding_is_nobody_s_business_where_no_route_keeps_sources() {
    let mut facts = good();
    facts.devices[0].keeps_sources = [false; 2];
    facts.devices[0].forwarding4 = Some(false);
    facts.sysctls.forwarding6 = Some(false);
    facts.closed_chains = Ok(vec![closed("inet", false)]);
    assert_eq!(judge(&facts), []);
    // One device alone may forward IPv6.
    let mut facts = good();
    facts.sysctls.forwarding6 = Some(false);
    facts.devices[0].force_forwarding6 = Some(true);
    assert_eq!(judge(&facts), []);
    facts.closed_chains = Ok(vec![closed("inet", false)]);
    assert_eq!(judge(&facts).len(), 2, "one for each family");
}
