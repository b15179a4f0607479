//! The scan for expired flows.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use peer_common::next_hop::MAX_NEXT_HOPS;
use peer_common::{Addr, Flow, FlowKey, FlowKind, Mapping};

use super::ages::Now;
use super::ports::PortCounts;
use super::{expiry, next_hops};
use crate::flows::Tables;
use crate::observe::{CloseReason, Ended};
use crate::sys::{self, Batches};
use crate::{Collected, Error};

/// Entries read by one system call.
const BATCH: usize = 1024;

/// The two tables of flows, and who is told of those that are removed.
pub(super) struct FlowTables<'a> {
    pub(super) flows: BorrowedFd<'a>,
    pub(super) mappings: BorrowedFd<'a>,
    pub(super) next_hops: BorrowedFd<'a>,
    pub(super) max: u64,
    pub(super) told: &'a dyn Fn(&Ended<'_>),
}

/// Counts after a scan.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) collected: Collected,
    pub(super) flows: u64,
    pub(super) mappings: u64,
    /// Flows of each peer that has any.
    pub(super) peers: BTreeMap<u32, u32>,
    /// Ports that at least one mapping has taken.
    pub(super) ports: u32,
    /// Ports in use towards each remote.
    pub(super) port_counts: PortCounts,
    /// By number, the next hops that some flow names.
    pub(super) next_hops: Vec<bool>,
    /// Bytes that flows have sent to destinations on the link that do not answer.
    pub(super) silent_bytes: u64,
}

