//! Why a packet is dropped, where, and what to do about it.

use peer_common::DropReason;

use crate::Configuration;

/// What a packet goes through, in the order of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The programs' own configuration.
    Configuration,
    /// Headers are read.
    Parse,
    /// The flow of the packet is looked up.
    Flow,
    /// The source must belong to a peer.
    Source,
    /// The destination must not be one that is always denied.
    Destination,
    /// A route must cover the destination.
    Route,
    /// Rules are asked.
    Policy,
    /// The peer may have one flow more.
    Quota,
    /// The kernel names the device and the next hop.
    Uplink,
    /// The source is replaced, or replaced back.
    Nat,
    /// The flow is written to the table.
    Table,
    /// A hop must be left.
    HopLimit,
    /// The packet must fit.
    Mtu,
    /// The packet is changed and sent.
    Send,
}

/// What is said of a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Where it happens.
    pub stage: Stage,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Self; 14] = [
        Self::Configuration,
        Self::Parse,
        Self::Flow,
        Self::Source,
        Self::Destination,
        Self::Route,
        Self::Policy,
        Self::Quota,
        Self::Uplink,
        Self::Nat,
        Self::Table,
        Self::HopLimit,
        Self::Mtu,
        Self::Send,
    ];

    /// Name for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Parse => "parse",
            Self::Flow => "flow",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Route => "route",
            Self::Policy => "policy",
            Self::Quota => "quota",
            Self::Uplink => "uplink",
            Self::Nat => "nat",
            Self::Table => "table",
            Self::HopLimit => "hop_limit",
            Self::Mtu => "mtu",
            Self::Send => "send",
        }
    }
}

/// Explains a drop.
#[must_use]
pub const fn explain(reason: DropReason) -> Explanation {
    use DropReason as R;
    let (stage, remedy) = match reason {
        R::Malformed => {
            (Stage::Parse, "look at the sender: the packet is shorter than its headers say, or no IP at all")
        }
        R::IpOptions => (Stage::Parse, "let the sender leave IP options out: with them no port can be trusted"),
        R::ExtensionHeader => {
            (Stage::Parse, "let the sender leave IPv6 extension headers out: only a fragment header is followed")
        }
        R::Fragment => (
            Stage::Parse,
            "send fragments in order and within 15 seconds, or avoid them: a smaller MTU or path MTU discovery",
        ),
        R::Protocol => (
            Stage::Parse,
            "carry it inside of TCP or UDP, or let it end at the node, where rules for all ports permit it",
        ),
        R::IcmpType => {
            (Stage::Parse, "only echo requests open a flow: ask the host by another way than this ICMP message")
        }
        R::IcmpUnmatched => (
            Stage::Flow,
            "none, if the flow has ended meanwhile; else look at who sends errors about packets of others",
        ),
        R::ForeignSource => (
            Stage::Source,
            "add the address to the peer's allowed_ips, or let the peer send from the address that it was given",
        ),
        R::Multicast => (Stage::Destination, "send to one address: neither multicast nor broadcast is forwarded"),
        R::DeniedDestination => (
            Stage::Destination,
            "if it is meant, add a route for exactly this address (/32 or /128): a wider one does not open it",
        ),
        R::NoRoute => (Stage::Route, "add a [[route]] that covers the destination"),
        R::PolicyDefault => {
            (Stage::Policy, "add a [[rule]] that accepts this source, destination, protocol and port: no rule does")
        }
        R::PolicyRule => (Stage::Policy, "narrow or remove the rule that drops it: drop beats accept, in any order"),
        R::Unreachable => {
            (Stage::Uplink, "look at `ip route get` for the destination: the node has no route to it, or a blackhole")
        }
        R::HostUnreachable => {
            (Stage::Uplink, "look whether the host is up: it answers no request for its link address (`ip neighbour`)")
        }
        R::NotUplink => (
            Stage::Uplink,
            "let the node's route leave by an Ethernet device, name the device in the route's uplink, or see `doctor`",
        ),
        R::SourceChanged => (
            Stage::Nat,
            "send again: the flow was forgotten with its old address or way, and the next packet opens it anew",
        ),
        R::NoSourceAddress => (
            Stage::Nat,
            "give the uplink an address of this family, or set masquerade = false and route the answers back",
        ),
        R::PortsExhausted => {
            (Stage::Nat, "widen --nat-ports, or spread the connections over more destination addresses or ports")
        }
        R::PortShare => (
            Stage::Nat,
            "let the peer end connections to this service, or widen --nat-ports or add --nat-addresses: ports are scarce",
        ),
        R::SilentNeighbours => (
            Stage::Uplink,
            "none, if it is a scan; else see that these hosts answer ARP or neighbour solicitations on the uplink",
        ),
        R::TableFull => {
            (Stage::Table, "raise --max-flows, and remove the pinned maps once: they keep the size that they have")
        }
        R::PeerQuota => {
            (Stage::Quota, "raise --peer-flows, if the peer is meant to have so many flows; see `flows --peer`")
        }
        R::TtlExceeded => (
            Stage::HopLimit,
            "none for a traceroute: the sender was told; else raise the sender's TTL, or look for a loop",
        ),
        R::TooBig => (
            Stage::Mtu,
            "none, if the sender listens: it was told the MTU; else let ICMP through to it, or lower its MTU",
        ),
        R::Rewrite => (
            Stage::Send,
            "report it: the kernel refused to change the packet; `doctor` names what may stand in the way",
        ),
        R::Unjudged => (
            Stage::Configuration,
            "find out who detaches programs from the mesh device: ours is put back within ten seconds",
        ),
        R::Internal => {
            (Stage::Configuration, "restart the daemon: the programs run without the configuration that it gives them")
        }
    };
    Explanation { stage, remedy }
}

