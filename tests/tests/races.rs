//! Two CPUs at one moment.

mod common;

use std::collections::BTreeSet;

use common::{SECOND, alone, answered, flow, lab};
use peer_tests::lab::{Datagram, ECHO_PORT, GATEWAY, Plan, arrive_twice_at_once, wait_for};

const TUPLES: u16 = 2000;
/// Arrivals of one tuple.
const TWICE: usize = 2;

#[test]
fn t25_two_cpus_that_open_one_tuple_make_one_mapping() {
    let _alone = alone();
    let lab = lab(&Plan::default());
    assert!(answered(&flow(lab.client(), GATEWAY), b"warm"));
    let source = lab.client().overlay();
    let content = |number: u16| format!("tuple {number}").into_bytes();
    // Ports outside the range, so that each has to be chosen.
    let packet = |number: u16| {
        let datagram = Datagram::udp((source, 40_000 + number), (GATEWAY, ECHO_PORT), &content(number));
        datagram.bytes().expect("one family")
    };
    let packets: Vec<_> = (0..TUPLES).map(packet).collect();
    let mut ports = BTreeSet::new();
    for (chunk, packets) in (0..).step_by(100).zip(packets.chunks(100)) {
        arrive_twice_at_once(&lab.node.namespace, "wt0", packets).expect("write");
        for number in chunk..chunk + packets.len() as u16 {
            let senders = || lab.gateway.senders_of(&content(number));
            assert!(wait_for(SECOND * 5, || senders().len() >= TWICE), "tuple {number}: {:?}", senders());
            let senders = senders();
            assert!(senders.iter().all(|sender| *sender == senders[0]), "tuple {number}: {senders:?}");
            assert!(ports.insert(senders[0]), "tuple {number}: the port is another tuple's");
        }
    }
    let opened = lab.node.metric("peer_packets_total", &[("path", "flows_opened")]).expect("metrics");
    assert!(opened >= f64::from(TUPLES), "{opened}");
    assert!(wait_for(SECOND * 12, || {
        let [flows, mappings] =
            ["peer_flows", "peer_mappings"].map(|name| lab.node.metric(name, &[]).expect("metrics"));
        flows >= f64::from(TUPLES) && mappings <= flows
    }));
}
