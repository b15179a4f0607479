//! Metrics of all engines of the device. No label names a peer: cardinality is fixed.

use std::fmt;
use std::sync::Arc;

use peer_metrics::{counter, counters, gauge, gauges};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::error::{DatagramError, PacketError};
use crate::limits::{
    EVENT_QUEUE, FIRST_FRAGMENTS, KNOWN_ADDRESSES, MAX_PEERS, SOURCE_BUCKETS, STAGED_BYTES, TRANSMIT_QUEUE,
    WAITING_FRAGMENTS,
};
use crate::stats::{EngineStats, Figure, Handshake, Traffic};

/// Picks a figure of an engine.
type Pick = fn(&EngineStats) -> &Figure;
/// Picks a figure of one direction.
type PickTraffic = fn(&Traffic) -> &Figure;

/// Sums over the engines' figures at each scrape.
#[derive(Clone, Debug)]
pub struct EngineCollector {
    engines: Vec<Arc<EngineStats>>,
}

impl EngineCollector {
    /// For these engines: one per shard.
    #[must_use]
    pub fn new(engines: impl IntoIterator<Item = Arc<EngineStats>>) -> Self {
        Self { engines: engines.into_iter().collect() }
    }

    fn sum(&self, figure: impl Fn(&EngineStats) -> u64) -> u64 {
        self.engines.iter().map(|stats| figure(stats)).sum()
    }

    fn traffic(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let families: [(&str, &str, PickTraffic); 4] = [
            ("peer_wireguard_datagrams", "WireGuard messages of every kind.", |traffic| &traffic.datagrams),
            ("peer_wireguard_datagram_bytes", "Bytes of WireGuard messages, without UDP and IP headers.", |traffic| {
                &traffic.datagram_bytes
            }),
            ("peer_wireguard_packets", "Packets inside the tunnels.", |traffic| &traffic.packets),
            ("peer_wireguard_packet_bytes", "Bytes of packets inside the tunnels, without padding.", |traffic| {
                &traffic.packet_bytes
            }),
        ];
        for (name, help, figure) in families {
            let received = self.sum(|stats| figure(&stats.received).get());
            let sent = self.sum(|stats| figure(&stats.sent).get());
            counters(encoder, name, help, labelled("direction", [("received", received), ("sent", sent)]))?;
        }
        Ok(())
    }

    fn drops(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let datagrams =
            DatagramError::ALL.iter().map(|reason| (reason.name(), self.sum(|stats| stats.datagram_drops(*reason))));
        let help = "WireGuard messages that yielded neither a packet nor an answer.";
        counters(encoder, "peer_wireguard_datagrams_dropped", help, labelled("reason", datagrams))?;
        let packets =
            PacketError::ALL.iter().map(|reason| (reason.name(), self.sum(|stats| stats.packet_drops(*reason))));
        let help = "Packets for the mesh that did not leave.";
        counters(encoder, "peer_wireguard_packets_dropped", help, labelled("reason", packets))
    }

    fn fragments(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let results: [(&str, Pick); 4] = [
            ("held", |stats| &stats.fragments_held),
            ("followed", |stats| &stats.fragments_followed),
            ("expired", |stats| &stats.fragments_expired),
            ("evicted", |stats| &stats.fragments_evicted),
        ];
        let values = results.map(|(result, figure)| (result, self.sum(|stats| figure(stats).get())));
        let help =
            "Fragments from the mesh that came before the first of their packet: all (held), and what became of them.";
        counters(encoder, "peer_wireguard_fragments", help, labelled("result", values))
    }

