//! Floods of WireGuard handshakes from a host beside the node: members get in, and their traffic goes on.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, SECOND, alone, flow, goes_on, page, tell};
use peer_tests::lab::{Attacker, Binaries, Client, Direction, GATEWAY, Lab, Plan, Senders, iperf, patient, wait_for};

/// The node's WireGuard port, and one where nobody listens.
const PORT: u16 = 51820;
const CLOSED: u16 = 51821;

/// wireguard-go repeats an initiation after 5 to 5.33 s; that is its next try.
const NEXT_TRY: Duration = Duration::from_secs(6);
/// Well below the time to its next try.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn a_member_is_back_while_its_address_is_spoofed_at_once_with_a_cookie_else_by_its_next_try() {
    let _alone = alone();
    let (lab, attacker) = attacked();
    let [member, other] = &lab.clients[..] else { panic!("two members") };
    page(member, GATEWAY);
    page(other, GATEWAY);
    let spoofed = Senders::One(member.outer().expect("wg"));
    let flood = attacker.flood(spoofed, PORT, 5_000).expect("flood");
    handshakes(&lab, "cookie_sent", 1.0);
    thread::scope(|scope| {
        let beside = scope.spawn(|| goes_on(other, GATEWAY));
        // One in ten of the flood is taken without a proof, and so may the member's be: then it has no cookie yet.
        let mut tries = 0;
        let without_cookie = loop {
            tries += 1;
            let took = reconnect(member);
            assert!(took <= patient(NEXT_TRY), "{took:?} without a cookie");
            if took > AT_ONCE {
                break took;
            }
            assert!(tries < 12, "always taken at once: nothing asks for cookies");
        };
        let with_cookie = reconnect(member);
        assert!(with_cookie <= patient(AT_ONCE), "{with_cookie:?} with a cookie");
        tell(&format!("back after {without_cookie:?} without a cookie, after {with_cookie:?} with one"));
        beside.join().expect("the other member");
    });
    let rate = flood.stop().expect("flood");
    tell(&format!("{rate:.0} initiations a second bore the member's address"));
    assert!(rate > 4_000.0, "{rate} a second are no such flood");
    assert_eq!(lab.node.refused("source_limited").expect("metrics"), 0.0);
    assert_eq!(lab.node.probe("/livez").expect("answer").0, 200);
}

#[test]
fn a_flood_of_initiations_leaves_a_download_what_a_flood_to_a_closed_port_leaves() {
    // What one thread can send beside all the rest on two busy cores; ten times what is answered.
    const PER_SECOND: u32 = 60_000;
    const ROUNDS: usize = 6;
    let _alone = alone();
    let (mut lab, attacker) = attacked();
    lab.gateway.start_iperf().expect("iperf3");
    let [member, other] = &lab.clients[..] else { panic!("two members") };
    page(member, GATEWAY);
    page(other, GATEWAY);
    let (mut left, mut rates) = ([0.0_f64; 2], [0.0; 2]);
    for _ in 0..ROUNDS {
        for (at, port) in [(0, CLOSED), (1, PORT)] {
            let flood = attacker.flood(Senders::Invented, port, PER_SECOND).expect("flood");
            let download = iperf(&member.namespace, GATEWAY, Direction::Download, 1).expect("iperf3");
            // The best: whatever else the machine does only takes away.
            left[at] = download.bits_per_second.max(left[at]);
            rates[at] += flood.stop().expect("flood");
        }
    }
    let [closed, open] = left.map(|bits| bits / 1e9);
    let rates = rates.map(|sum| sum / ROUNDS as f64);
    tell(&format!(
        "download: {open:.2} Gbit/s beside {:.0} initiations a second, {closed:.2} beside {:.0} to a closed port: {:.0} %, \
         the best of {ROUNDS} rounds",
        rates[1],
        rates[0],
        open / closed * 100.0,
    ));
    let refused: Vec<_> =
        ["cookie_limited", "initiation_flood", "screened"].map(|why| lab.node.refused(why).expect("metrics")).into();
    tell(&format!("refused without an answer: {refused:?}"));
    assert!(refused[0] > 0.0, "it is a flood");
    assert!(refused[2] > refused[0], "the kernel drops most of it");
    assert!(rates[1] > rates[0] * 0.7, "the floods differ: {rates:?}");
    assert!(open >= closed * 0.8, "{open} of {closed} Gbit/s");
    let flood = attacker.flood(Senders::Invented, PORT, PER_SECOND).expect("flood");
    goes_on(other, GATEWAY);
    // At its known address it is back at once, without a cookie.
    let took = reconnect(other);
    assert!(took <= patient(AT_ONCE), "{took:?}");
    flood.stop().expect("flood");
}

/// Two members, and a host that is none.
fn attacked() -> (Lab, Attacker) {
    let plan = Plan { clients: 2, ..Plan::default() };
    let mut lab = Lab::prepare(&plan, &Binaries::find().expect("programs")).expect("lab");
    let attacker = Attacker::beside(&lab.node.namespace, lab.client().node_key()).expect("attacker");
    lab.up().expect("up");
    (lab, attacker)
}

/// Lets the member lose its session: how long until something passes again.
fn reconnect(member: &Client) -> Duration {
    member.lose_session().expect("wg");
    let start = Instant::now();
    let socket = flow(member, GATEWAY);
    let back = wait_for(PATIENCE, || socket.ask_within(b"back", SECOND / 5).expect("send"));
    assert!(back, "it does not come back");
    start.elapsed()
}

fn handshakes(lab: &Lab, result: &str, least: f64) {
    let labels = [("result", result)];
    lab.node.await_metric(SECOND * 5, least, "peer_wireguard_handshakes_total", &labels).expect("metrics");
}
