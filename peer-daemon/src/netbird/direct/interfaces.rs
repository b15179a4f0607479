//! Which addresses of the node peers may reach it at.
//!
//! A node with pods has hundreds of devices, and nearly none of them leads to a peer. So devices are let in, not left out:
//! those by which the node's own routes lead to the internet through a gateway, or to the servers that it talks to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use peer_dataplane::kernel::{Link, Questions, Snapshot};
use peer_ice::ExternalIp;

/// Any address of the internet: routes to it are asked for, nothing is sent.
const SOMEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111))];

/// Names of devices that container networks, bridges and other tunnels have, by their beginnings.
const NEVER: [&str; 18] = [
    "cilium",
    "lxc",
    "veth",
    "cali",
    "flannel",
    "cni",
    "docker",
    "br-",
    "virbr",
    "kube",
    "nodelocaldns",
    "tunl",
    "vxlan",
    "wg",
    "wt",
    "utun",
    "tailscale",
    "zt",
];

/// How devices are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Choice {
    /// These and no others; empty: by the node's routes.
    pub(in super::super) only: Vec<String>,
    /// Never those whose names begin so.
    pub(in super::super) never: Vec<String>,
    /// Public addresses that a router forwards to the node.
    pub(in super::super) external: Vec<External>,
}

/// A public address and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct External {
    pub(in super::super) external: IpAddr,
    pub(in super::super) leads_to: LeadsTo,
}

/// What a public address leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum LeadsTo {
    /// Whichever address of its family.
    Any,
    /// This address.
    Address(IpAddr),
    /// The addresses of this device.
    Device(String),
}

/// Where peers may reach the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Candidates {
    /// Addresses of its own, IPv4 first.
    pub(in super::super) hosts: Vec<IpAddr>,
    /// Public addresses that lead to some of them.
    pub(in super::super) external: Vec<ExternalIp>,
}

/// What is asked of the kernel to choose. `servers`: those that the daemon talks to.
pub(in super::super) fn questions(servers: &[IpAddr]) -> Questions {
    let destinations = SOMEWHERE.iter().chain(servers).copied().collect();
    Questions { destinations, ..Questions::default() }
}

/// Where peers may reach the node; `mesh_device` does not lead there.
pub(in super::super) fn candidates(snapshot: &Snapshot, choice: &Choice, mesh_device: &str) -> Candidates {
    let hosts = hosts(snapshot, choice, mesh_device);
    let mut external = Vec::new();
    for External { external: public, leads_to } in &choice.external {
        let lead = |internal| ExternalIp { external: *public, internal };
        match leads_to {
            LeadsTo::Any => external.push(lead(None)),
            LeadsTo::Address(address) => external.push(lead(Some(*address))),
            LeadsTo::Device(name) => {
                let addresses = snapshot.link_named(name).into_iter().flat_map(|(_, link)| &link.addresses);
                let addresses = addresses.map(|address| address.net.addr());
                let same_family = |address: &IpAddr| address.is_ipv4() == public.is_ipv4();
                external.extend(addresses.filter(same_family).map(|address| lead(Some(address))));
            }
        }
    }
    Candidates { hosts, external }
}

fn hosts(snapshot: &Snapshot, choice: &Choice, mesh_device: &str) -> Vec<IpAddr> {
    let mut chosen: Vec<u32> = if choice.only.is_empty() {
        let ways = snapshot.ways.iter().flat_map(|(destination, ways)| ways.iter().map(move |way| (destination, way)));
        let leads = ways.filter(|(destination, way)| way.gateway.is_some() || !SOMEWHERE.contains(destination));
        leads.map(|(_, way)| way.link).collect()
    } else {
        let named = |link: &Link| choice.only.contains(&link.name);
        snapshot.links.iter().filter(|(_, link)| named(link)).map(|(index, _)| *index).collect()
    };
    chosen.sort_unstable();
    chosen.dedup();
    let links = chosen.iter().filter_map(|index| snapshot.links.get(index));
    let allowed = |link: &&Link| {
        let begins = |prefix: &str| !prefix.is_empty() && link.name.starts_with(prefix);
        let by_name = choice.only.is_empty() && NEVER.iter().any(|prefix| begins(prefix));
        let excluded = by_name || choice.never.iter().any(|prefix| begins(prefix));
        link.running && !link.loopback && link.name != mesh_device && !excluded
    };
    let usable = links.filter(allowed).flat_map(|link| &link.addresses).filter(|address| address.usable);
    let mut addresses: Vec<IpAddr> = usable.map(|address| address.net.addr()).filter(|addr| !is_local(*addr)).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses
}

