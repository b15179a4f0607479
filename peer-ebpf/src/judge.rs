//! What a packet without a current flow may do: source, destination class, route, policy.

use core::ptr;

use aya_ebpf::maps::lpm_trie::Key;
use peer_common::policy::NOBODY;
use peer_common::route::{NO_ROUTE, listener_key};
use peer_common::{Addr, CellKey, Config, DropReason, FlowKey, FlowKind, Judged, LocalKind, Peer, Route, RuleScope};

use crate::maps::{LISTENERS, LOCALS, PEERS, ROUTES};
use crate::parse::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Packet};
use crate::policy::{self, Answer};
use crate::verifier::value;

/// A question about a packet of the mesh, and its answer. It lives in the map of working memory: what the verifier reads back
/// from there has no history, so that it follows [`judge`] once and not once for every way that leads to it.
#[repr(C)]
pub struct Query {
    /// The tuple, as it enters from the mesh.
    pub key: FlowKey,
    /// What is looked up.
    pub keys: Keys,
    /// Why the tuple is not all there, if so.
    pub unjudged: Option<DropReason>,
    /// Answer: the route that carries the packet, a copy; its id is [`NO_ROUTE`] for what is for the node itself.
    pub route: Route,
    /// Answer: whose packet it is.
    pub peer_id: u32,
    /// Answer: which rule decided, 0: none.
    pub policy_id: u32,
    /// Answer: of the source, in the policy.
    pub identity: u32,
    /// Answer: of the destination, in the policy.
    pub class: u32,
    /// The policy that is asked: read once for a packet, so that it is the old one or the new one.
    pub generation: u32,
    /// Answer: what becomes of the flow, a `FlowKind`.
    pub kind: u8,
    /// Whether it was asked, a `Judged`.
    pub judged: u8,
    pub pad: [u8; 2],
}

impl Query {
    /// Begins with a packet.
    #[inline(always)]
    pub fn begin(&mut self, config: &Config) {
        self.judged = Judged::Not as u8;
        // SAFETY: an aligned number in memory that lives. Volatile: the daemon may write it meanwhile.
        self.generation = unsafe { ptr::read_volatile(&raw const config.policy_generation) };
    }
}

/// Keys of lookups by longest prefix. Not on the stack: there, without CAP_PERFMON, kernels before 6.8 refuse to write one
/// half of eight bytes after the other, and in which order that is done is the compiler's choice.
#[repr(C)]
pub struct Keys {
    pub addr: Key<Addr>,
    pub cell: Key<CellKey>,
}

/// Judges `query`. Returns 0 when it is accepted, or a drop reason plus 1: a function of its own, for the sake of the stack.
#[inline(never)]
pub fn judge(query: &mut Query) -> u32 {
    match decide(query) {
        Ok(()) => 0,
        Err(reason) => reason as u32 + 1,
    }
}

