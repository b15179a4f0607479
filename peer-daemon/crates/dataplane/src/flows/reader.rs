//! Reads the tables of flows.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use peer_common::{Flow, FlowKey, FlowKind, Mapping, PacketCount};

use super::owners::Owners;
use super::recent::{Candidate, Recent};
use super::{Filter, FlowRecord, end, kind_of};
use crate::ebpf::{expiry, is_mapped, next_hops};
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
    pub(crate) next_hops: OwnedFd,
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
    /// The `limit` most recently active flows that `filter` takes, in memory for `limit` of them only. Looks an answer up
    /// for each flow that the filter takes, which is most of the time it needs. Blocks.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn list(&self, filter: &Filter, limit: usize) -> Result<Listing, Error> {
        let now_ns = sys::monotonic_coarse();
        let owners = Owners::new(&self.intent.peers);
        let recent = self.scan(filter, limit, &owners).map_err(|source| Error::io("scan the flow tables", source))?;
        let (kept, more) = recent.finish();
        let hops = self.tables.next_hops.as_fd();
        let record = |candidate: &Candidate| {
            // A table that cannot be read costs the name of the device, not the listing.
            let uplink = next_hops::uplink(hops, candidate.flow.next_hop).ok().flatten();
            record(candidate, uplink, &self.names, &owners, now_ns, self.tables.pressure)
        };
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
fn record(
    seen: &Candidate,
    uplink: Option<u32>,
    names: &Names,
    owners: &Owners,
    now: u64,
    pressure: bool,
) -> Option<FlowRecord> {
    let Candidate { key, flow, mapping } = seen;
    let kind = kind_of(flow.kind)?;
    let peer = end(key.src, key.src_port);
    let active_ns = seen.active();
    let idle = Duration::from_nanos(now.saturating_sub(active_ns));
    let name = |index| names.uplinks.get(&index).cloned().unwrap_or_else(|| format!("if{index}"));
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
        uplink: uplink.map(name),
        route: names.routes.get(&flow.route_id).copied(),
        // No rule has the id 0.
        rule: (flow.policy_id != 0).then_some(flow.policy_id),
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use peer_common::Addr;

    use super::*;
    use crate::flows::End;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().expect("an address").into()
    }

    fn recorded(flow: Flow, uplink: Option<u32>, mapping: Option<Mapping>) -> Option<FlowRecord> {
        let (src, dst) = (addr("100.64.0.10"), addr("198.51.100.80"));
        let key = FlowKey { src, dst, src_port: 40_000_u16.to_be(), dst_port: 80_u16.to_be(), protocol: TCP };
        let names = Names {
            uplinks: [(2, "eth0".to_owned())].into(),
            routes: [(5, "198.51.100.0/24".parse().expect("a prefix"))].into(),
        };
        record(&Candidate { key, flow, mapping }, uplink, &names, &Owners::default(), 20_000_000_000, false)
    }

    fn flow(kind: FlowKind) -> Flow {
        Flow {
            nat_addr: addr("198.51.100.1"),
            nat_port: 21_000_u16.to_be(),
            kind: kind as u8,
            policy_id: 7,
            route_id: 5,
            created: 5_000_000_000,
            last_seen: 8_000_000_000,
            tcp_seen: 3,
            ..Flow::default()
        }
    }

    #[test]
    fn a_masqueraded_flow_has_all() {
        let mapping = Mapping { last_seen: 10_000_000_000, packets: 9, bytes: 900, tcp_seen: 3, ..Mapping::default() };
        let record = recorded(flow(FlowKind::Masqueraded), Some(2), Some(mapping)).expect("a kind");
        assert_eq!(record.nat, Some(End { addr: "198.51.100.1".parse().expect("an address"), port: 21_000 }));
        assert_eq!((record.uplink.as_deref(), record.rule), (Some("eth0"), Some(7)));
        assert_eq!(record.route, "198.51.100.0/24".parse().ok());
        assert_eq!((record.age.as_secs(), record.idle.as_secs(), record.expires_in.as_secs()), (15, 10, 7430));
        assert_eq!(record.to_peer, Some(PacketCount { packets: 9, bytes: 900 }));
    }

    #[test]
    fn flows_of_the_node_have_neither_nat_nor_counted_answers() {
        let local = Flow { route_id: peer_common::route::NO_ROUTE, ..flow(FlowKind::ToNode) };
        let record = recorded(local, None, None).expect("a kind");
        assert_eq!((record.nat, record.uplink, record.route, record.to_peer), (None, None, None, None));
        assert_eq!(record.rule, Some(7));
        let own = recorded(Flow { policy_id: 0, kind: FlowKind::FromNode as u8, ..local }, None, None).expect("a kind");
        assert_eq!(own.rule, None, "no rule is asked");
    }

    #[test]
    fn a_lost_mapping_is_no_answer_and_a_device_without_name_has_its_number() {
        let record = recorded(flow(FlowKind::Routed), Some(9), None).expect("a kind");
        assert_eq!((record.to_peer, record.uplink.as_deref()), (Some(PacketCount::default()), Some("if9")));
        assert_eq!(recorded(Flow { kind: 99, ..flow(FlowKind::ToNode) }, None, None), None, "of another version");
    }
}
