//! Figures in Prometheus' terms. Labels come from the enums of `peer-common` and from the configured routes.

use std::fmt;
use std::time::Duration;

use peer_common::PacketCount;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::doctor::Check;
use crate::observe::Observer;
use crate::{Mode, Stats};

impl Collector for Stats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let paths = self.counters.iter().map(|&(counter, value)| ([("path", counter.name())], value));
        counter(&mut encoder, "peer_packets", "Packets by the path they took, and events of flows.", paths)?;
        let drops = || self.drops.iter().map(|&(reason, count)| ([("reason", reason.name())], count));
        counter(&mut encoder, "peer_dropped_packets", "Packets dropped by the programs.", drops().map(packets))?;
        counter(&mut encoder, "peer_dropped_bytes", "Bytes of layer 3 dropped by the programs.", drops().map(bytes))?;
        self.encode_routes(&mut encoder)?;
        self.encode_attachments(&mut encoder)?;
        self.encode_findings(&mut encoder)?;
        gauge(&mut encoder, "peer_flows", "Flows at the last scan.", self.flows)?;
        gauge(&mut encoder, "peer_mappings", "Mappings at the last scan.", self.mappings)?;
        gauge(&mut encoder, "peer_flows_max", "Flows that fit.", self.flows_max)?;
        gauge(
            &mut encoder,
            "peer_flow_pressure",
            "1: the table is so full that flows end sooner.",
            self.pressure.into(),
        )?;
        gauge(&mut encoder, "peer_flow_quota", "Flows that one peer may have.", self.peer_quota.into())?;
        let busiest = self.busiest_peer_flows.into();
        gauge(&mut encoder, "peer_flows_busiest_peer", "Flows of the peer that had most at the last scan.", busiest)?;
        gauge(&mut encoder, "peer_nat_ports_used", "NAT ports in use at the last scan.", self.ports_used.into())?;
        gauge(&mut encoder, "peer_nat_ports_max", "NAT ports.", self.ports_max.into())?;
        self.encode_programs(&mut encoder)?;
        gauge(&mut encoder, "peer_map_bytes", "Memory of all maps.", self.map_bytes)?;
        let generation = self.policy_generation.into();
        gauge(&mut encoder, "peer_policy_generation", "Which policy is in force; wraps.", generation)?;
        gauge(&mut encoder, "peer_policy_entries", "Entries of the policy in force.", self.policy_entries.into())?;
        let (compiled, written) = (self.policy_update.compiled, self.policy_update.written);
        seconds(&mut encoder, "peer_policy_compile_seconds", "Time to compile the rules that changed last.", compiled)?;
        let help = "Time to write the tables that changed last, until packets were judged by them.";
        seconds(&mut encoder, "peer_policy_write_seconds", help, written)?;
        let work = self.policy_work;
        let parts = [([("part", "prefixes")], work.gathered), ([("part", "cells")], work.cells)];
        let help = "How often a part of the policy was compiled anew, not only where it differs from the one before.";
        counter(&mut encoder, "peer_policy_compiles", help, parts.into_iter())?;
        let help = "Entries written to the tables or removed from them, but for flows.";
        let writes = ConstCounter::new(self.table_writes);
        writes.encode(encoder.encode_descriptor("peer_table_writes", help, None, MetricType::Counter)?)?;
        let generation = self.route_generation.into();
        gauge(&mut encoder, "peer_route_generation", "Looks taken at the node's routes; wraps.", generation)?;
        let collected = self.collected;
        gauge(&mut encoder, "peer_gc_scanned", "Flows looked at by the last scan.", collected.scanned)?;
        gauge(&mut encoder, "peer_gc_expired", "Flows removed by the last scan.", collected.expired)?;
        gauge(&mut encoder, "peer_gc_orphans", "Mappings without a flow removed by the last scan.", collected.orphans)?;
        seconds(&mut encoder, "peer_gc_seconds", "Time that the last scan took.", collected.took)
    }
}