#[inline(always)]
fn decide(query: &mut Query) -> Result<(), DropReason> {
    (query.policy_id, query.peer_id, query.route.id) = (0, 0, NO_ROUTE);
    (query.identity, query.class) = (NOBODY, NOBODY);
    query.peer_id = peer_of(&mut query.keys, &query.key.src).ok_or(DropReason::ForeignSource)?.id;
    // Copied at once: on ways that the CPU only may take ahead, the verifier would find an address here that is none.
    let (routed, named) = match route_to(&mut query.keys, &query.key.dst) {
        Some(route) => {
            query.route = *route;
            (true, route.prefix_len == 128)
        }
        None => (false, false),
    };
    // SAFETY: values are replaced whole by the daemon.
    let local = match unsafe { LOCALS.get(&query.key.dst) } {
        Some(local) => local.kind,
        None => FOREIGN,
    };
    let broadcast = local == LocalKind::Broadcast as u32;
    let refused = if broadcast { Some(DropReason::Multicast) } else { denied(&query.key.dst) };
    if let Some(reason) = refused {
        // An overlay may have such an address (100.100.100.200 is one of 100.64.0.0/10): there it is this node.
        if !named && local != LocalKind::Overlay as u32 {
            return Err(reason);
        }
    }
    let scope = match (local != FOREIGN && !broadcast, routed) {
        (true, _) => {
            if !named && own_listener(&query.key) {
                return Err(DropReason::DeniedDestination);
            }
            query.kind = FlowKind::ToNode as u8;
            query.route.id = NO_ROUTE;
            // An address of the node that a served route covers: rules of the route speak of it, too.
            if local == LocalKind::Overlay as u32 || !routed {
                RuleScope::NODE
            } else if local == LocalKind::Protected as u32 {
                RuleScope::NODE | RuleScope::ROUTE | RuleScope::GUARDED
            } else {
                RuleScope::NODE | RuleScope::ROUTE
            }
        }
        (false, true) => {
            if let Some(reason) = query.unjudged {
                return Err(reason);
            }
            let masquerade = query.route.flags & Route::MASQUERADE != 0;
            query.kind = if masquerade { FlowKind::Masqueraded } else { FlowKind::Routed } as u8;
            RuleScope::ROUTE
        }
        (false, false) => return Err(query.unjudged.unwrap_or(DropReason::NoRoute)),
    };
    let verdict = policy::evaluate(query, scope);
    query.policy_id = verdict.rule;
    match verdict.answer {
        Answer::Accept => Ok(()),
        Answer::Drop => Err(DropReason::PolicyRule),
        Answer::Default => Err(query.unjudged.unwrap_or(DropReason::PolicyDefault)),
    }
}

impl Keys {
    /// The key of one address.
    #[inline(always)]
    pub fn addr(&mut self, addr: &Addr) -> &Key<Addr> {
        self.addr = Key::new(128, *addr);
        &self.addr
    }
}

/// The peer that owns the source address.
#[inline(always)]
pub fn peer_of(keys: &mut Keys, addr: &Addr) -> Option<&'static Peer> {
    let peer = PEERS.get(keys.addr(addr))?;
    same_family(addr, peer.prefix_len).then_some(peer)
}

/// The route that covers the address.
#[inline(always)]
pub fn route_to(keys: &mut Keys, addr: &Addr) -> Option<&'static Route> {
    let route = ROUTES.get(keys.addr(addr))?;
    same_family(addr, route.prefix_len).then_some(route)
}

/// Whether the packet may open a flow: an echo reply answers one.
#[inline(always)]
pub fn opens(packet: &Packet) -> bool {
    packet.echo_request || !matches!(packet.key.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6)
}

/// A port that the daemon itself listens on: WireGuard inside of WireGuard, or what is meant for the node's own tools.
#[inline(always)]
fn own_listener(key: &FlowKey) -> bool {
    if !matches!(key.protocol, IPPROTO_TCP | IPPROTO_UDP) {
        return false;
    }
    let key = listener_key(key.protocol, u16::from_be(key.dst_port));
    value(&LISTENERS, key).is_some()
}

/// `::/0` covers the mapped addresses, but not IPv4.
#[inline(always)]
fn same_family(addr: &Addr, prefix_len: u32) -> bool {
    !addr.is_v4() || prefix_len >= peer_common::addr::MAPPED_BITS
}

/// In place of a [`LocalKind`]: not an address of this node.
const FOREIGN: u32 = 0;

/// Metadata of clouds that is not link-local: Azure's (and its agent's), Alibaba's, Amazon's of IPv6.
const METADATA4: [[u8; 4]; 2] = [[168, 63, 129, 16], [100, 100, 100, 200]];
const METADATA6: [u32; 4] = [0xfd00_0ec2_u32.to_be(), 0, 0, 0x254_u32.to_be()];

/// Destinations that only a host route may name: this network, loopback, link-local (metadata of most clouds among them),
/// other metadata, multicast and broadcast (RFC 6890, RFC 4291).
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
        if octets == METADATA4[0] || octets == METADATA4[1] {
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
    if addr.words == METADATA6 {
        return Some(DropReason::DeniedDestination);
    }
    if addr.words[0] | addr.words[1] | addr.words[2] == 0 && u32::from_be(addr.words[3]) <= 1 {
        return Some(DropReason::DeniedDestination);
    }
    None
}
