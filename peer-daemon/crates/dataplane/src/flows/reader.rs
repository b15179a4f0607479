//! Reads the tables of flows.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use peer_common::{Addr, Flow, FlowKey, FlowKind, Mapping, PacketCount};

use super::owners::Owners;
use super::recent::{Candidate, Recent};
use super::{End, Filter, FlowRecord, kind_of};
use crate::ebpf::{expiry, is_mapped};
use crate::sys::{self, Batches};
use crate::{Error, Intent};

/// Entries read by one system call.
const BATCH: usize = 1024;
const TCP: u32 = 6;

/// Reads the flows, on whichever thread it is asked: it has descriptors of its own. Packets do not wait for it.
#[derive(Debug)]
pub struct FlowReader {
    pub(crate) tables: Tables,
    pub(crate) names: Names,
    pub(crate) intent: Arc<Intent>,
}

/// Descriptors of the tables.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) flows: OwnedFd,
    pub(crate) mappings: OwnedFd,
    /// The flows that are not established expire early.
    pub(crate) pressure: bool,
}

/// What the numbers in the tables stand for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Devices by interface index.
    pub(crate) uplinks: BTreeMap<u32, String>,
    /// Destinations by id of the route.
    pub(crate) routes: BTreeMap<u32, IpNet>,
}

/// Flows at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The most recently active first.
    pub flows: Vec<FlowRecord>,
    /// Flows that were wanted besides.
    pub more: u64,
    /// `CLOCK_MONOTONIC` of the moment, nanoseconds.
    pub now_ns: u64,
}

impl FlowReader {
    /// The `limit` most recently active flows that `filter` takes. Takes about a second for a million flows, and memory for
    /// `limit` of them only. Blocks.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn list(&self, filter: &Filter, limit: usize) -> Result<Listing, Error> {
        let now_ns = sys::monotonic_coarse();
        let owners = Owners::new(&self.intent.peers);
        let recent = self.scan(filter, limit, &owners).map_err(|source| Error::io("scan the flow tables", source))?;
        let (kept, more) = recent.finish();
        let record = |candidate: &Candidate| record(candidate, &self.names, &owners, now_ns, self.tables.pressure);
        Ok(Listing { flows: kept.iter().filter_map(record).collect(), more, now_ns })
    }

    fn scan(&self, filter: &Filter, limit: usize, owners: &Owners) -> io::Result<Recent> {
        let (flows, mappings) = (self.tables.flows.as_fd(), self.tables.mappings.as_fd());
        let mut recent = Recent::new(limit);
        let mut batches = Batches::<FlowKey, Flow>::new(BATCH);
        loop {
            let mut ended = true;
            for (key, flow) in batches.next(flows)? {
                ended = false;
                if filter.takes(key, flow, owners) {
                    let reply = key.reply_key(flow.nat_addr, flow.nat_port);
                    let mapping = if is_mapped(flow) { sys::lookup::<_, Mapping>(mappings, &reply)? } else { None };
                    recent.add(Candidate { key: *key, flow: *flow, mapping });
                }
            }
            if ended {
                return Ok(recent);
            }
        }
    }
}

/// `None`: of a kind that this version does not know.
fn record(seen: &Candidate, names: &Names, owners: &Owners, now: u64, pressure: bool) -> Option<FlowRecord> {
    let Candidate { key, flow, mapping } = seen;
    let kind = kind_of(flow.kind)?;
    let peer = end(key.src, key.src_port);
    let active_ns = seen.active();
    let idle = Duration::from_nanos(now.saturating_sub(active_ns));
    let asked = !matches!(kind, FlowKind::FromNode) && flow.policy_id != 0;
    let uplink = |index| names.uplinks.get(&index).cloned().unwrap_or_else(|| format!("if{index}"));
    let to_peer = match mapping {
        Some(mapping) => Some(PacketCount { packets: mapping.packets, bytes: mapping.bytes }),
        None => is_mapped(flow).then(PacketCount::default),
    };
    Some(FlowRecord {
        protocol: u8::try_from(key.protocol).ok()?,
        kind,
        peer,
        destination: end(key.dst, key.dst_port),
        nat: (kind == FlowKind::Masqueraded).then(|| end(flow.nat_addr, flow.nat_port)),
        uplink: (flow.uplink != 0).then(|| uplink(flow.uplink)),
        route: names.routes.get(&flow.route_id).copied(),
        rule: asked.then_some(flow.policy_id),
        peer_id: owners.of(peer.addr),
        from_peer: PacketCount { packets: flow.packets, bytes: flow.bytes },
        to_peer,
        created_ns: flow.created,
        active_ns,
        age: Duration::from_nanos(now.saturating_sub(flow.created)),
        idle,
        expires_in: expiry::timeout(key.protocol, flow, mapping.as_ref(), pressure).saturating_sub(idle),
        tcp: (key.protocol == TCP).then(|| expiry::tcp_state(flow, mapping.as_ref())),
    })
}

fn end(addr: Addr, port: u16) -> End {
    End { addr: IpAddr::from(addr), port: u16::from_be(port) }
}
