//! Packets that were dropped lately, by tuple and reason. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ipnet::IpNet;
use peer_common::route::NO_ROUTE;
use peer_common::{DropReason, Flow, FlowEvent, FlowKey, PacketCount, Way};

use super::{Direction, View};
use crate::flows::{End, Filter, end};

/// How long a tuple is remembered after its last packet.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A tuple of which packets were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// IP protocol number.
    pub protocol: u8,
    /// Why.
    pub reason: DropReason,
    /// Which way the last packet went.
    pub direction: Direction,
    /// The end in the mesh.
    pub peer: End,
    /// The other end.
    pub destination: End,
    /// Destination of the route that covers it.
    pub route: Option<IpNet>,
    /// Rule that drops it.
    pub rule: Option<u32>,
    /// Whose address the peer's end is, by [`crate::PeerPrefixes::id`].
    pub peer_id: Option<u32>,
    /// As far as they were told: the programs bound how often they tell.
    pub packets: PacketCount,
    /// `CLOCK_MONOTONIC` of the first packet, nanoseconds.
    pub created_ns: u64,
    /// Of the last one.
    pub active_ns: u64,
    /// Since the first packet.
    pub age: Duration,
    /// Since the last packet.
    pub idle: Duration,
    /// Until it is forgotten, unless a packet comes.
    pub expires_in: Duration,
}

/// Those that were wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedListing {
    /// The most recent first.
    pub denied: Vec<Denied>,
    /// How many were wanted besides.
    pub more: u64,
    /// `CLOCK_MONOTONIC` of the moment, nanoseconds.
    pub now_ns: u64,
}

/// Figures of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeniedStats {
    /// Tuples in the table.
    pub used: u64,
    /// Tuples that fit.
    pub max: u64,
    /// Tuples that gave way to others before their time.
    pub evicted: u64,
}

/// The table: the tuple that was seen longest ago gives way.
#[derive(Debug, Default)]
pub(super) struct DeniedTable {
    max: usize,
    entries: HashMap<Key, Entry>,
    /// By time of last use, then by order.
    order: BTreeMap<u64, Key>,
    next: u64,
    evicted: u64,
}

type Key = (FlowKey, DropReason);

#[derive(Clone, Copy, Debug)]
struct Entry {
    order: u64,
    first: u64,
    last: u64,
    count: PacketCount,
    way: u8,
    route_id: u32,
    rule: u32,
}

impl DeniedTable {
    pub(super) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    pub(super) fn add(&mut self, event: &FlowEvent, reason: DropReason) {
        // What could not be read has no tuple; counters tell of it.
        if self.max == 0 || event.key == FlowKey::default() {
            return;
        }
        let key = (event.key, reason);
        let order = self.next;
        self.next += 1;
        let new = Entry {
            order,
            first: event.time,
            last: 0,
            count: PacketCount::default(),
            way: 0,
            route_id: NO_ROUTE,
            rule: 0,
        };
        let entry = self.entries.entry(key).or_insert(new);
        self.order.remove(&entry.order);
        entry.order = order;
        entry.last = event.time;
        (entry.way, entry.route_id, entry.rule) = (event.way, event.route_id, event.policy_id);
        entry.count.packets += 1;
        entry.count.bytes += u64::from(event.len);
        self.order.insert(order, key);
        if self.entries.len() > self.max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
            self.evicted += 1;
        }
    }

    pub(super) fn expire(&mut self, now: u64) {
        while let Some((_, key)) = self.order.first_key_value() {
            let gone = self.entries.get(key).is_none_or(|entry| age(now, entry.last) >= REMEMBERED);
            if !gone {
                return;
            }
            let key = *key;
            self.order.pop_first();
            self.entries.remove(&key);
        }
    }

    pub(super) fn list(&self, filter: &Filter, view: &View, limit: usize, now: u64) -> DeniedListing {
        let mut denied = Vec::new();
        let mut more = 0;
        for key in self.order.values().rev() {
            let Some(entry) = self.entries.get(key).filter(|entry| age(now, entry.last) < REMEMBERED) else { continue };
            if !filter.takes(&key.0, &Flow::default(), view.owners()) {
                continue;
            }
            if denied.len() < limit {
                denied.push(entry.show(key, view, now));
            } else {
                more += 1;
            }
        }
        DeniedListing { denied, more, now_ns: now }
    }

    pub(super) fn stats(&self) -> DeniedStats {
        DeniedStats { used: self.entries.len() as u64, max: self.max as u64, evicted: self.evicted }
    }
}