    fn tables(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let engines = self.engines.len();
        let tables: [(&str, Pick, usize); 9] = [
            ("peers", |stats| &stats.peers, MAX_PEERS),
            ("tunnels", |stats| &stats.tunnels, MAX_PEERS),
            ("staged_bytes", |stats| &stats.staged_bytes, STAGED_BYTES),
            ("transmit_queue", |stats| &stats.transmit_queue, TRANSMIT_QUEUE),
            ("known_addresses", |stats| &stats.known_addresses, KNOWN_ADDRESSES),
            ("source_buckets", |stats| &stats.source_buckets, SOURCE_BUCKETS),
            ("first_fragments", |stats| &stats.first_fragments, FIRST_FRAGMENTS),
            ("fragments", |stats| &stats.fragments_waiting, WAITING_FRAGMENTS),
            ("events", |stats| &stats.events, EVENT_QUEUE),
        ];
        let used = tables.map(|(table, figure, _)| (table, self.sum(|stats| figure(stats).get())));
        gauges(encoder, "peer_wireguard_table_entries", "Entries of tables and queues.", labelled("table", used))?;
        let sizes = tables.map(|(table, _, size)| (table, (size * engines) as u64));
        gauges(encoder, "peer_wireguard_table_size", "Entries that fit tables and queues.", labelled("table", sizes))
    }
}

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let handshakes = Handshake::ALL.map(|what| (what.name(), self.sum(|stats| stats.handshakes(what))));
        counters(encoder, "peer_wireguard_handshakes", "What happened to handshakes.", labelled("result", handshakes))?;
        self.traffic(encoder)?;
        self.drops(encoder)?;
        let configured = self.sum(|stats| stats.peers.get());
        let connected = self.sum(|stats| stats.connected.get());
        let states = [("configured", configured), ("connected", connected)];
        let help = "Peers configured, and those of them with a valid session.";
        gauges(encoder, "peer_wireguard_peers", help, labelled("state", states))?;
        self.fragments(encoder)?;
        self.tables(encoder)?;
        let singles: [(&str, &str, Pick); 2] = [
            ("peer_wireguard_staged_packets", "Packets that wait for a session.", |stats| &stats.staged_packets),
            ("peer_wireguard_contested_prefixes", "Prefixes that two peers claim.", |stats| &stats.contested_prefixes),
        ];
        for (name, help, figure) in singles {
            gauge(encoder, name, help, self.sum(|stats| figure(stats).get()))?;
        }
        let help = "Events that the control side did not fetch in time.";
        counter(encoder, "peer_wireguard_events_lost", help, self.sum(|stats| stats.events_lost.get()))
    }
}

/// Values of one label, as [`counters`] and [`gauges`] want them.
fn labelled<'a>(
    label: &'static str,
    values: impl IntoIterator<Item = (&'a str, u64)>,
) -> impl Iterator<Item = ([(&'static str, &'a str); 1], u64)> {
    values.into_iter().map(move |(name, value)| ([(label, name)], value))
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn the_text_has_sums_over_engines_and_all_reasons() {
        let engines = [Arc::new(EngineStats::default()), Arc::new(EngineStats::default())];
        engines[0].drop_datagram(DatagramError::Replay);
        engines[1].drop_datagram(DatagramError::Replay);
        engines[1].drop_packets(PacketError::NoPeer, 5);
        engines[0].handshake(Handshake::CompletedAsInitiator);
        engines[0].peers.set(3);
        engines[1].received.packet(100);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(EngineCollector::new(engines)));
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            r#"peer_wireguard_datagrams_dropped_total{reason="replay"} 2"#,
            r#"peer_wireguard_packets_dropped_total{reason="no_peer"} 5"#,
            r#"peer_wireguard_handshakes_total{result="completed_as_initiator"} 1"#,
            r#"peer_wireguard_peers{state="configured"} 3"#,
            r#"peer_wireguard_packets_total{direction="received"} 1"#,
            r#"peer_wireguard_packet_bytes_total{direction="received"} 100"#,
            r#"peer_wireguard_table_size{table="peers"} 131072"#,
            "peer_wireguard_events_lost_total 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        for reason in DatagramError::ALL {
            assert!(text.contains(&format!(r#"reason="{}""#, reason.name())), "{reason:?}");
        }
    }
}
