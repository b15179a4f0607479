//! Figures in Prometheus' terms. Labels come from the enums of `peer-common` and, for so many of them, from the routes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use peer_common::PacketCount;
use peer_common::next_hop::MAX_NEXT_HOPS;
use peer_metrics::{Series, counter, counters, describe, gauge, gauges, seconds};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::doctor::Check;
use crate::observe::Observer;
use crate::{Mode, RouteStats, Stats};

impl Collector for Stats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let paths = self.counters.iter().map(|&(counter, value)| ([("path", counter.name())], value));
        counters(&mut encoder, "peer_packets", "Packets by the path they took, and events of flows.", paths)?;
        let drops = || self.drops.iter().map(|&(reason, count)| ([("reason", reason.name())], count));
        counters(&mut encoder, "peer_dropped_packets", "Packets dropped by the programs.", drops().map(packets))?;
        counters(&mut encoder, "peer_dropped_bytes", "Bytes of layer 3 dropped by the programs.", drops().map(bytes))?;
        self.encode_served(&mut encoder)?;
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
        let help = "NAT ports in use at the last scan towards the address and port that has most of them.";
        gauge(&mut encoder, "peer_nat_ports_busiest_remote", help, self.busiest_remote_ports.into())?;
        self.encode_programs(&mut encoder)?;
        gauge(&mut encoder, "peer_bpf_map_bytes", "Memory of all maps of the programs.", self.map_bytes)?;
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
        counters(&mut encoder, "peer_policy_compiles", help, parts)?;
        let help = "Entries written to the tables or removed from them, but for flows.";
        counter(&mut encoder, "peer_table_writes", help, self.table_writes)?;
        gauge(&mut encoder, "peer_next_hops", "Next hops that flows use, at the last scan.", self.next_hops)?;
        let max = u64::from(MAX_NEXT_HOPS - 1);
        gauge(&mut encoder, "peer_next_hops_max", "Next hops that fit; more are resolved for each packet.", max)?;
        let help = "Next hops rewritten because a neighbour, a route or an uplink has changed.";
        counter(&mut encoder, "peer_next_hop_updates", help, self.next_hop_updates)?;
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
        counter(&mut encoder, "peer_denied_evicted", help, denied.evicted)?;
        let closed = self.closed().map(|(reason, count)| ([("reason", reason.name())], count));
        counters(&mut encoder, "peer_flows_closed", "Flows that the daemon has removed.", closed)
    }
}

impl Collector for Mode {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let hardened = if self.hardened { "true" } else { "false" };
        let labels = [("mode", self.name), ("hardened", hardened)];
        let help = "The dataplane in use; hardened: without CAP_PERFMON, at twice the cost of the programs.";
        gauges(&mut encoder, "peer_dataplane_info", help, [(labels, 1)])
    }
}

/// Routes that have series of their own; what the others carry is summed up.
pub const ROUTE_SERIES: usize = 200;

/// What routes have carried, as series that outlive one look at [`Stats`]. Clones share them.
#[derive(Clone, Debug)]
pub struct RouteTraffic(Arc<Mutex<Series<IpNet, 4>>>);

impl RouteTraffic {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Series::new(ROUTE_SERIES))))
    }

    /// Takes the counters of the routes.
    pub fn update(&self, routes: &[RouteStats]) {
        let row = |route: &RouteStats| {
            let (out, back) = (route.out, route.back);
            (route.destination, [out.packets, back.packets, out.bytes, back.bytes])
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).update(routes.iter().map(row));
    }
}

impl Default for RouteTraffic {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector for RouteTraffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<_> = series.own().map(|(route, counts)| (route.to_string(), *counts)).collect();
        rows.push(("other".to_owned(), *series.rest()));
        let values = |first: usize| {
            rows.iter().flat_map(move |(route, counts)| {
                let labels = |direction| [("route", route.as_str()), ("direction", direction)];
                [(labels("out"), counts[first]), (labels("in"), counts[first + 1])]
            })
        };
        counters(
            &mut encoder,
            "peer_route_packets",
            "Packets forwarded by a route; other: by those without series.",
            values(0),
        )?;
        let help = "Bytes of layer 3 forwarded by a route; other: by those without series.";
        counters(&mut encoder, "peer_route_bytes", help, values(2))
    }
}

impl Stats {
    /// Which ones are not served, and why, is what `status` says.
    fn encode_served(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let unserved = self.routes.iter().filter(|route| route.unserved.is_some()).count();
        let kernel = self.routes.iter().filter(|route| route.by_kernel.is_some()).count();
        let served = self.routes.len() - unserved - kernel;
        let states = [("served", served), ("kernel", kernel), ("unserved", unserved)];
        let states = states.map(|(state, count)| ([("state", state)], count as u64));
        let help = "Routes: served by an uplink, forwarded by the kernel with sources kept, or not served.";
        gauges(encoder, "peer_routes", help, states)
    }

    /// Zero unless the kernel is told to keep them.
    fn encode_programs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let runs = self.programs.iter().map(|program| ([("program", program.program)], program.runs));
        let help = "Runs of a program, with kernel.bpf_stats_enabled.";
        counters(encoder, "peer_program_runs", help, runs)?;
        let help = "Run time of a program, with kernel.bpf_stats_enabled.";
        let mut family = describe(encoder, "peer_program_seconds", help, MetricType::Counter)?;
        for program in &self.programs {
            let time = ConstCounter::new(program.time.as_secs_f64());
            time.encode(family.encode_family(&[("program", program.program)])?)?;
        }
        Ok(())
    }

    fn encode_attachments(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Place of a program in its chain: 0 is first, -1 is not attached.";
        let mut family = describe(encoder, "peer_program_position", help, MetricType::Gauge)?;
        for attachment in &self.attachments {
            let labels = [("program", attachment.program), ("device", attachment.device.as_str())];
            let position = attachment.position.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1);
            ConstGauge::new(position).encode(family.encode_family(&labels)?)?;
        }
        let repairs = self.repairs;
        let kinds = [("attached", repairs.attached), ("reordered", repairs.reordered), ("given_up", repairs.given_up)];
        let help = "Programs put back into their chain, moved ahead of one that ends it, or left behind one.";
        counters(encoder, "peer_order_repairs", help, kinds.map(|(kind, count)| ([("kind", kind)], count)))
    }

    /// Every check has its sample, so that a conflict that ends is seen to end.
    fn encode_findings(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Conflicts found at the last look, as `doctor` tells them; notes are not counted.";
        let counts = Check::ALL.map(|check| {
            let conflicts = self.findings.iter().filter(|found| found.check == check && found.severity.is_conflict());
            ([("check", check.name())], conflicts.count() as u64)
        });
        gauges(encoder, "peer_doctor_findings", help, counts)
    }
}

fn packets<L>((labels, count): (L, PacketCount)) -> (L, u64) {
    (labels, count.packets)
}

fn bytes<L>((labels, count): (L, PacketCount)) -> (L, u64) {
    (labels, count.bytes)
}
