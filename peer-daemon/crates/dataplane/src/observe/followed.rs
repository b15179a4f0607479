//! Packets that somebody follows, until they are fetched. Pure.

use std::collections::VecDeque;
use std::net::IpAddr;

use ipnet::IpNet;
use peer_common::{Addr, FlowEvent, TraceFilter};

use crate::flows::Protocol;

/// Records that are kept for whoever fetches them.
const KEPT: usize = 1024;

/// Which packets are followed. Both directions are: `peer` is the end in the mesh, whoever sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follow {
    /// The end in the mesh.
    pub peer: Option<IpNet>,
    /// The other end.
    pub remote: Option<IpNet>,
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// Port of the end in the mesh; of ICMP echo the identifier.
    pub peer_port: Option<u16>,
    /// Port of the other end.
    pub remote_port: Option<u16>,
}

/// What was fetched.
#[derive(Clone, Debug, Default)]
pub struct FollowedPackets {
    /// In the order in which they were told.
    pub packets: Vec<FlowEvent>,
    /// The number of the record after the last one.
    pub next: u64,
    /// Records that were not fetched in time.
    pub missed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Followed {
    kept: VecDeque<FlowEvent>,
    /// The number of the first record kept.
    first: u64,
}

impl Follow {
    /// As the programs compare it.
    pub(crate) fn filter(&self, until: u64) -> TraceFilter {
        let (peer, peer_mask) = masked(self.peer);
        let (remote, remote_mask) = masked(self.remote);
        let protocols = match self.protocol {
            None => [0, 0],
            Some(Protocol::Tcp) => [6, 6],
            Some(Protocol::Udp) => [17, 17],
            Some(Protocol::Icmp) => [1, 58],
        };
        let port = |port: Option<u16>| port.unwrap_or(0).to_be();
        let (peer_port, remote_port) = (port(self.peer_port), port(self.remote_port));
        let only_v6 = [self.peer, self.remote].map(|net| u32::from(matches!(net, Some(IpNet::V6(_)))));
        TraceFilter { peer, peer_mask, remote, remote_mask, until, protocols, peer_port, remote_port, only_v6 }
    }
}

impl Followed {
    pub(super) fn begin(&mut self) {
        self.first += self.kept.len() as u64;
        self.kept.clear();
    }

    pub(super) fn add(&mut self, event: FlowEvent) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
            self.first += 1;
        }
        self.kept.push_back(event);
    }

    pub(super) fn since(&self, from: u64) -> FollowedPackets {
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        FollowedPackets {
            packets: self.kept.iter().skip(skip).copied().collect(),
            next: self.first + self.kept.len() as u64,
            missed: self.first.saturating_sub(from),
        }
    }
}

/// Address and mask; IPv4 in its mapped form.
fn masked(net: Option<IpNet>) -> (Addr, Addr) {
    let Some(net) = net else { return (Addr::NONE, Addr::NONE) };
    let mask = match net {
        IpNet::V4(net) => {
            let ones = Addr { words: [u32::MAX; 4] };
            let mask = Addr::from(IpAddr::V4(net.netmask()));
            Addr { words: [ones.words[0], ones.words[1], ones.words[2], mask.words[3]] }
        }
        IpNet::V6(net) => Addr::from(IpAddr::V6(net.netmask())),
    };
    (net.network().into(), mask)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use peer_common::FlowKey;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn records_are_fetched_once_and_what_was_too_slow_is_told() {
        let mut followed = Followed::default();
        let event = |time| FlowEvent { time, ..FlowEvent::default() };
        (0..3).for_each(|time| followed.add(event(time)));
        let got = followed.since(1);
        assert_eq!((got.packets.len(), got.next, got.missed), (2, 3, 0));
        (3..3 + KEPT as u64).for_each(|time| followed.add(event(time)));
        let got = followed.since(got.next - 1);
        assert_eq!((got.packets.len(), got.missed, got.packets[0].time), (KEPT, 1, 3));
        followed.begin();
        let later = followed.since(got.next);
        assert_eq!((later.packets.len(), later.next, later.missed), (0, got.next, 0), "numbers go on");
    }

    #[test]
    fn a_short_prefix_of_ipv6_takes_no_ipv4() {
        let all = Follow { remote: "::/0".parse().ok(), ..Follow::default() };
        let key = |dst: &str| FlowKey { dst: dst.parse::<IpAddr>().expect("an address").into(), ..FlowKey::default() };
        assert!(all.filter(9).takes(&key("fd00::1"), false));
        assert!(!all.filter(9).takes(&key("10.64.0.0"), false));
    }

    fn addr() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (select(vec![10_u8, 100]), 0..3_u8).prop_map(|(a, d)| Ipv4Addr::new(a, 64, 0, d).into()),
            (0..3_u16).prop_map(|last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()),
        ]
    }

    fn net() -> impl Strategy<Value = Option<IpNet>> {
        let net = (addr(), 0_u8..=128)
            .prop_map(|(addr, len)| IpNet::new(addr, if addr.is_ipv4() { len / 4 } else { len }).expect("a prefix"));
        prop::option::of(net)
    }

    fn port() -> impl Strategy<Value = u16> {
        select(vec![1_u16, 80, 443])
    }

    proptest! {
        /// Against prefixes that contain addresses, and options that are compared.
        #[test]
        fn the_programs_take_what_is_asked_for(
            (peer, remote) in (net(), net()),
            protocol in prop::option::of(select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Icmp])),
            ports in (prop::option::of(port()), prop::option::of(port())),
            (src, dst) in (addr(), addr()),
            (src_port, dst_port) in (port(), port()),
            (number, peer_known) in (select(vec![1_u8, 6, 17, 58]), any::<bool>()),
        ) {
            let follow = Follow { peer, remote, protocol, peer_port: ports.0, remote_port: ports.1 };
            let key = FlowKey {
                src: src.into(),
                dst: dst.into(),
                src_port: src_port.to_be(),
                dst_port: dst_port.to_be(),
                protocol: number.into(),
            };
            let takes_peer =
                peer.is_none_or(|net| net.contains(&src)) && ports.0.is_none_or(|port| port == src_port);
            let expected = remote.is_none_or(|net| net.contains(&dst))
                && ports.1.is_none_or(|port| port == dst_port)
                && protocol.is_none_or(|protocol| protocol.is(number.into()))
                && (!peer_known || takes_peer);
            prop_assert_eq!(follow.filter(9).takes(&key, peer_known), expected);
        }
    }
}
