//! Which flows are wanted. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use peer_common::{Flow, FlowKey, FlowKind};

use super::owners::Owners;

const ICMP: u32 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;

/// What a flow must be like. Every field that is set must hold; the default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whose it is.
    pub peer: Option<PeerFilter>,
    /// One of the two ends is in here.
    pub address: Option<IpNet>,
    /// A port of either end, or the one after NAT. Identifiers of ICMP are no ports.
    pub port: Option<u16>,
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// Kind.
    pub kind: Option<FlowKind>,
}

/// Whose a flow is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerFilter {
    /// Of peers with these ids.
    Ids(BTreeSet<u32>),
    /// The end in the mesh is in here.
    Overlay(IpNet),
}

/// Protocols that flows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

impl Filter {
    /// Whether a flow is wanted.
    pub(crate) fn takes(&self, key: &FlowKey, flow: &Flow, owners: &Owners) -> bool {
        let (peer, destination) = (IpAddr::from(key.src), IpAddr::from(key.dst));
        self.kind.is_none_or(|kind| kind as u8 == flow.kind)
            && self.protocol.is_none_or(|protocol| protocol.is(key.protocol))
            && self.port.is_none_or(|port| has_port(key, flow, port))
            && self.address.is_none_or(|net| net.contains(&peer) || net.contains(&destination))
            && match &self.peer {
                None => true,
                Some(PeerFilter::Overlay(net)) => net.contains(&peer),
                Some(PeerFilter::Ids(ids)) => owners.of(peer).is_some_and(|id| ids.contains(&id)),
            }
    }
}

impl Protocol {
    /// Whether it is the protocol of that number.
    pub(crate) fn is(self, number: u32) -> bool {
        match self {
            Self::Tcp => number == TCP,
            Self::Udp => number == UDP,
            Self::Icmp => matches!(number, ICMP | ICMPV6),
        }
    }
}

fn has_port(key: &FlowKey, flow: &Flow, port: u16) -> bool {
    let port = port.to_be();
    matches!(key.protocol, TCP | UDP) && [key.src_port, key.dst_port, flow.nat_port].contains(&port)
}

#[cfg(test)]
mod tests {
    use peer_common::Addr;

    use super::*;
    use crate::PeerPrefixes;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().expect("an address").into()
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn flow(protocol: u32) -> (FlowKey, Flow) {
        let (src, dst) = (addr("100.64.0.10"), addr("198.51.100.80"));
        let key = FlowKey { src, dst, src_port: 40_000_u16.to_be(), dst_port: 80_u16.to_be(), protocol };
        let kind = FlowKind::Masqueraded as u8;
        (key, Flow { nat_addr: addr("198.51.100.1"), nat_port: 21_000_u16.to_be(), kind, ..Flow::default() })
    }

    fn takes(filter: &Filter, protocol: u32) -> bool {
        let peers = [(1, "100.64.0.10/32"), (2, "100.64.0.0/24")]
            .map(|(id, prefix)| PeerPrefixes { id, prefixes: [net(prefix)].into() });
        let (key, flow) = flow(protocol);
        filter.takes(&key, &flow, &Owners::new(&peers))
    }

    #[test]
    fn each_field_selects() {
        let port = |port| takes(&Filter { port: Some(port), ..Filter::default() }, TCP);
        assert_eq!([40_000, 80, 21_000, 443].map(port), [true, true, true, false]);
        assert!(!takes(&Filter { port: Some(40_000), ..Filter::default() }, ICMP), "an identifier is no port");
        let address = |text| takes(&Filter { address: Some(net(text)), ..Filter::default() }, TCP);
        assert_eq!(
            ["100.64.0.10/32", "198.51.100.0/24", "10.0.0.0/8", "::/0"].map(address),
            [true, true, false, false]
        );
        let protocol = |wanted, number| takes(&Filter { protocol: Some(wanted), ..Filter::default() }, number);
        assert!(protocol(Protocol::Tcp, TCP) && protocol(Protocol::Udp, UDP));
        assert!(protocol(Protocol::Icmp, ICMP) && protocol(Protocol::Icmp, ICMPV6) && !protocol(Protocol::Icmp, TCP));
        let kind = |kind| takes(&Filter { kind: Some(kind), ..Filter::default() }, TCP);
        assert!(kind(FlowKind::Masqueraded) && !kind(FlowKind::Routed));
    }

    #[test]
    fn a_peer_is_the_owner_of_the_longest_prefix() {
        let ids = |id| takes(&Filter { peer: Some(PeerFilter::Ids([id].into())), ..Filter::default() }, UDP);
        assert!(ids(1) && !ids(2));
        let overlay = |text| takes(&Filter { peer: Some(PeerFilter::Overlay(net(text))), ..Filter::default() }, UDP);
        assert!(overlay("100.64.0.0/16"));
        assert!(!overlay("198.51.100.0/24"), "the destination is no peer");
    }

    #[test]
    fn every_field_must_hold_and_none_takes_all() {
        assert!(takes(&Filter::default(), ICMPV6));
        let both = Filter { port: Some(80), protocol: Some(Protocol::Udp), ..Filter::default() };
        assert!(!takes(&both, TCP) && takes(&both, UDP));
    }
}
