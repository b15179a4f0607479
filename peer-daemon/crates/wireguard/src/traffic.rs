//! Metrics by peer. Peers are many, so only so many of them have series of their own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peer_core::key::PublicKey;
use peer_core::path::Path;
use peer_metrics::{Series, counters, describe, gauge, gauges};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::peer::Peer;

/// Peers that have series of their own; the traffic of the others is summed up.
pub const PEER_SERIES: usize = 100;

/// What an engine tells of its peers at one moment, without copying what does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFigures {
    /// Peers reached by UDP.
    pub direct: u64,
    /// Peers reached through a relay.
    pub relayed: u64,
    /// Peers of which no path is known.
    pub unreached: u64,
    /// Peers with a path and keepalives whose last session is too old to be used: it should have been renewed.
    pub overdue: u64,
    /// Peers that have had traffic.
    pub active: Vec<ActivePeer>,
}

/// A peer that has had traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivePeer {
    /// Identity.
    pub public_key: PublicKey,
    /// Time since the last handshake was completed.
    pub last_handshake: Option<Duration>,
    /// Packets from it and to it.
    pub packets: [u64; 2],
    /// Bytes of datagrams from it and to it.
    pub bytes: [u64; 2],
}

impl PeerFigures {
    pub(crate) fn add(&mut self, peer: &Peer, now: std::time::Instant) {
        let status = peer.figures(now);
        match peer.path() {
            None => self.unreached += 1,
            Some(Path::Relay(_)) => self.relayed += 1,
            Some(_) => self.direct += 1,
        }
        let stale = status.last_handshake.is_none_or(|age| age > REJECT_AFTER_TIME);
        self.overdue += u64::from(stale && peer.path().is_some() && peer.has_keepalive());
        if status.packets != [0, 0] || status.bytes != [0, 0] {
            self.active.push(status);
        }
    }
}

/// Traffic and handshakes by peer, as series that outlive one look at the engine. Clones share them.
#[derive(Clone, Debug)]
pub struct PeerTraffic(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    series: Series<PublicKey, 4>,
    figures: PeerFigures,
    /// Of those with series: their names, and when their last handshakes were.
    known: HashMap<PublicKey, (String, Option<Duration>)>,
}

impl PeerTraffic {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let (series, figures, known) = (Series::new(PEER_SERIES), PeerFigures::default(), HashMap::new());
        Self(Arc::new(Mutex::new(State { series, figures, known })))
    }

    /// Takes what the engine tells at this time. `name` is asked of peers with series only.
    pub fn update(&self, figures: PeerFigures, now: SystemTime, name: impl Fn(&PublicKey) -> Option<String>) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut state = self.lock();
        state.series.update(figures.active.iter().map(|peer| {
            let [packets, bytes] = [peer.packets, peer.bytes];
            (peer.public_key, [packets[0], packets[1], bytes[0], bytes[1]])
        }));
        let handshakes: HashMap<_, _> =
            figures.active.iter().map(|peer| (peer.public_key, peer.last_handshake)).collect();
        let known = |key: &PublicKey| {
            let at = handshakes.get(key).copied().flatten().map(|age| now.saturating_sub(age));
            (*key, (name(key).unwrap_or_default(), at))
        };
        state.known = state.series.own().map(|(key, _)| known(key)).collect();
        state.figures = figures;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of a holder leaves at worst figures of two moments.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for PeerTraffic {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector for PeerTraffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (state, encoder) = (self.lock(), &mut encoder);
        let figures = &state.figures;
        let paths = [("direct", figures.direct), ("relay", figures.relayed), ("none", figures.unreached)];
        let help = "Peers by the path that their datagrams take.";
        gauges(encoder, "peer_wireguard_paths", help, paths.map(|(path, count)| ([("path", path)], count)))?;
        let help = "Peers with a path and keepalives whose session has expired: no handshake for 180 s.";
        gauge(encoder, "peer_wireguard_handshakes_overdue", help, figures.overdue)?;
        let others = state.series.others() as u64;
        gauge(encoder, "peer_wireguard_peers_unlisted", "Active peers without series of their own.", others)?;
        state.traffic(encoder)?;
        state.handshakes(encoder)
    }
}

impl State {
    fn traffic(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let row = |key: &PublicKey, counts: &[u64; 4]| {
            let name = self.known.get(key).map_or("", |(name, _)| name);
            (key.to_string(), name, *counts)
        };
        let mut rows: Vec<_> = self.series.own().map(|(key, counts)| row(key, counts)).collect();
        rows.push(("other".to_owned(), "other", *self.series.rest()));
        let values = |first: usize| {
            rows.iter().flat_map(move |(key, name, counts)| {
                let labels = |direction| [("peer", key.as_str()), ("name", *name), ("direction", direction)];
                [(labels("received"), counts[first]), (labels("sent"), counts[first + 1])]
            })
        };
        let help = "Packets exchanged with a peer; other: with those without series.";
        counters(encoder, "peer_wireguard_peer_packets", help, values(0))?;
        let help = "Bytes of WireGuard messages exchanged with a peer; other: with those without series.";
        counters(encoder, "peer_wireguard_peer_bytes", help, values(2))
    }

    fn handshakes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "When a peer's last session was made, Unix time.";
        let name = "peer_wireguard_peer_last_handshake_timestamp_seconds";
        let mut family = describe(encoder, name, help, MetricType::Gauge)?;
        for (key, _) in self.series.own() {
            if let Some((name, Some(at))) = self.known.get(key) {
                let (key, at) = (key.to_string(), ConstGauge::new(at.as_secs_f64().round()));
                at.encode(family.encode_family(&[("peer", key.as_str()), ("name", name)])?)?;
            }
        }
        Ok(())
    }
}

/// Of the WireGuard protocol: a session older than this is not used.
const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn active(number: u8) -> ActivePeer {
        let key = PublicKey([number; 32]);
        let last_handshake = Some(Duration::from_secs(number.into()));
        ActivePeer { public_key: key, last_handshake, packets: [1, number.into()], bytes: [100, 200] }
    }

    fn text(traffic: &PeerTraffic) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(traffic.clone()));
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        text
    }

    #[test]
    fn peers_have_series_up_to_the_limit_and_the_rest_is_one() {
        let traffic = PeerTraffic::new();
        let figures =
            PeerFigures { direct: 120, overdue: 3, active: (0..120).map(active).collect(), ..Default::default() };
        traffic.update(figures, UNIX_EPOCH + Duration::from_secs(1000), |_| Some("a.example".to_owned()));
        let text = text(&traffic);
        let key = PublicKey([7; 32]);
        for line in [
            format!(r#"peer_wireguard_peer_packets_total{{peer="{key}",name="a.example",direction="sent"}} 7"#),
            format!(r#"peer_wireguard_peer_last_handshake_timestamp_seconds{{peer="{key}",name="a.example"}} 993.0"#),
            r#"peer_wireguard_peer_bytes_total{peer="other",name="other",direction="received"} 2000"#.to_owned(),
            r#"peer_wireguard_paths{path="direct"} 120"#.to_owned(),
            "peer_wireguard_handshakes_overdue 3".to_owned(),
            "peer_wireguard_peers_unlisted 20".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("peer_wireguard_peer_bytes_total")).count(), 202);
    }
}
