//! The daemon is killed, upgraded and flooded, and flows live on.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{SECOND, alone, answered, flow, lab, page, pair, tell};
use peer_tests::lab::{
    Capabilities, Download, ECHO_PORT, EchoSocket, ForeignProgram, GATEWAY, Lab, Plan, find_daemon_of_other_layout,
    ping, random_flows, wait_for,
};

const CYCLES: u32 = 200;
/// More than any cycle can bring through.
const ENDLESS: u64 = 1 << 40;
/// That the stream goes on is shown by so much of it.
const GOES_ON: u64 = 500_000;
/// What a stall may take beyond the start itself.
const BEYOND_START: Duration = Duration::from_secs(2);

#[test]
fn t19_kill9_200_cycles() {
    let _alone = alone();
    let mut lab = lab(&Plan::default());
    page(lab.client(), GATEWAY);
    assert!(wait_for(SECOND * 10, || !lab.node.state_files().expect("state").is_empty()), "endpoints are kept");
    let before = Held::look(&lab);
    let download = Download::start(&lab.client().namespace, GATEWAY, ENDLESS).expect("download");
    let socket = flow(lab.client(), GATEWAY);
    assert!(answered(&socket, b"cycle 0"));
    let begun = Instant::now();
    let (mut starts, mut stalls) = (Vec::new(), Vec::new());
    for cycle in 1..=CYCLES {
        let _ = download.take_stall();
        lab.node.kill().expect("kill");
        let start = Instant::now();
        lab.node.start().expect("start");
        let took = start.elapsed();
        let received = download.received();
        assert!(wait_for(SECOND * 10, || download.received() > received + GOES_ON), "cycle {cycle}: the stream stands");
        let stall = download.take_stall();
        assert!(stall < took + BEYOND_START, "cycle {cycle}: a stall of {stall:?}, a start of {took:?}");
        let pings = ping(&lab.client().namespace, GATEWAY, 1, SECOND * 5).expect("ping");
        assert!(pings.all_answered(), "cycle {cycle}: the ping");
        assert!(answered(&socket, format!("cycle {cycle}").as_bytes()), "cycle {cycle}: the flow");
        starts.push(took);
        stalls.push(stall);
    }
    let bytes = download.received();
    download.stop().expect("every byte was right, and the connection the same");
    let spread = |times: &mut Vec<Duration>| {
        times.sort();
        let [median, most] = [times.len() / 2, times.len() - 1].map(|index| times[index].as_secs_f64());
        format!("{median:.2} s, at most {most:.2} s")
    };
    tell(&format!(
        "{CYCLES} cycles in {:.0} s: stall {}; start {}; {} MB through one connection",
        begun.elapsed().as_secs_f64(),
        spread(&mut stalls),
        spread(&mut starts),
        bytes / 1_000_000,
    ));
    let ports: Vec<_> = [1, CYCLES].map(|cycle| lab.gateway.senders_of(format!("cycle {cycle}").as_bytes())[0]).into();
    assert_eq!(ports[0], ports[1], "the mapping of the first cycle is the one of the last");
    before.expect_no_more(&Held::look(&lab));
    let flows = lab.node.await_metric(SECOND * 8, 1.0, "peer_flows", &[]).expect("metrics");
    // The pings of the last minute, the stream and the flow.
    assert!(flows <= f64::from(CYCLES) + 5.0, "{flows} flows");
    let [mappings, ports] =
        ["peer_mappings", "peer_nat_ports_used"].map(|name| lab.node.metric(name, &[]).expect("metrics"));
    assert!(mappings <= flows + 5.0 && ports <= flows + 5.0, "{flows} flows, {mappings} mappings, {ports} ports");
    lab.node.stop().expect("stop");
    assert_eq!(lab.node.pins().expect("pins"), Vec::<std::path::PathBuf>::new());
}

/// What could leak.
#[derive(Debug)]
struct Held {
    pins: Vec<std::path::PathBuf>,
    chains: [usize; 2],
    devices: Vec<String>,
    /// Programs, maps and links of the machine, on which others are busy as well.
    objects: [usize; 3],
}

