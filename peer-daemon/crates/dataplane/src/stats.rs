//! What a dataplane tells.

use std::time::Duration;

use ipnet::IpNet;
use peer_common::{Counter, DropReason, PacketCount};
use peer_core::policy::compile::Work;

use crate::chain::Neighbour;
use crate::doctor::Finding;

/// Which dataplane, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode {
    /// `ebpf`, later also `userspace` and others.
    pub name: &'static str,
    /// One sentence.
    pub why: String,
    /// Loaded without CAP_PERFMON: the verifier adds Spectre fences, which cost time.
    pub hardened: bool,
}

/// Figures at one moment. Counters only grow as long as the pinned maps live.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// By counter, in packets.
    pub counters: Vec<(Counter, u64)>,
    /// By reason.
    pub drops: Vec<(DropReason, PacketCount)>,
    /// By route, in the order of the intent.
    pub routes: Vec<RouteStats>,
    /// Programs in place.
    pub attachments: Vec<Attachment>,
    /// What had to be put right in the chains.
    pub repairs: Repairs,
    /// What is wrong around us, at the last look: the driver's, not the dataplane's.
    pub findings: Vec<Finding>,
    /// Flows at the last scan.
    pub flows: u64,
    /// Mappings at the last scan.
    pub mappings: u64,
    /// Flows that fit.
    pub flows_max: u64,
    /// Whether the flow table is so full that flows which are not established end sooner.
    pub pressure: bool,
    /// Flows that one peer may have.
    pub peer_quota: u32,
    /// Flows of the peer that has most, at the last scan.
    pub busiest_peer_flows: u32,
    /// NAT ports that at least one mapping had taken at the last scan. A port serves many remote endpoints.
    pub ports_used: u32,
    /// NAT ports.
    pub ports_max: u32,
    /// Ports in use towards the remote that has most, at the last scan: of one source address.
    pub busiest_remote_ports: u32,
    /// Run time of programs, as far as the kernel keeps it (`kernel.bpf_stats_enabled`).
    pub programs: Vec<ProgramStats>,
    /// Bytes that flows have sent so far, at the last scan, to destinations on an uplink that do not answer: they may wait there.
    pub silent_bytes: u64,
    /// Memory of all maps, bytes.
    pub map_bytes: u64,
    /// Policy in force.
    pub policy_generation: u32,
    /// Entries of the policy in force.
    pub policy_entries: u32,
    /// How long the last change of rules took.
    pub policy_update: PolicyUpdate,
    /// What compiling policies took so far.
    pub policy_work: Work,
    /// Entries of the tables written or removed so far, but for flows.
    pub table_writes: u64,
    /// Next hops at the last scan.
    pub next_hops: u64,
    /// Next hops rewritten so far because something has changed on the node.
    pub next_hop_updates: u64,
    /// The last scan for expired flows.
    pub collected: Collected,
}

/// A change of rules, from the wish to the first packet that is judged by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyUpdate {
    /// To make tables of the rules.
    pub compiled: Duration,
    /// To write them and put them in force.
    pub written: Duration,
}

/// A route and what it carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStats {
    /// Index of its counters, as flows carry it.
    pub id: u32,
    /// Destination.
    pub destination: IpNet,
    /// Whether sources are replaced.
    pub masquerade: bool,
    /// Names of the uplinks that may carry it now.
    pub uplinks: Vec<String>,
    /// The device by which the kernel forwards it, if no uplink carries it: sources are kept.
    pub by_kernel: Option<String>,
    /// Why it is not served, if so.
    pub unserved: Option<String>,
    /// Mesh → LAN.
    pub out: PacketCount,
    /// LAN → mesh.
    pub back: PacketCount,
}

/// A program at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Program name.
    pub program: &'static str,
    /// Device name.
    pub device: String,
    /// Interface index.
    pub ifindex: u32,
    /// Id of the link, 0 if unknown.
    pub link_id: u32,
    /// Place in the chain, 0 is first; `None`: not in the chain.
    pub position: Option<usize>,
    /// Programs in the chain.
    pub chain: usize,
    /// What runs before it, first to last.
    pub ahead: Vec<Neighbour>,
    /// What is in force beside it, or in its place, and must not be.
    pub intruder: Option<String>,
}

impl Attachment {
    /// Why packets do not reach the program, if so. What is unknown and runs before it may let them pass: that is told by
    /// `doctor`, and is no reason to take the node out of service.
    #[must_use]
    pub fn unreached(&self) -> Option<String> {
        let what = format!("{} on {}", self.program, self.device);
        if self.position.is_none() {
            return Some(format!("{what}: not attached"));
        }
        if let Some(ending) = self.ahead.iter().find(|neighbour| neighbour.owner.ends_chain()) {
            return Some(format!("{what}: {} runs before it and ends the chain", ending.owner));
        }
        self.intruder.as_ref().map(|intruder| format!("{what}: {intruder}"))
    }
}

/// What had to be put right in the chains, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Programs that were not in their chain any more and were attached again.
    pub attached: u64,
    /// Programs that were moved ahead of one that ends the chain.
    pub reordered: u64,
    /// Looks at which one was left behind such a program, after several repairs had not lasted.
    pub given_up: u64,
}

/// Run time of a program since it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Program name.
    pub program: &'static str,
    /// How often it ran.
    pub runs: u64,
    /// How long in all.
    pub time: Duration,
}

/// One scan for expired flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Flows looked at.
    pub scanned: u64,
    /// Flows removed.
    pub expired: u64,
    /// Mappings without a flow that were removed.
    pub orphans: u64,
    /// Time it took.
    pub took: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Owner;

    #[test]
    fn only_what_is_known_to_end_the_chain_makes_a_program_unreached() {
        let attachment = |position, owner: Option<Owner>| Attachment {
            program: "peer_uplink_in",
            device: "eth0".into(),
            ifindex: 3,
            link_id: 7,
            position,
            chain: 2,
            ahead: owner.into_iter().map(|owner| Neighbour { program: 1, link: 2, owner }).collect(),
            intruder: None,
        };
        assert_eq!(attachment(Some(0), None).unreached(), None);
        assert_eq!(attachment(Some(1), Some(Owner::Unknown(None))).unreached(), None);
        assert_eq!(attachment(Some(1), Some(Owner::Peer("wt1".into()))).unreached(), None);
        let cilium = attachment(Some(1), Some(Owner::Cilium("cil_from_netdev".into()))).unreached();
        assert!(cilium.is_some_and(|why| why.contains("cil_from_netdev")));
        let intruder = Attachment { intruder: Some("a second one".into()), ..attachment(Some(0), None) };
        assert_eq!(intruder.unreached().as_deref(), Some("peer_uplink_in on eth0: a second one"));
        assert!(attachment(None, None).unreached().is_some_and(|why| why.contains("not attached")));
    }
}
