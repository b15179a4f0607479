//! What both sides of each crossing have counted so far.

use std::collections::{BTreeMap, BTreeSet};

use peer_common::{Counter, PacketCount};

use super::{Counts, Crossing};
use crate::kernel::{DeviceCount, Snapshot};
use crate::{RouteStats, Stats, Wt0};

/// Where every packet that enters by the mesh device is counted, besides drops.
const FROM_MESH: [Counter; 4] = [Counter::ForwardedOut, Counter::ToNode, Counter::ToStack, Counter::IcmpErrors];

/// Of programs that have counted `stats`, and of devices that have counted `devices` a moment later.
pub(crate) fn crossings(
    stats: &Stats,
    devices: &BTreeMap<u32, DeviceCount>,
    node: &Snapshot,
    wt0: &Wt0,
) -> BTreeMap<Crossing, Counts> {
    let count = |name: &String| devices.get(&node.link_named(name)?.0);
    let mut crossings = BTreeMap::new();
    for (uplinks, given) in redirected(&stats.routes) {
        let Some(taken) = uplinks.iter().map(count).collect::<Option<Vec<_>>>() else { continue };
        let counts = Counts {
            packets: given.packets,
            given: given.bytes,
            taken: taken.iter().map(|device| device.tx_bytes).sum(),
            dropped: taken.iter().map(|device| device.tx_dropped).sum(),
            excused: stats.silent_bytes,
        };
        crossings.insert(Crossing::OutOfUplinks { uplinks: uplinks.into_iter().collect() }, counts);
    }
    let Some(device) = devices.get(&wt0.index) else { return crossings };
    let of_counters = stats.counters.iter().filter(|(counter, _)| FROM_MESH.contains(counter)).map(|(_, count)| count);
    // Those of the uplinks are among them: more never alarms.
    let dropped = stats.drops.iter().map(|(_, count)| count.packets);
    let seen = Counts {
        packets: device.rx_packets,
        given: device.rx_packets,
        taken: of_counters.sum::<u64>() + dropped.sum::<u64>(),
        ..Counts::default()
    };
    crossings.insert(Crossing::IntoPrograms { mesh: wt0.name.clone() }, seen);
    let back = sum(stats.routes.iter().map(|route| route.back));
    let back = Counts {
        packets: back.packets,
        given: back.bytes,
        taken: device.tx_bytes,
        dropped: device.tx_dropped,
        excused: 0,
    };
    crossings.insert(Crossing::IntoMesh { mesh: wt0.name.clone() }, back);
    crossings
}

/// What was redirected out of uplinks. Routes that share one count together, as only the device tells them apart.
fn redirected(routes: &[RouteStats]) -> Vec<(BTreeSet<String>, PacketCount)> {
    let mut groups: Vec<(BTreeSet<String>, PacketCount)> = Vec::new();
    for route in routes.iter().filter(|route| !route.uplinks.is_empty()) {
        let mut group = (route.uplinks.iter().cloned().collect::<BTreeSet<_>>(), route.out);
        let (shared, others): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(uplinks, _)| !uplinks.is_disjoint(&group.0));
        for (uplinks, count) in shared {
            group.0.extend(uplinks);
            group.1 = sum([group.1, count]);
        }
        groups = others;
        groups.push(group);
    }
    groups
}

fn sum(counts: impl IntoIterator<Item = PacketCount>) -> PacketCount {
    counts.into_iter().fold(PacketCount::default(), |sum, count| PacketCount {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}

#[cfg(test)]
mod tests {
    use peer_common::DropReason;

    use super::*;
    use crate::kernel::Link;

    fn route(uplinks: &[&str], out: u64, back: u64) -> RouteStats {
        RouteStats {
            id: 0,
            destination: "10.0.0.0/8".parse().expect("a prefix"),
            masquerade: true,
            uplinks: uplinks.iter().map(|&name| name.to_owned()).collect(),
            by_kernel: None,
            unserved: None,
            out: PacketCount { packets: out, bytes: out * 100 },
            back: PacketCount { packets: back, bytes: back * 100 },
        }
    }

    fn uplinks(names: &[&str]) -> Crossing {
        Crossing::OutOfUplinks { uplinks: names.iter().map(|&name| name.to_owned()).collect() }
    }

    #[test]
    fn routes_that_share_an_uplink_count_together() {
        let routes =
            [route(&["a"], 1, 0), route(&["b"], 2, 0), route(&["c"], 4, 0), route(&["c", "a"], 8, 0), route(&[], 9, 0)];
        let links = ["a", "b", "c"].map(|name| Link { name: name.into(), ..Link::default() });
        let node = Snapshot { links: (11..).zip(links).collect(), ..Snapshot::default() };
        let device = |tx_bytes| DeviceCount { tx_bytes, ..DeviceCount::default() };
        let devices: BTreeMap<u32, DeviceCount> = [(11, device(10)), (12, device(20)), (13, device(40))].into();
        let stats = Stats { routes: routes.into(), silent_bytes: 7, ..Stats::default() };
        let wt0 = Wt0 { name: "wt0".into(), index: 2, mtu: 1280 };
        let found = crossings(&stats, &devices, &node, &wt0);
        assert_eq!(found.len(), 2, "{found:?}");
        let counts = |packets, taken| Counts { packets, given: packets * 100, taken, dropped: 0, excused: 7 };
        assert_eq!((found[&uplinks(&["a", "c"])], found[&uplinks(&["b"])]), (counts(13, 50), counts(2, 20)));
        let gone = crossings(&stats, &[(12, device(20))].into(), &node, &wt0);
        assert_eq!(gone.into_keys().collect::<Vec<_>>(), [uplinks(&["b"])], "a device that is gone says nothing");
    }

    #[test]
    fn what_enters_by_the_mesh_device_is_forwarded_delivered_or_dropped() {
        let stats = Stats {
            counters: vec![(Counter::ForwardedOut, 1), (Counter::ToNode, 2), (Counter::FromNode, 100)],
            drops: vec![(DropReason::NoRoute, PacketCount { packets: 4, bytes: 400 })],
            routes: vec![route(&[], 0, 3)],
            ..Stats::default()
        };
        let device = DeviceCount { rx_packets: 50, tx_bytes: 60, tx_dropped: 5 };
        let wt0 = Wt0 { name: "wt0".into(), index: 2, mtu: 1280 };
        let found = crossings(&stats, &[(2, device)].into(), &Snapshot::default(), &wt0);
        let seen = found[&Crossing::IntoPrograms { mesh: "wt0".into() }];
        assert_eq!((seen.given, seen.taken), (50, 7));
        let back = found[&Crossing::IntoMesh { mesh: "wt0".into() }];
        assert_eq!((back.packets, back.given, back.taken, back.dropped), (3, 300, 60, 5));
    }
}