impl Held {
    fn look(lab: &Lab) -> Self {
        let node = &lab.node.namespace;
        Self {
            pins: lab.node.pins().expect("pins"),
            chains: ["wt0", "eth0"].map(|device| ForeignProgram::chain(node, device).expect("query").len()),
            devices: node.devices().expect("devices"),
            objects: ForeignProgram::objects_of_the_machine().expect("query"),
        }
    }

    fn expect_no_more(&self, after: &Self) {
        assert_eq!((&self.pins, self.chains, &self.devices), (&after.pins, after.chains, &after.devices));
        for (what, (before, after)) in ["programs", "maps", "links"].iter().zip(self.objects.iter().zip(after.objects))
        {
            assert!(after < before + CYCLES as usize / 2, "{before} {what} before, {after} after {CYCLES} cycles");
        }
    }
}

#[test]
fn t19_upgrade_and_rollback_between_two_layouts() {
    let _alone = alone();
    let other = find_daemon_of_other_layout().expect("a daemon of another layout");
    let mut lab = lab(&Plan::default());
    page(lab.client(), GATEWAY);
    assert!(wait_for(SECOND * 10, || !lab.node.state_files().expect("state").is_empty()), "endpoints are kept");
    let first = lab.node.binary.clone();
    let udp = pair(&lab, GATEWAY, 7500);
    let download = Download::start(&lab.client().namespace, GATEWAY, ENDLESS).expect("download");
    let mut pins = Vec::new();
    for (name, binary) in [("upgrade", &other), ("rollback", &first), ("upgrade", &other), ("rollback", &first)] {
        let _ = download.take_stall();
        lab.node.kill().expect("kill");
        lab.node.binary.clone_from(binary);
        let start = Instant::now();
        lab.node.start().expect("start");
        let took = start.elapsed();
        let received = download.received();
        assert!(wait_for(SECOND * 15, || download.received() > received + GOES_ON), "{name}: the stream stands");
        let stall = download.take_stall();
        tell(&format!("{name}: stall {:.2} s, start {:.2} s", stall.as_secs_f64(), took.as_secs_f64()));
        assert!(stall < took + BEYOND_START + SECOND * 3, "{name}: {stall:?}");
        udp.member.send(name.as_bytes()).expect("send");
        let seen = udp.service.receive(SECOND * 5).expect("receive").expect("it arrives");
        assert_eq!(seen.1, udp.seen, "{name}: the same port again");
        let wt0 = ForeignProgram::chain(&lab.node.namespace, "wt0").expect("query");
        let eth0 = ForeignProgram::chain(&lab.node.namespace, "eth0").expect("query");
        // The other version's stays behind ours for a while: answers to flows that only its tables know still find home.
        assert!(wt0.len() == 2 && eth0.len() <= 2, "{name}: {wt0:?} {eth0:?}");
        pins.push(lab.node.pins().expect("pins"));
    }
    download.stop().expect("every byte was right, and the connection the same");
    assert_eq!(pins[1].len(), pins[3].len(), "pins do not add up");
    lab.node.stop().expect("stop");
    assert_eq!(lab.node.pins().expect("pins"), Vec::<std::path::PathBuf>::new());
    assert!(!lab.node.namespace.devices().expect("devices").contains(&"wt0".to_owned()));
}

#[test]
fn t19_after_a_restart_the_node_shakes_hands_by_itself() {
    let mut lab = lab(&Plan::default());
    page(lab.client(), GATEWAY);
    assert!(wait_for(SECOND * 10, || !lab.node.state_files().expect("state").is_empty()), "endpoints are kept");
    // The member is silent from here on: whatever comes to pass, the node began it.
    for clean in [false, true] {
        lab.node.arguments = vec!["--keep-dataplane".to_owned()];
        if clean {
            lab.node.stop().expect("stop");
        } else {
            lab.node.kill().expect("kill");
        }
        lab.node.start().expect("start");
        let ready = Instant::now();
        let connected = || lab.node.status().expect("status")["peers"][0]["connected"] == true;
        assert!(wait_for(SECOND * 5, connected), "no session, clean: {clean}");
        let took = ready.elapsed();
        tell(&format!("a session {:.2} s after the start, clean: {clean}", took.as_secs_f64()));
        assert!(took < SECOND, "{took:?}");
    }
}

