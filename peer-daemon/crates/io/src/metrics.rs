//! Figures of all shards in Prometheus' terms.

use std::fmt;
use std::sync::Arc;

use peer_core::shard::ShardId;
use peer_metrics::{counters, gauges};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::stats::{Figure, IoDrop, ShardStats, Side};

/// Collects from shards. Labels: the shard's number, a direction, a drop reason.
#[derive(Debug, Default)]
pub struct IoMetrics {
    shards: Vec<(String, Arc<ShardStats>)>,
}

/// A name, its help and the figure it stands for.
type Named<T> = (&'static str, &'static str, fn(&T) -> &Figure);

/// A device, a direction and the figures of both.
type Labelled = (&'static str, &'static str, fn(&ShardStats) -> &Side);
/// An offload and its flag.
type Flag = (&'static str, fn(&ShardStats) -> &Figure);

const SIDES: [Labelled; 7] = [
    ("tun", "in", |stats| &stats.tun_in),
    ("tun", "out", |stats| &stats.tun_out),
    ("udp", "in", |stats| &stats.udp_in),
    ("udp", "out", |stats| &stats.udp_out),
    ("relay", "in", |stats| &stats.relay_in),
    ("relay", "out", |stats| &stats.relay_out),
    ("stun", "in", |stats| &stats.stun_in),
];

const SIDE_COUNTERS: [Named<Side>; 5] = [
    (
        "peer_io_packets",
        "Packets (tun) or datagrams (udp, relay, stun); in: to the daemon. Those of stun are also in udp.",
        |side| &side.packets,
    ),
    ("peer_io_bytes", "Bytes of packets from layer 3 (tun), or of datagrams (udp, relay).", |side| &side.bytes),
    ("peer_io_calls", "System calls that read or write; relay: batches passed on.", |side| &side.calls),
    ("peer_io_super_packets", "Transfers that carried several packets as one.", |side| &side.super_packets),
    ("peer_io_joined_packets", "Packets that came or went within a super-packet.", |side| &side.joined_packets),
];

const COUNTERS: [Named<ShardStats>; 4] = [
    ("peer_io_fragmented_packets", "Packets that went into the mesh in fragments.", |stats| &stats.fragmented),
    ("peer_io_source_fallbacks", "Times a source address was ours no more.", |stats| &stats.source_fallbacks),
    ("peer_io_receive_errors", "Errors of receiving that were no datagram.", |stats| &stats.receive_errors),
    ("peer_io_turns", "Turns of the shard's loop.", |stats| &stats.turns),
];

const GAUGES: [Named<ShardStats>; 2] = [
    ("peer_io_receive_buffer_bytes", "What the kernel keeps for arriving datagrams.", |stats| &stats.receive_buffer),
    ("peer_io_send_buffer_bytes", "What the kernel keeps for datagrams to send.", |stats| &stats.send_buffer),
];

const FALLBACKS: [Flag; 3] = [
    ("tun_tcp", |stats| &stats.tso_fallback),
    ("tun_udp", |stats| &stats.uso_fallback),
    ("udp_gso", |stats| &stats.gso_fallback),
];

impl IoMetrics {
    /// Of these shards.
    pub fn new(shards: impl IntoIterator<Item = (ShardId, Arc<ShardStats>)>) -> Self {
        Self { shards: shards.into_iter().map(|(id, stats)| (id.number().to_string(), stats)).collect() }
    }

    fn all(&self) -> impl Iterator<Item = (&str, &ShardStats)> {
        self.shards.iter().map(|(shard, stats)| (shard.as_str(), &**stats))
    }
}

impl Collector for IoMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        for (name, help, figure) in SIDE_COUNTERS {
            let values = self.all().flat_map(|(shard, stats)| {
                SIDES.map(|(device, direction, side)| {
                    let labels = [("shard", shard), ("device", device), ("direction", direction)];
                    (labels, figure(side(stats)).get())
                })
            });
            counters(encoder, name, help, values)?;
        }
        let drops = self.all().flat_map(|(shard, stats)| {
            IoDrop::ALL.iter().map(move |&reason| ([("shard", shard), ("reason", reason.name())], stats.drops(reason)))
        });
        let help = "Packets and datagrams that packet I/O dropped.";
        counters(encoder, "peer_io_dropped", help, drops)?;
        for (name, help, figure) in COUNTERS {
            let values = self.all().map(|(shard, stats)| ([("shard", shard)], figure(stats).get()));
            counters(encoder, name, help, values)?;
        }
        for (name, help, figure) in GAUGES {
            let values = self.all().map(|(shard, stats)| ([("shard", shard)], figure(stats).get()));
            gauges(encoder, name, help, values)?;
        }
        let fallbacks = self.all().flat_map(|(shard, stats)| {
            FALLBACKS.map(|(offload, figure)| ([("shard", shard), ("offload", offload)], figure(stats).get()))
        });
        let help = "1 once the kernel refused an offload, which is not used since.";
        gauges(encoder, "peer_io_offload_refused", help, fallbacks)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn text_has_every_figure_with_its_labels() {
        let stats = Arc::new(ShardStats::default());
        stats.tun_out.packets.add(7);
        stats.udp_in.bytes.add(99);
        stats.dropped(IoDrop::UdpTooBig, 3);
        stats.uso_fallback.set(1);
        stats.receive_buffer.set(4096);
        let shard = ShardId::new(1, 2).expect("valid");
        let mut registry = Registry::default();
        registry.register_collector(Box::new(IoMetrics::new([(shard, stats)])));
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string");
        for line in [
            "peer_io_packets_total{shard=\"1\",device=\"tun\",direction=\"out\"} 7",
            "peer_io_bytes_total{shard=\"1\",device=\"udp\",direction=\"in\"} 99",
            "peer_io_dropped_total{shard=\"1\",reason=\"udp_too_big\"} 3",
            "peer_io_offload_refused{shard=\"1\",offload=\"tun_udp\"} 1",
            "peer_io_receive_buffer_bytes{shard=\"1\"} 4096",
            "peer_io_turns_total{shard=\"1\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