impl Entry {
    fn show(&self, (key, reason): &Key, view: &View, now: u64) -> Denied {
        let peer = end(key.src, key.src_port);
        let from_mesh = self.way == Way::FromMesh as u8;
        Denied {
            protocol: u8::try_from(key.protocol).unwrap_or(u8::MAX),
            reason: *reason,
            direction: if from_mesh { Direction::FromPeer } else { Direction::ToPeer },
            peer,
            destination: end(key.dst, key.dst_port),
            route: view.route(self.route_id),
            rule: (self.rule != 0).then_some(self.rule),
            peer_id: view.peer(peer.addr),
            packets: self.count,
            created_ns: self.first,
            active_ns: self.last,
            age: age(now, self.first),
            idle: age(now, self.last),
            expires_in: REMEMBERED.saturating_sub(age(now, self.last)),
        }
    }
}

fn age(now: u64, then: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(then))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn event(number: u16, time: u64) -> FlowEvent {
        let key = FlowKey { src_port: number.to_be(), protocol: 17, ..FlowKey::default() };
        FlowEvent { key, time, len: 60, policy_id: 7, way: Way::FromMesh as u8, ..FlowEvent::default() }
    }

    fn ports(table: &DeniedTable, now: u64, limit: usize) -> (Vec<u16>, u64) {
        let listing = table.list(&Filter::default(), &View::default(), limit, now);
        (listing.denied.iter().map(|denied| denied.peer.port).collect(), listing.more)
    }

    #[test]
    fn the_most_recent_come_first_and_the_oldest_gives_way() {
        let mut table = DeniedTable::new(3);
        for (number, time) in [(1, 10), (2, 11), (3, 12), (1, 13), (4, 14)] {
            table.add(&event(number, time), DropReason::PolicyDefault);
        }
        assert_eq!(ports(&table, 20, 2), (vec![4, 1], 1));
        assert_eq!(table.stats(), DeniedStats { used: 3, max: 3, evicted: 1 });
        let listing = table.list(&Filter::default(), &View::default(), 9, 20);
        let one = &listing.denied[1];
        assert_eq!((one.packets, one.rule), (PacketCount { packets: 2, bytes: 120 }, Some(7)));
        assert_eq!((one.created_ns, one.active_ns, one.direction), (10, 13, Direction::FromPeer));
    }

    #[test]
    fn a_tuple_is_forgotten_in_time_and_reasons_are_kept_apart() {
        let mut table = DeniedTable::new(10);
        table.add(&event(1, SECOND), DropReason::PolicyDefault);
        table.add(&event(1, 500 * SECOND), DropReason::NoRoute);
        assert_eq!(ports(&table, 500 * SECOND, 9).0, [1, 1]);
        assert_eq!(ports(&table, 601 * SECOND, 9).0, [1], "not shown, even before the next scan");
        table.expire(601 * SECOND);
        assert_eq!(table.stats().used, 1);
        table.expire(1100 * SECOND);
        assert_eq!(table.stats().used, 0);
    }

    #[test]
    fn without_room_or_tuple_nothing_is_kept() {
        let mut none = DeniedTable::new(0);
        none.add(&event(1, 1), DropReason::NoRoute);
        let mut table = DeniedTable::new(10);
        table.add(&FlowEvent { key: FlowKey::default(), ..event(1, 1) }, DropReason::Malformed);
        assert_eq!((none.stats().used, table.stats().used), (0, 0));
    }

    proptest! {
        /// Against a list: the last packet of each tuple, the most recent ones.
        #[test]
        fn it_is_the_tail_of_what_was_dropped(
            numbers in prop::collection::vec(1_u16..20, 0..200),
            max in 1_usize..12,
        ) {
            let mut table = DeniedTable::new(max);
            for (time, number) in (1..).zip(&numbers) {
                table.add(&event(*number, time), DropReason::PolicyRule);
            }
            let mut expected = Vec::new();
            for number in numbers.iter().rev() {
                if !expected.contains(number) {
                    expected.push(*number);
                }
            }
            expected.truncate(max);
            prop_assert_eq!(ports(&table, 1000, 1000), (expected, 0));
            prop_assert_eq!(table.order.len(), table.entries.len());
        }
    }
}