/// What to do about a drop, in the words of what the node is configured by.
#[must_use]
pub const fn remedy(reason: DropReason, configuration: Configuration) -> &'static str {
    use DropReason as R;
    match (configuration, reason) {
        (Configuration::NetBird, R::NoRoute) => {
            "add a network or resource that covers the destination in the dashboard, with this peer as a router"
        }
        (Configuration::NetBird, R::PolicyDefault) => {
            "add a policy in the dashboard that lets the peer reach this resource by this protocol and port: none does"
        }
        (Configuration::NetBird, R::PolicyRule) => {
            "narrow or remove the policy that drops it in the dashboard: drop beats accept, in any order"
        }
        (Configuration::NetBird, R::ForeignSource) => "let the peer send from the address that the network gave it",
        (Configuration::NetBird, R::NotUplink) => "let the node's route leave by an Ethernet device, or see `doctor`",
        (Configuration::NetBird, R::NoSourceAddress) => {
            "give the uplink an address of this family, or switch masquerading off for the network and route the answers back"
        }
        _ => explain(reason).remedy,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_stage_and_a_remedy_of_its_own() {
        let remedies: BTreeSet<_> = DropReason::ALL.iter().map(|reason| explain(*reason).remedy).collect();
        assert_eq!(remedies.len(), DropReason::ALL.len());
        for reason in DropReason::ALL {
            let Explanation { stage, remedy } = explain(*reason);
            assert!(Stage::ALL.contains(&stage) && remedy.len() > 20, "{}: {remedy}", reason.name());
            assert!(!reason.help().trim().is_empty(), "{}", reason.name());
        }
    }

    #[test]
    fn remedies_of_a_netbird_node_name_nothing_of_a_file() {
        for reason in DropReason::ALL {
            let text = remedy(*reason, Configuration::NetBird);
            for word in ["[[", "allowed_ips", "listen_port", "masquerade =", "route's uplink"] {
                assert!(!text.contains(word), "{}: {text}", reason.name());
            }
            assert_eq!(remedy(*reason, Configuration::File), explain(*reason).remedy);
        }
    }

    #[test]
    fn stages_are_in_order_and_named_apart() {
        assert!(Stage::ALL.is_sorted());
        let names: BTreeSet<_> = Stage::ALL.iter().map(|stage| stage.name()).collect();
        assert_eq!(names.len(), Stage::ALL.len());
    }
}
