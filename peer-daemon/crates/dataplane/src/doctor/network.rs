//! Checks of ports, settings and devices.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use peer_core::desired::{Unsupported, UnsupportedKind};

use super::facts::{Device, Facts, Ipv6, Role};
use super::{Check, Finding, Severity, forwarding};

/// Kubernetes' default.
const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;
/// Where what Cilium tracks and rewrites begins, by default.
const CILIUM_FIRST: u16 = 32768;
/// What WireGuard adds to a packet, with an IPv6 header outside.
const OVERHEAD: u32 = 80;

pub(super) fn check(facts: &Facts, found: &mut Vec<Finding>) {
    check_ports(facts, found);
    check_unsupported(facts, found);
    check_settings(facts, found);
    for device in facts.devices.iter().filter(|device| device.role == Role::Uplink) {
        check_uplink(device, facts, found);
        forwarding::check(device, facts, found);
    }
    for device in facts.devices.iter().filter(|device| device.role == Role::Mesh) {
        check_mesh(device, found);
        check_addresses(device, facts, found);
    }
    for name in &facts.absent {
        let finding = Finding::new(Check::Uplinks, Severity::Problem, "there is no such device").about(name);
        found.push(finding.remedy("correct the name, or wait for the device: it is taken as soon as it appears"));
    }
    for (route, why) in &facts.unserved {
        let finding = Finding::new(Check::Uplinks, Severity::Problem, format!("the route is not served: {why}"));
        let remedy = facts.configuration.choose(
            "bring its uplink up, name one that leads there (`uplink`), or give the node a route",
            "bring its uplink up, name one that leads there (NB_UPLINKS), give the node a route to it, or let another router serve this network (dashboard: Networks)",
        );
        found.push(finding.about(route).remedy(remedy));
    }
    if let Some((port, owner)) = &facts.busy_port {
        let finding = Finding::new(Check::UdpPort, Severity::Problem, "another process has the listening port");
        let owner = owner.clone().unwrap_or_else(|| format!("unknown; `ss -lunp 'sport = :{port}'` as root names it"));
        let remedy = facts.configuration.choose(
            "stop that process, or set another `listen_port`",
            "stop that process, or set another NB_WIREGUARD_PORT",
        );
        found.push(finding.about(format!("UDP port {port}")).by(owner).remedy(remedy));
    }
}

fn check_ports(facts: &Facts, found: &mut Vec<Finding>) {
    let ports = &facts.nat_ports;
    let subject = format!("{}-{}", ports.start(), ports.end());
    for bound in &facts.nat_bounds {
        let finding = Finding::new(Check::NatPorts, Severity::Note, bound.clone()).about(&subject);
        found.push(finding.remedy("none needed; --nat-ports sets another range"));
    }
    for source in &facts.absent_sources {
        let what = "no uplink has this address: it is not used for source NAT";
        let finding = Finding::new(Check::NatAddresses, Severity::Warning, what).about(source.to_string());
        found.push(finding.remedy("add it to an uplink, or take it out of --nat-addresses"));
    }
    let mut conflict = |what: String, owner: &str, remedy: String| {
        let finding = Finding::new(Check::NatPorts, Severity::Warning, what);
        found.push(finding.about(&subject).by(owner).remedy(remedy));
    };
    if overlap(ports, &NODE_PORTS).is_some() {
        conflict(
            "the NAT ports overlap the default NodePorts 30000-32767: a NodePort loses its packets to us, or we to it"
                .into(),
            "Kubernetes",
            "choose --nat-ports below 30000, or move the cluster's --service-node-port-range".into(),
        );
    }
    if *ports.end() >= CILIUM_FIRST {
        conflict(
            format!("NAT ports from {CILIUM_FIRST} on are tracked by Cilium, and rewritten when a pod has the same"),
            "Cilium",
            format!("choose --nat-ports below {CILIUM_FIRST}"),
        );
    }
    let sysctls = &facts.sysctls;
    if let Some(common) = sysctls.local_ports.as_ref().and_then(|local| overlap(ports, local)) {
        let reserved = |port: &u16| sysctls.reserved_ports.iter().any(|range| range.contains(port));
        if !common.clone().all(|port| reserved(&port)) {
            let (first, last) = (common.start(), common.end());
            conflict(
                format!(
                    "the node's own connections may take the NAT ports {first}-{last}: one with the same remote end loses its replies"
                ),
                "net.ipv4.ip_local_port_range",
                format!("choose --nat-ports outside of it, or add {first}-{last} to net.ipv4.ip_local_reserved_ports"),
            );
        }
    }
}

