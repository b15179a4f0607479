//! Many flows.

mod common;

use common::{SECOND, alone, lab};
use peer_tests::lab::{ECHO_PORT, GATEWAY, GATEWAY6, Plan, flood};

const SOCKETS: usize = 100;
const PORTS: u16 = 50;

#[test]
fn ten_thousand_flows_are_forwarded_and_answered() {
    let _alone = alone();
    let mut lab = lab(&Plan::default());
    for port in ECHO_PORT + 1..ECHO_PORT + PORTS {
        for service in [GATEWAY, GATEWAY6] {
            lab.gateway.open_echo(service, port).expect("echo");
        }
    }
    let (mut flows, mut answered) = (0, 0);
    for service in [GATEWAY, GATEWAY6] {
        let flood = flood(&lab.client().namespace, service, ECHO_PORT..ECHO_PORT + PORTS, SOCKETS).expect("flood");
        flows += flood.flows;
        answered += flood.answered;
    }
    assert_eq!((flows, answered), (10_000, 10_000));
    let opened = lab.node.metric("peer_packets_total", &[("path", "flows_opened")]).expect("metrics");
    assert!(opened >= 10_000.0, "{opened} flows opened");
    let gauge = lab.node.await_metric(SECOND * 15, 10_000.0, "peer_flows", &[]).expect("metrics");
    assert!(gauge >= 10_000.0, "the gauge says {gauge}");
    let mappings = lab.node.metric("peer_mappings", &[]).expect("metrics");
    assert!(mappings >= 10_000.0, "the gauge says {mappings}");
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), 0);
}
