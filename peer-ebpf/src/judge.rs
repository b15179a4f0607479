//! What a packet without a current flow may do: source, destination class, route, policy.

use aya_ebpf::maps::lpm_trie::Key;
use peer_common::{Addr, Config, DropReason, FlowKey, FlowKind, LocalKind, Peer, Route, RuleScope};

use crate::maps::{LOCALS, PEERS, ROUTES};
use crate::parse::{IPPROTO_ICMP, IPPROTO_ICMPV6, Packet};
use crate::policy::{self, Verdict};

/// An accepted packet.
pub struct Accepted {
    pub kind: FlowKind,
    /// Set unless the packet is for the node itself.
    pub route: Option<&'static Route>,
    pub peer_id: u32,
    pub policy_id: u32,
}

/// Judges a packet that came from the mesh with the tuple `key`. `unjudged` says why its tuple is not all there.
#[inline(always)]
pub fn judge(config: &Config, key: &FlowKey, unjudged: Option<DropReason>) -> Result<Accepted, DropReason> {
    let peer = peer_of(&key.src).ok_or(DropReason::ForeignSource)?;
    let route = route_to(&key.dst);
    let named = route.is_some_and(|route| route.prefix_len == 128);
    if let Some(reason) = denied(&key.dst) {
        if !named {
            return Err(reason);
        }
    }
    // SAFETY: values are replaced whole by the daemon.
    let local = unsafe { LOCALS.get(key.dst) };
    let (kind, scope, route) = match (local, route) {
        (Some(local), route) => {
            // An address of the node that a served route covers: rules of the route speak of it, too.
            let routed = local.kind != LocalKind::Overlay as u32 && route.is_some();
            let scope = if routed { RuleScope::NODE | RuleScope::ROUTE } else { RuleScope::NODE };
            (FlowKind::ToNode, scope, None)
        }
        (None, Some(route)) => {
            if let Some(reason) = unjudged {
                return Err(reason);
            }
            let masquerade = route.flags & Route::MASQUERADE != 0;
            let kind = if masquerade { FlowKind::Masqueraded } else { FlowKind::Routed };
            (kind, RuleScope::ROUTE, Some(route))
        }
        (None, None) => return Err(unjudged.unwrap_or(DropReason::NoRoute)),
    };
    match policy::evaluate(config, key, unjudged.is_none(), scope) {
        Verdict::Accept(policy_id) => Ok(Accepted { kind, route, peer_id: peer.id, policy_id }),
        Verdict::Drop(_) => Err(DropReason::PolicyRule),
        Verdict::Default => Err(unjudged.unwrap_or(DropReason::PolicyDefault)),
    }
}

/// The peer that owns the source address.
#[inline(always)]
pub fn peer_of(addr: &Addr) -> Option<&'static Peer> {
    let peer = PEERS.get(Key::new(128, *addr))?;
    same_family(addr, peer.prefix_len).then_some(peer)
}

/// The route that covers the address.
#[inline(always)]
pub fn route_to(addr: &Addr) -> Option<&'static Route> {
    let route = ROUTES.get(Key::new(128, *addr))?;
    same_family(addr, route.prefix_len).then_some(route)
}

/// Whether the packet may open a flow: an echo reply answers one.
#[inline(always)]
pub fn opens(packet: &Packet) -> bool {
    packet.echo_request || !matches!(packet.key.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6)
}

/// `::/0` covers the mapped addresses, but not IPv4.
#[inline(always)]
fn same_family(addr: &Addr, prefix_len: u32) -> bool {
    !addr.is_v4() || prefix_len >= peer_common::addr::MAPPED_BITS
}

/// Destinations that only a host route may name: this network, loopback, link-local (metadata among them), multicast
/// and broadcast (RFC 6890, RFC 4291).
#[inline(always)]
fn denied(addr: &Addr) -> Option<DropReason> {
    if addr.is_v4() {
        let octets = addr.words[3].to_ne_bytes();
        if octets[0] >= 224 {
            return Some(DropReason::Multicast);
        }
        if octets[0] == 127 || octets[0] == 0 || (octets[0] == 169 && octets[1] == 254) {
            return Some(DropReason::DeniedDestination);
        }
        return None;
    }
    let octets = addr.words[0].to_ne_bytes();
    if octets[0] == 0xff {
        return Some(DropReason::Multicast);
    }
    if octets[0] == 0xfe && octets[1] & 0xc0 == 0x80 {
        return Some(DropReason::DeniedDestination);
    }
    if addr.words[0] | addr.words[1] | addr.words[2] == 0 && u32::from_be(addr.words[3]) <= 1 {
        return Some(DropReason::DeniedDestination);
    }
    None
}