impl FlowTables<'_> {
    /// Removes what has expired at `now`. `used` is the count of flows at the scan before, which tells the pressure, and `ports`
    /// what it found in use, which tells where ports are scarce. `counts` counts them anew.
    pub(super) fn collect(&self, now: Now, used: u64, ports: &PortCounts, counts: PortCounts) -> io::Result<Scan> {
        let started = Instant::now();
        let pressure = expiry::pressure(used, self.max);
        let next_hops = vec![false; MAX_NEXT_HOPS as usize];
        let mut sent = vec![0_u64; MAX_NEXT_HOPS as usize];
        let mut scan = Scan { next_hops, port_counts: counts, ..Scan::default() };
        for_each(self.flows, |key: &FlowKey, flow: &Flow| {
            scan.collected.scanned += 1;
            if self.expire_flow(key, flow, now, pressure || ports.is_scarce(key, flow))? {
                scan.collected.expired += 1;
            } else {
                scan.flows += 1;
                *scan.peers.entry(flow.peer_id).or_default() += 1;
                scan.port_counts.add(key, flow);
                match usize::try_from(flow.next_hop).ok().filter(|at| *at < sent.len()) {
                    Some(at) => {
                        scan.next_hops[at] = true;
                        sent[at] += flow.bytes;
                    }
                    // The kernel finds the neighbour for each packet.
                    None => scan.silent_bytes += flow.bytes,
                }
            }
            Ok(())
        })?;
        for (number, bytes) in (0..).zip(sent).skip(1).filter(|(_, bytes)| *bytes > 0) {
            if next_hops::is_silent(self.next_hops, number)? {
                scan.silent_bytes += bytes;
            }
        }
        let mut ports = vec![false; 1 << 16];
        for_each(self.mappings, |key: &FlowKey, mapping: &Mapping| {
            if self.expire_orphan(key, mapping, now)? {
                scan.collected.orphans += 1;
                return Ok(());
            }
            scan.mappings += 1;
            if mapping.kind == FlowKind::Masqueraded as u8 {
                scan.ports += u32::from(!std::mem::replace(&mut ports[usize::from(key.dst_port)], true));
            }
            Ok(())
        })?;
        scan.collected.took = started.elapsed();
        Ok(scan)
    }

    /// Removes all flows whose source after NAT is one of `gone`: nobody answers to it any more. Returns how many.
    pub(super) fn flush(&self, gone: &BTreeSet<Addr>) -> io::Result<u64> {
        let mut flushed = 0;
        for_each(self.flows, |key: &FlowKey, flow: &Flow| {
            if flow.kind == FlowKind::Masqueraded as u8 && gone.contains(&flow.nat_addr) {
                let mapping = self.mapping(key, flow)?;
                if sys::delete(self.flows, key)? {
                    flushed += 1;
                    self.tell(key, flow, mapping.as_ref(), CloseReason::AddressChanged);
                }
            }
            Ok(())
        })?;
        for_each(self.mappings, |key: &FlowKey, mapping: &Mapping| {
            if mapping.kind == FlowKind::Masqueraded as u8 && gone.contains(&key.dst) {
                sys::delete(self.mappings, key)?;
            }
            Ok(())
        })?;
        Ok(flushed)
    }

    /// Removes flows that `revoked` names, of those that an older policy than `generation` accepted. Each is asked about once
    /// for all calls with the same `asked`, and only until `deadline`; returns whether all were.
    ///
    /// A TCP connection of a peer that is still one stays, unless the table is under `pressure`: the programs end it by its next
    /// packet, so that both ends learn of it.
    pub(super) fn sweep(
        &self,
        generation: u32,
        (asked, deadline): (&mut HashSet<FlowKey>, Instant),
        pressure: bool,
        mut revoked: impl FnMut(&FlowKey) -> Result<Option<CloseReason>, Error>,
    ) -> Result<bool, Error> {
        let mut all = true;
        let mut refused = None;
        let failed = |source| Error::io("scan the flow tables", source);
        for_each(self.flows, |key: &FlowKey, flow: &Flow| {
            if flow.policy_generation == generation || refused.is_some() || asked.contains(key) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                all = false;
                return Ok(());
            }
            asked.insert(*key);
            match revoked(key) {
                Ok(None) => {}
                Ok(Some(why)) => {
                    let mapping = self.mapping(key, flow)?;
                    let known = why != CloseReason::PeerRemoved;
                    if pressure || !known || !expiry::is_connection(key, flow, mapping.as_ref()) {
                        self.remove(key, flow, mapping, why)?;
                    }
                }
                Err(error) => refused = Some(error),
            }
            Ok(())
        })
        .map_err(failed)?;
        refused.map_or(Ok(all), Err)
    }

    /// Tells of every flow that is held, as if it were removed.
    pub(super) fn tell_all(&self, why: CloseReason) -> io::Result<()> {
        for_each(self.flows, |key: &FlowKey, flow: &Flow| {
            self.tell(key, flow, self.mapping(key, flow)?.as_ref(), why);
            Ok(())
        })
    }

    /// Descriptors for a reader.
    pub(super) fn share(&self, pressure: bool) -> io::Result<Tables> {
        Ok(Tables {
            flows: self.flows.try_clone_to_owned()?,
            mappings: self.mappings.try_clone_to_owned()?,
            next_hops: self.next_hops.try_clone_to_owned()?,
            pressure,
        })
    }

    fn expire_flow(&self, key: &FlowKey, flow: &Flow, now: Now, pressure: bool) -> io::Result<bool> {
        if expiry::surely_alive(key, flow, now, pressure) {
            return Ok(false);
        }
        let reply = key.reply_key(flow.nat_addr, flow.nat_port);
        let mapped = is_mapped(flow);
        let mapping = if mapped { sys::lookup(self.mappings, &reply)? } else { None };
        if !expiry::expired(key, flow, mapping.as_ref(), now, pressure) {
            return Ok(false);
        }
        // A packet may have come since the batch was read.
        let Some(current) = sys::lookup::<_, Flow>(self.flows, key)? else { return Ok(true) };
        if current.last_seen != flow.last_seen {
            return Ok(false);
        }
        if sys::delete(self.flows, key)? {
            self.tell(key, &current, mapping.as_ref(), expiry::why(key, &current, mapping.as_ref(), now, pressure));
        }
        if let Some(mapping) = mapping {
            self.forget_mapping(&reply, &mapping)?;
        }
        Ok(true)
    }

    fn remove(&self, key: &FlowKey, flow: &Flow, mapping: Option<Mapping>, why: CloseReason) -> io::Result<()> {
        if sys::delete(self.flows, key)? {
            self.tell(key, flow, mapping.as_ref(), why);
        }
        match mapping {
            Some(mapping) => self.forget_mapping(&key.reply_key(flow.nat_addr, flow.nat_port), &mapping),
            None => Ok(()),
        }
    }

    /// What answers to a flow are translated by, and counted in.
    fn mapping(&self, key: &FlowKey, flow: &Flow) -> io::Result<Option<Mapping>> {
        if !is_mapped(flow) {
            return Ok(None);
        }
        let mapping = sys::lookup::<_, Mapping>(self.mappings, &key.reply_key(flow.nat_addr, flow.nat_port))?;
        Ok(mapping.filter(|mapping| mapping.peer_addr == key.src && mapping.peer_port == key.src_port))
    }

    fn tell(&self, key: &FlowKey, flow: &Flow, mapping: Option<&Mapping>, why: CloseReason) {
        let uplink = || next_hops::uplink(self.next_hops, flow.next_hop).ok().flatten().unwrap_or(0);
        (self.told)(&Ended { key, flow, uplink: &uplink, mapping, why });
    }

    /// Removes the mapping of a flow that is gone, unless an answer has passed since it was looked at: then the next packet
    /// of the mesh finds it and goes on with the same port.
    fn forget_mapping(&self, reply: &FlowKey, seen: &Mapping) -> io::Result<()> {
        let current = sys::lookup::<_, Mapping>(self.mappings, reply)?;
        if current.is_some_and(|current| current.last_seen == seen.last_seen) {
            sys::delete(self.mappings, reply)?;
        }
        Ok(())
    }

    /// A mapping whose flow is gone (another CPU won a race, or a crash fell between two deletions).
    fn expire_orphan(&self, key: &FlowKey, mapping: &Mapping, now: Now) -> io::Result<bool> {
        if !expiry::orphan_expired(key, mapping, now) {
            return Ok(false);
        }
        let forward = FlowKey {
            src: mapping.peer_addr,
            dst: key.src,
            src_port: mapping.peer_port,
            dst_port: key.src_port,
            protocol: key.protocol,
        };
        let owner = sys::lookup::<_, Flow>(self.flows, &forward)?;
        if owner.is_some_and(|flow| forward.reply_key(flow.nat_addr, flow.nat_port) == *key) {
            return Ok(false);
        }
        sys::delete(self.mappings, key)
    }
}

fn for_each<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(&K, &V) -> io::Result<()>,
) -> io::Result<()> {
    let mut batches = Batches::<K, V>::new(BATCH);
    loop {
        let mut ended = true;
        for (key, value) in batches.next(map)? {
            ended = false;
            each(key, value)?;
        }
        if ended {
            return Ok(());
        }
    }
}

/// Whether a flow has a mapping for its answers.
pub(crate) fn is_mapped(flow: &Flow) -> bool {
    [FlowKind::Masqueraded, FlowKind::Routed, FlowKind::FromLan].iter().any(|&kind| kind as u8 == flow.kind)
}

#[cfg(test)]
mod tests;
