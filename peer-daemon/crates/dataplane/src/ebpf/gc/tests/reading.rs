//! What `flows` reads of real maps.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{NOW, SECOND, Tables};
use crate::flows::{Filter, FlowReader, Names, PeerFilter};
use crate::sys::monotonic_coarse;
use crate::{Intent, PeerPrefixes, Wt0};

fn reader(tables: &Tables) -> FlowReader {
    let peer = |id, prefix: &str| PeerPrefixes { id, prefixes: [prefix.parse().expect("a prefix")].into() };
    let intent = Intent {
        wt0: Wt0 { name: "wt0".into(), index: 3, mtu: 1420 },
        addresses: Vec::new(),
        peers: [peer(1, "0.0.0.0/24"), peer(2, "0.0.0.0/0")].into(),
        routes: Vec::new(),
        rules: [].into(),
        nat_ports: crate::DEFAULT_NAT_PORTS,
        nat_addresses: Vec::new(),
        listeners: Vec::new(),
        peer_quota: None,
        protect_node: false,
        reject: false,
        unsupported: Vec::new(),
    };
    let tables = tables.view().share(false).expect("descriptors");
    FlowReader { tables, names: Names::default(), intent: Arc::new(intent) }
}

#[test]
fn the_most_recent_are_listed_with_their_answers() {
    let tables = Tables::new(4096);
    let now = monotonic_coarse();
    for number in 0..3000_u32 {
        tables.put(number, now.saturating_sub(u64::from(number) * SECOND / 100), 5);
    }
    let listing = reader(&tables).list(&Filter::default(), 100).expect("a scan");
    assert_eq!((listing.flows.len(), listing.more), (100, 2900));
    let expected: Vec<IpAddr> = (0..100_u32).map(|number| IpAddr::V4(number.into())).collect();
    assert_eq!(listing.flows.iter().map(|flow| flow.peer.addr).collect::<Vec<_>>(), expected);
    let first = &listing.flows[0];
    assert_eq!(first.to_peer.map(|count| count.packets), Some(4), "of the mapping");
    assert_eq!(
        (first.destination.port, first.nat.map(|end| end.port)),
        (53_u16.swap_bytes(), Some(21000_u16.swap_bytes()))
    );
    assert!(first.expires_in > Duration::from_secs(250) && first.idle < Duration::from_secs(30));
    assert_eq!((first.rule, first.tcp, first.peer_id), (None, None, Some(1)));
}

#[test]
fn only_what_the_filter_takes_is_counted() {
    let tables = Tables::new(1024);
    for number in 0..600_u32 {
        tables.put(number, NOW, 5);
    }
    let of = |id| Filter { peer: Some(PeerFilter::Ids([id].into())), ..Filter::default() };
    let list = |filter: &Filter| reader(&tables).list(filter, 10).expect("a scan");
    let counts = [1, 2, 3].map(|id| list(&of(id))).map(|listing| (listing.flows.len(), listing.more));
    assert_eq!(counts, [(10, 246), (10, 334), (0, 0)]);
}

#[test]
fn a_full_table_is_read_while_one_waits() {
    let tables = Tables::new(peer_common::layout::DEFAULT_FLOWS);
    for number in 0..tables.max {
        tables.put(number, NOW, 2);
    }
    let started = Instant::now();
    let listing = reader(&tables).list(&Filter::default(), 1000).expect("a scan");
    let took = started.elapsed();
    eprintln!("{} flows read in {took:?}", tables.max);
    assert_eq!(listing.flows.len() as u64 + listing.more, u64::from(tables.max));
    assert!(took < Duration::from_secs(5), "the command waits no longer");
}
