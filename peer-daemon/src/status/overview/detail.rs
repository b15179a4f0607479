//! Peers and events, one by one: `status -d`.

use std::fmt;

use jiff::Timestamp;

use super::go::{GoDuration, TimeAgo};
use super::summary::joined_or_dash;
use super::{ConnectionType, Ends, Event, Overview, Peer};
use crate::status::Size;

/// The details as text, seen from `now`.
pub(crate) struct Detail<'a> {
    pub(crate) overview: &'a Overview,
    pub(crate) now: Timestamp,
}

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers detail:")?;
        let mut peers: Vec<_> = self.overview.peers.details.iter().collect();
        peers.sort_by_key(|peer| (peer.netbird_ip, peer.netbird_ipv6));
        peers.into_iter().try_for_each(|peer| self.peer(f, peer))?;
        f.write_str("\nEvents:")?;
        if self.overview.events.is_empty() {
            f.write_str(" No events recorded")?;
        }
        self.overview.events.iter().try_for_each(|event| self.event(f, event))?;
        writeln!(f)
    }
}

impl Detail<'_> {
    fn peer(&self, f: &mut fmt::Formatter<'_>, peer: &Peer) -> fmt::Result {
        let ago = |then| TimeAgo { then, now: self.now };
        let kind = match peer.connection_type {
            ConnectionType::Direct => "P2P",
            ConnectionType::Relayed => "Relayed",
            ConnectionType::None => "-",
        };
        writeln!(f, "\n {}:", peer.fqdn)?;
        if let Some(ip) = peer.netbird_ip {
            writeln!(f, "  NetBird IP: {ip}")?;
        }
        if let Some(ip) = peer.netbird_ipv6 {
            writeln!(f, "  NetBird IPv6: {ip}")?;
        }
        writeln!(f, "  Public key: {}", peer.public_key)?;
        writeln!(f, "  Status: {:?}", peer.status)?;
        writeln!(f, "  -- detail --")?;
        writeln!(f, "  Connection type: {kind}")?;
        writeln!(f, "  ICE candidate (Local/Remote): {}", Pair(&peer.ice_candidate_type))?;
        writeln!(f, "  ICE candidate endpoints (Local/Remote): {}", Pair(&peer.ice_candidate_endpoint))?;
        writeln!(f, "  Relay server address: {}", peer.relay_address)?;
        writeln!(f, "  Last connection update: {}", ago(peer.last_status_update))?;
        writeln!(f, "  Last WireGuard handshake: {}", ago(peer.last_wireguard_handshake))?;
        writeln!(f, "  Transfer status (received/sent) {}/{}", Size(peer.transfer_received), Size(peer.transfer_sent))?;
        writeln!(f, "  Quantum resistance: {}", peer.quantum_resistance)?;
        writeln!(f, "  Networks: {}", joined_or_dash(&peer.networks))?;
        writeln!(f, "  Latency: {}", GoDuration(peer.latency))
    }

    fn event(&self, f: &mut fmt::Formatter<'_>, event: &Event) -> fmt::Result {
        write!(f, "\n  [{}] {} ({})", event.severity, event.category, event.id)?;
        write!(f, "\n    Message: {}", event.message)?;
        write!(f, "\n    Time: {}", TimeAgo { then: Some(event.timestamp), now: self.now })?;
        let metadata = event.metadata.iter().flatten();
        let metadata: Vec<_> = metadata.map(|(key, value)| format!("{key}: {value}")).collect();
        if metadata.is_empty() { Ok(()) } else { write!(f, "\n    Metadata: {}", metadata.join(", ")) }
    }
}

/// Both ends; an unknown one is a dash.
struct Pair<'a>(&'a Ends);

impl fmt::Display for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dash = |text: &'_ str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        write!(f, "{}/{}", dash(&self.0.local), dash(&self.0.remote))
    }
}