impl Collector for Observer {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let denied = self.denied_stats();
        gauge(&mut encoder, "peer_denied_tuples", "Tuples of dropped packets that are remembered.", denied.used)?;
        gauge(&mut encoder, "peer_denied_tuples_max", "Tuples of dropped packets that fit.", denied.max)?;
        let help = "Tuples of dropped packets that gave way to others before their time.";
        let evicted = ConstCounter::new(denied.evicted);
        evicted.encode(encoder.encode_descriptor("peer_denied_evicted", help, None, MetricType::Counter)?)?;
        let closed = self.closed().map(|(reason, count)| ([("reason", reason.name())], count));
        counter(&mut encoder, "peer_flows_closed", "Flows that the daemon has removed.", closed.into_iter())
    }
}

impl Collector for Mode {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let hardened = if self.hardened { "true" } else { "false" };
        let labels = [("mode", self.name), ("hardened", hardened)];
        let help = "The dataplane in use; hardened: without CAP_PERFMON, at twice the cost of the programs.";
        let mut family = encoder.encode_descriptor("peer_dataplane", help, None, MetricType::Gauge)?;
        ConstGauge::new(1_u64).encode(family.encode_family(&labels)?)
    }
}

impl Stats {
    fn encode_routes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let names: Vec<String> = self.routes.iter().map(|route| route.destination.to_string()).collect();
        let counts = || {
            self.routes.iter().zip(&names).flat_map(|(route, name)| {
                let labels = |direction| [("route", name.as_str()), ("direction", direction)];
                [(labels("out"), route.out), (labels("in"), route.back)]
            })
        };
        counter(encoder, "peer_route_packets", "Packets forwarded by a route.", counts().map(packets))?;
        counter(encoder, "peer_route_bytes", "Bytes of layer 3 forwarded by a route.", counts().map(bytes))?;
        let help = "Whether an uplink serves the route.";
        let mut family = encoder.encode_descriptor("peer_route_served", help, None, MetricType::Gauge)?;
        for (route, name) in self.routes.iter().zip(&names) {
            let served = ConstGauge::new(u64::from(route.unserved.is_none()));
            served.encode(family.encode_family(&[("route", name.as_str())])?)?;
        }
        Ok(())
    }

    /// Zero unless the kernel is told to keep them.
    fn encode_programs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let runs = self.programs.iter().map(|program| ([("program", program.program)], program.runs));
        let help = "Runs of a program, with kernel.bpf_stats_enabled.";
        counter(encoder, "peer_program_runs", help, runs)?;
        let help = "Run time of a program, with kernel.bpf_stats_enabled.";
        let mut family = encoder.encode_descriptor("peer_program_seconds", help, None, MetricType::Counter)?;
        for program in &self.programs {
            let time = ConstCounter::new(program.time.as_secs_f64());
            time.encode(family.encode_family(&[("program", program.program)])?)?;
        }
        Ok(())
    }

    fn encode_attachments(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Place of a program in its chain: 0 is first, -1 is not attached.";
        let mut family = encoder.encode_descriptor("peer_program_position", help, None, MetricType::Gauge)?;
        for attachment in &self.attachments {
            let labels = [("program", attachment.program), ("device", attachment.device.as_str())];
            let position = attachment.position.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1);
            ConstGauge::new(position).encode(family.encode_family(&labels)?)?;
        }
        let repairs = self.repairs;
        let kinds = [("attached", repairs.attached), ("reordered", repairs.reordered), ("given_up", repairs.given_up)];
        let help = "Programs put back into their chain, moved ahead of one that ends it, or left behind one.";
        counter(encoder, "peer_order_repairs", help, kinds.map(|(kind, count)| ([("kind", kind)], count)).into_iter())
    }

    /// Every check has its sample, so that a conflict that ends is seen to end.
    fn encode_findings(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Conflicts found at the last look, as `doctor` tells them; notes are not counted.";
        let mut family = encoder.encode_descriptor("peer_doctor_findings", help, None, MetricType::Gauge)?;
        for check in Check::ALL {
            let conflicts = self.findings.iter().filter(|found| found.check == check && found.severity.is_conflict());
            let count = ConstGauge::new(conflicts.count() as u64);
            count.encode(family.encode_family(&[("check", check.name())])?)?;
        }
        Ok(())
    }
}

fn packets<L>((labels, count): (L, PacketCount)) -> (L, u64) {
    (labels, count.packets)
}

fn bytes<L>((labels, count): (L, PacketCount)) -> (L, u64) {
    (labels, count.bytes)
}

fn counter<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn seconds(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, time: Duration) -> fmt::Result {
    let time = ConstGauge::new(time.as_secs_f64());
    time.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
