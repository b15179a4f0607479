//! What no rule accepts, what a rule drops, and what cannot be judged.

mod common;

use common::{SECOND, becomes, flow, lab, page};
use peer_common::DropReason;
use peer_tests::lab::{
    BEHIND, Binaries, Datagram, ECHO_PORT, EchoSocket, GATEWAY, GATEWAY6, LAN, LAN6, Lab, NODE_OVERLAY, Plan,
    RuleEntry, forge, wait_for,
};

const SCTP: u8 = 132;
const ESP: u8 = 50;
const UDP: u8 = 17;

#[test]
fn what_no_rule_accepts_and_what_a_rule_drops() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.config.rules = vec![
        RuleEntry::new("accept", "tcp", &[LAN, LAN6], &[]),
        RuleEntry::new("accept", "udp", &[LAN, LAN6], &[]),
        RuleEntry::new("drop", "udp", &[LAN], &[ECHO_PORT]),
    ];
    lab.up().expect("up");
    page(lab.client(), GATEWAY);
    let count = |reason| lab.node.dropped(reason).expect("metrics");
    let (by_rule, by_default) = (count(DropReason::PolicyRule), count(DropReason::PolicyDefault));
    assert!(!flow(lab.client(), GATEWAY).ask_within(b"dropped by a rule", SECOND / 2).expect("send"));
    becomes(by_rule + 1.0, || count(DropReason::PolicyRule));
    assert_eq!(count(DropReason::PolicyDefault), by_default);
    assert!(!flow(lab.client(), BEHIND).ask_within(b"accepted by none", SECOND / 2).expect("send"));
    let node = EchoSocket::open(&lab.client().namespace, (NODE_OVERLAY, 22).into()).expect("socket");
    assert!(!node.ask_within(b"the node neither", SECOND / 2).expect("send"));
    becomes(by_default + 2.0, || count(DropReason::PolicyDefault));
    assert!(flow(lab.client(), GATEWAY6).ask(b"accepted", SECOND * 2).expect("send"), "the drop speaks of IPv4 only");
    assert_eq!(lab.gateway.senders_of(b"dropped by a rule"), []);
}

#[test]
fn what_cannot_be_judged_is_dropped_and_counted_though_rules_accept_everything() {
    let lab = lab(&Plan::default());
    let member = lab.client();
    page(member, GATEWAY);
    let (v4, v6) = (member.overlay(), member.overlay6());
    let udp4 = |content: &[u8]| Datagram::udp((v4, 4000), (GATEWAY, ECHO_PORT), content);
    let udp6 = |content: &[u8]| Datagram::udp((v6, 4000), (GATEWAY6, ECHO_PORT), content);
    let other4 = |protocol| Datagram::of(protocol, v4, GATEWAY, vec![0; 64]);
    let other6 = |protocol| Datagram::of(protocol, v6, GATEWAY6, vec![0; 64]);
    let cases = [
        (DropReason::IpOptions, vec![udp4(b"bad").with_ipv4_option()]),
        (DropReason::ExtensionHeader, vec![udp6(b"bad").with_extension_header()]),
        (
            DropReason::Fragment,
            vec![
                Datagram::of(UDP, v4, GATEWAY, vec![0; 64]).as_fragment(9, false),
                Datagram::of(UDP, v6, GATEWAY6, vec![0; 64]).as_fragment(9, false),
            ],
        ),
        (DropReason::Protocol, vec![other4(SCTP), other6(SCTP), other4(ESP)]),
        (DropReason::TtlExceeded, vec![udp4(b"bad").with_hops(1), udp6(b"bad").with_hops(1)]),
    ];
    for (reason, packets) in cases {
        let before = lab.node.dropped(reason).expect("metrics");
        forge(&member.namespace, "wg0", &packets).expect("send");
        // The node's own reports of multicast groups may add to one of them.
        let least = before + packets.len() as f64;
        assert!(wait_for(SECOND * 5, || lab.node.dropped(reason).expect("metrics") >= least), "{reason:?}");
    }
    forge(&member.namespace, "wg0", &[udp4(b"good"), udp6(b"good")]).expect("send");
    assert!(wait_for(SECOND * 2, || lab.gateway.senders_of(b"good").len() == 2), "the forger itself works");
    assert_eq!(lab.gateway.senders_of(b"bad"), []);
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), 0, "nothing went on to the stack");
}
