//! A record as a line of JSON. Fields are only ever added.

use humantime::format_rfc3339_millis;
use ipnet::IpNet;
use peer_common::PacketCount;
use peer_dataplane::flows::{End, kind_name};
use peer_dataplane::observe::{Direction, FlowRecord, What};
use serde::Serialize;

use crate::flows::{Place, protocol_name};
use crate::peers::PeerKeys;
use crate::status::Count;

#[derive(Serialize)]
struct Line<'a> {
    /// When it was told, UTC.
    time: String,
    /// `open`, `close`, `denied`.
    event: &'static str,
    /// Why it was closed, or denied.
    reason: Option<&'static str>,
    /// Of a denied packet: `from_peer`, `to_peer`.
    direction: Option<&'static str>,
    protocol: Option<String>,
    /// Absent: there is no flow.
    kind: Option<&'static str>,
    peer: Option<Place>,
    peer_key: Option<String>,
    destination: Option<Place>,
    /// The peer's end as the LAN sees it, where that is another.
    nat: Option<Place>,
    uplink: Option<&'a str>,
    route: Option<IpNet>,
    route_id: Option<u32>,
    /// Id of the rule that decided.
    policy: Option<u32>,
    from_peer: Count,
    /// Absent where the node's own stack answers.
    to_peer: Option<Count>,
    /// From the first packet to the last one.
    duration_seconds: Option<f64>,
}

/// Appends the line. `keys` are those of the peers.
pub(super) fn write(buffer: &mut Vec<u8>, record: &FlowRecord, keys: &PeerKeys) {
    let (event, reason, direction) = match record.what {
        What::Opened => ("open", None, None),
        What::Closed(why) => ("close", Some(why.name()), None),
        What::Denied(why, direction) => ("denied", Some(why.name()), Some(direction_name(direction))),
    };
    // What could not be read has no tuple.
    let readable = record.protocol != 0 || !record.peer.addr.is_unspecified();
    let place = |end: End| readable.then(|| Place::from(end));
    let closed = matches!(record.what, What::Closed(_));
    let line = Line {
        time: format_rfc3339_millis(record.at).to_string(),
        event,
        reason,
        direction,
        protocol: readable.then(|| protocol_name(record.protocol)),
        kind: record.kind.map(kind_name),
        peer: place(record.peer),
        peer_key: record.peer_id.and_then(|id| keys.get(id)).map(ToString::to_string),
        destination: place(record.destination),
        nat: record.nat.map(Place::from),
        uplink: record.uplink.as_deref(),
        route: record.route,
        route_id: record.route_id,
        policy: record.rule,
        from_peer: count(record.from_peer),
        to_peer: record.to_peer.map(count),
        duration_seconds: closed.then(|| (record.duration.as_secs_f64() * 1e3).round() / 1e3),
    };
    let start = buffer.len();
    match serde_json::to_writer(&mut *buffer, &line) {
        Ok(()) => buffer.push(b'\n'),
        // No value of it can fail; half a line must not be written.
        Err(_) => buffer.truncate(start),
    }
}

/// Name of a direction.
pub(crate) fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::FromPeer => "from_peer",
        Direction::ToPeer => "to_peer",
    }
}

fn count(count: PacketCount) -> Count {
    Count { packets: count.packets, bytes: count.bytes }
}