const FLOOD: f64 = 1_000_000.0;
/// Packets between two looks at how many have arrived.
const BURST: u64 = 200_000;

#[test]
fn t21_a_million_random_flows_of_one_peer_harm_no_other() {
    let _alone = alone();
    let lab = lab(&Plan { clients: 2, capabilities: Capabilities::Deployed, ..Plan::default() });
    let [bad, good] = [&lab.clients[0], &lab.clients[1]];
    page(good, GATEWAY);
    page(bad, GATEWAY);
    let established = flow(good, GATEWAY);
    assert!(answered(&established, b"before"));
    let download = Download::start(&good.namespace, GATEWAY, ENDLESS).expect("download");
    let IpAddr::V4(source) = bad.overlay() else { panic!("IPv4") };
    let over = AtomicBool::new(false);
    let (mut asked, mut silent) = (0, 0);
    let took = thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let start = Instant::now();
            // Many are lost in the member's own queues: counted is what came to the node.
            let mut sent = 0;
            while arrived(&lab) < FLOOD && sent < 20 * BURST {
                let burst = sent..sent + BURST;
                random_flows(&bad.namespace, source, Ipv4Addr::new(203, 0, 113, 0), burst).expect("flood");
                sent += BURST;
            }
            over.store(true, Ordering::Relaxed);
            start.elapsed()
        });
        while !over.load(Ordering::Relaxed) {
            // New flows all the time, and the old one.
            let socket = EchoSocket::open(&good.namespace, (GATEWAY, ECHO_PORT).into()).expect("socket");
            let content = format!("new flow {asked}");
            silent += usize::from(!socket.ask(content.as_bytes(), SECOND).expect("send"));
            silent += usize::from(!established.ask(content.as_bytes(), SECOND).expect("send"));
            asked += 2;
            // A pace that leaves the machine to the flood.
            thread::sleep(Duration::from_millis(10));
        }
        flooding.join().expect("the flood ends")
    });
    let received = download.received();
    assert!(wait_for(SECOND * 10, || download.received() > received + GOES_ON), "the stream goes on");
    let stall = download.stop().expect("every byte was right");
    for _ in 0..100 {
        assert!(answered(&flow(good, GATEWAY), b"after"));
    }
    page(good, GATEWAY);
    assert!(answered(&established, b"after"));
    let senders = [&b"before"[..], b"after"].map(|content| *lab.gateway.senders_of(content).last().expect("seen"));
    assert_eq!(senders[0], senders[1], "the same mapping");
    let metrics = lab.node.metrics().expect("metrics");
    let quota = metrics.sum("peer_flow_quota", &[]);
    let refused = metrics.sum("peer_dropped_packets_total", &[("reason", "peer_quota")]);
    let full = metrics.sum("peer_dropped_packets_total", &[("reason", "table_full")]);
    let opened = metrics.sum("peer_packets_total", &[("path", "flows_opened")]);
    tell(&format!(
        "{:.0} packets of one peer in {:.1} s: {opened} flows opened, {refused} refused by the quota of {quota}; of {asked} \
         small exchanges meanwhile {silent} without an answer; longest stall of a download {:.2} s",
        arrived(&lab),
        took.as_secs_f64(),
        stall.as_secs_f64()
    ));
    assert!(arrived(&lab) >= FLOOD, "{} packets arrived", arrived(&lab));
    assert!(refused > 0.0, "the flood meets its quota");
    assert_eq!(full, 0.0, "the table is never full");
    let busiest = lab.node.await_metric(SECOND * 12, 1000.0, "peer_flows_busiest_peer", &[]).expect("metrics");
    assert!((1000.0..=quota * 1.25).contains(&busiest), "{busiest} flows of the busiest peer, {quota} allowed");
    assert!(silent * 50 <= asked, "{silent} of {asked} exchanges without an answer");
    assert!(stall < SECOND * 5, "{stall:?}");
}

/// Packets of the flood that a program has judged: each opens a flow, or is refused.
fn arrived(lab: &Lab) -> f64 {
    let metrics = lab.node.metrics().expect("metrics");
    let opened = metrics.sum("peer_packets_total", &[("path", "flows_opened")]);
    opened + metrics.sum("peer_dropped_packets_total", &[("reason", "peer_quota")])
}