/// What members see of it depends on what it is.
fn check_unsupported(facts: &Facts, found: &mut Vec<Finding>) {
    for Unsupported { kind, name, detail } in &facts.unsupported {
        let (what, remedy) = match kind {
            UnsupportedKind::ExitNode => (
                format!(
                    "no exit node is served yet ({detail}): members that select it lose their Internet, also where an \
                         official client serves it beside this peer"
                ),
                "leave the exit node to official clients: take this peer out of its routing peers, see docs/migration.md",
            ),
            UnsupportedKind::DomainRoute => (
                format!(
                    "no network by domain is served yet ({detail}): members that choose this peer for it do not reach it"
                ),
                "leave it to official clients: take this peer out of its routing peers, or name the network by its prefix",
            ),
            UnsupportedKind::Forwarding => (
                format!("no ingress forwarding yet: {detail} of its rules are without effect, and their ports closed"),
                "leave ingress ports to official clients",
            ),
        };
        let finding = Finding::new(Check::Unsupported, Severity::Warning, what).remedy(remedy);
        found.push(if name.is_empty() { finding } else { finding.about(name) });
    }
}

fn check_settings(facts: &Facts, found: &mut Vec<Finding>) {
    let sysctls = &facts.sysctls;
    if !sysctls.writable {
        let what = "/proc/sys cannot be written: nothing here needs it but IPv6 forwarding on the mesh device";
        found.push(Finding::new(Check::ProcSys, Severity::Note, what).about("/proc/sys"));
    }
    let marked = facts.devices.iter().filter(|device| device.src_valid_mark == Some(true));
    let mut named: Vec<String> = marked.map(|device| device.name.clone()).collect();
    if sysctls.src_valid_mark == Some(true) {
        named = vec!["all".to_owned()];
    }
    for name in named {
        let what =
            "src_valid_mark is on: packets that Cilium marks for its proxy fail the source check, even those of others";
        let finding = Finding::new(Check::SrcValidMark, Severity::Warning, what);
        let remedy = format!("sysctl -w net.ipv4.conf.{name}.src_valid_mark=0, and stop whatever sets it");
        found.push(
            finding.about(name).by("none of ours; VPN clients such as NetBird's and wg-quick set it").remedy(remedy),
        );
    }
    let strict = |device: &&Device| device.rp_filter.unwrap_or(0).max(sysctls.rp_filter.unwrap_or(0)) == 1;
    let uplinks = || facts.devices.iter().filter(|device| device.role == Role::Uplink);
    let many = uplinks().count() > 1;
    for device in uplinks().filter(strict) {
        let (severity, what, remedy) = if many {
            let what = "rp_filter is strict and there are several uplinks: what arrives by another one than replies would \
                        leave by, and is not a flow of ours, is dropped";
            (Severity::Warning, what, format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", device.name))
        } else {
            (Severity::Note, "rp_filter is strict: flows of ours do not pass it, other traffic does", String::new())
        };
        found.push(Finding::new(Check::RpFilter, severity, what).about(&device.name).remedy(remedy));
    }
    let mesh = facts.devices.iter().find(|device| device.role == Role::Mesh);
    if let Some(device) = mesh.filter(|device| facts.wants_v6 && device.forwarding6 == Some(false)) {
        let what = "IPv6 forwarding is off: the kernel does not answer route lookups for each packet, so IPv6 goes by the \
                    uplink that the daemon has looked up for the route";
        let finding = Finding::new(Check::Forwarding6, Severity::Note, what).about(&device.name);
        let remedy = format!("only with several IPv6 uplinks: sysctl -w net.ipv6.conf.{}.forwarding=1", device.name);
        found.push(finding.remedy(remedy));
    }
}

/// What the kernel leaves to us on the mesh device, which costs time.
fn check_mesh(device: &Device, found: &mut Vec<Finding>) {
    let features = device.features.as_ref();
    if features.is_ok_and(|features| features.get("tx-udp-segmentation") == Some(&false)) {
        let what =
            "no UDP segmentation on it (USO, Linux 6.2, while the daemon runs): UDP goes through it packet by packet";
        found.push(Finding::new(Check::Kernel, Severity::Note, what).about(&device.name));
    }
}

/// Addresses that the kernel has refused or somebody has taken away.
fn check_addresses(device: &Device, facts: &Facts, found: &mut Vec<Finding>) {
    let name = &device.name;
    let is_off = |address: &&IpAddr| address.is_ipv6() && facts.ipv6 != Ipv6::On;
    let (off, absent): (Vec<&IpAddr>, Vec<&IpAddr>) = facts.absent_addresses.iter().partition(is_off);
    if !off.is_empty() {
        let addresses: Vec<_> = off.iter().map(ToString::to_string).collect();
        let what =
            format!("IPv6 is off: {} is left out, and the mesh has IPv4 only on this node", addresses.join(", "));
        let without = "to do without it: NB_DISABLE_IPV6=true in a NetBird network, no IPv6 `addresses` in a file";
        let (owner, remedy) = match facts.ipv6 {
            Ipv6::Absent => ("the kernel, which has no IPv6 (ipv6.disable=1)".to_owned(), without.to_owned()),
            _ => {
                let sysctl = |device: &str| format!("net.ipv6.conf.{device}.disable_ipv6");
                let remedy = format!(
                    "sysctl -w {}=0 and, for a device that is made anew, {}=0: the next look adds the address; {without}",
                    sysctl(name),
                    sysctl("default")
                );
                (format!("the sysctl {}", sysctl(name)), remedy)
            }
        };
        let finding = Finding::new(Check::MeshAddresses, Severity::Warning, what);
        found.push(finding.about(name).by(owner).remedy(remedy));
    }
    for address in absent {
        let what = format!("the address {address} is missing: members do not reach the node by it");
        let finding = Finding::new(Check::MeshAddresses, Severity::Problem, what);
        let remedy = "the peer puts it back every 10 s: its log has the kernel's answer, or stop what takes it away";
        found.push(finding.about(name).remedy(remedy));
    }
}

fn check_uplink(device: &Device, facts: &Facts, found: &mut Vec<Finding>) {
    let name = &device.name;
    match &device.features {
        Err(why) => {
            let what = format!("its offloads: {why}");
            found.push(Finding::new(Check::Offloads, Severity::Unknown, what).about(name));
        }
        Ok(features) => {
            for (feature, option, why) in [
                ("rx-lro", "lro", "it merges packets in a way that cannot be forwarded"),
                ("rx-gro-list", "rx-gro-list", "it builds packets that lose their headers when they are redirected"),
            ] {
                if features.get(feature) == Some(&true) {
                    let finding = Finding::new(Check::Offloads, Severity::Warning, format!("{option} is on: {why}"));
                    found.push(finding.about(name).remedy(format!("ethtool -K {name} {option} off")));
                }
            }
        }
    }
    let mesh = facts.devices.iter().find(|device| device.role == Role::Mesh);
    if let Some(mesh) = mesh.filter(|mesh| mesh.mtu + OVERHEAD > device.mtu) {
        let most = device.mtu.saturating_sub(OVERHEAD);
        let what = format!(
            "the MTU of {} is {}, that of the uplink {}: encrypted packets of full size are fragmented outside",
            mesh.name, mesh.mtu, device.mtu
        );
        let finding = Finding::new(Check::Mtu, Severity::Warning, what).about(name);
        let mtu = facts.configuration.choose("`mtu`", "NB_MTU");
        found.push(finding.remedy(format!("set {mtu} to {most} at most, if peers are reached by this uplink")));
    }
}

fn overlap(one: &RangeInclusive<u16>, other: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let (first, last) = (*one.start().max(other.start()), *one.end().min(other.end()));
    (first <= last).then_some(first..=last)
}