fn is_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local() || addr.is_loopback(),
        IpAddr::V6(addr) => addr.is_unicast_link_local() || addr.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use peer_dataplane::kernel::{Address, Way};

    use super::*;

    fn link(name: &str, nets: &[(&str, bool)]) -> Link {
        let address = |(net, usable): &(&str, bool)| Address { net: net.parse().expect("a prefix"), usable: *usable };
        Link {
            name: name.to_owned(),
            loopback: name == "lo",
            up: true,
            running: true,
            addresses: nets.iter().map(address).collect(),
            ..Link::default()
        }
    }

    fn way(link: u32, gateway: Option<&str>) -> Vec<Way> {
        vec![Way { link, gateway: gateway.map(|gateway| gateway.parse().expect("an address")), source: None }]
    }

    fn snapshot() -> Snapshot {
        let links = [
            (1, link("lo", &[("127.0.0.1/8", true), ("10.0.0.53/32", true)])),
            (2, link("eth0", &[("192.0.2.7/24", true), ("2001:db8::7/64", true), ("2001:db8::beef/64", false)])),
            (3, link("cilium_host", &[("10.0.1.1/32", true)])),
            (4, link("eth1", &[("10.20.0.7/24", true), ("fe80::1/64", true)])),
            (5, link("wt0", &[("100.64.0.7/16", true)])),
            (6, link("eth2", &[("10.30.0.7/24", true)])),
        ];
        let server: IpAddr = "10.20.0.1".parse().expect("an address");
        let pod: IpAddr = "10.0.1.9".parse().expect("an address");
        let ways = [
            (SOMEWHERE[0], way(2, Some("192.0.2.1"))),
            (SOMEWHERE[1], way(2, Some("fe80::1"))),
            (server, way(4, None)),
            (pod, way(3, None)),
        ];
        Snapshot { links: links.into(), ways: ways.into(), ..Snapshot::default() }
    }

    fn chosen(choice: &Choice) -> Vec<String> {
        candidates(&snapshot(), choice, "wt0").hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn devices_that_lead_out_and_to_servers_are_let_in() {
        assert_eq!(chosen(&Choice::default()), ["192.0.2.7", "10.20.0.7", "2001:db8::7"]);
    }

    #[test]
    fn a_default_route_without_a_gateway_is_a_tunnel_and_leads_to_no_peer() {
        let mut snapshot = snapshot();
        snapshot.ways.insert(SOMEWHERE[0], way(6, None));
        snapshot.ways.insert(SOMEWHERE[1], way(6, None));
        let chosen = candidates(&snapshot, &Choice::default(), "wt0").hosts;
        assert_eq!(chosen, ["10.20.0.7".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn named_devices_are_all_there_are_and_never_the_mesh_device() {
        let only =
            |names: &[&str]| Choice { only: names.iter().map(ToString::to_string).collect(), ..Choice::default() };
        assert_eq!(chosen(&only(&["eth2"])), ["10.30.0.7"]);
        assert_eq!(chosen(&only(&["eth2", "cilium_host"])), ["10.0.1.1", "10.30.0.7"], "who names one means it");
        assert!(chosen(&only(&["wt0"])).is_empty());
        let never = Choice { never: vec!["eth0".to_owned(), String::new()], ..Choice::default() };
        assert_eq!(chosen(&never), ["10.20.0.7"]);
    }

    #[test]
    fn a_device_without_carrier_is_left_out() {
        let mut snapshot = snapshot();
        snapshot.links.get_mut(&2).expect("a device").running = false;
        assert_eq!(candidates(&snapshot, &Choice::default(), "wt0").hosts.len(), 1);
    }

    #[test]
    fn public_addresses_lead_to_any_to_one_or_to_those_of_a_device() {
        let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let external = |public: &str, leads_to| External { external: address(public), leads_to };
        let choice = Choice {
            external: vec![
                external("203.0.113.7", LeadsTo::Any),
                external("203.0.113.8", LeadsTo::Address(address("192.0.2.7"))),
                external("203.0.113.9", LeadsTo::Device("eth1".to_owned())),
                external("203.0.113.10", LeadsTo::Device("gone".to_owned())),
            ],
            ..Choice::default()
        };
        let leads = candidates(&snapshot(), &choice, "wt0").external;
        let expected = [("203.0.113.7", None), ("203.0.113.8", Some("192.0.2.7")), ("203.0.113.9", Some("10.20.0.7"))];
        let expected = expected
            .map(|(public, internal)| ExternalIp { external: address(public), internal: internal.map(address) });
        assert_eq!(leads, expected);
    }
}
