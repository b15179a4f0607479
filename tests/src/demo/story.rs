//! What happens in the lab while the daemon runs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::checks::Checks;
use super::figures::Figures;
use super::path;
use super::stage::Stage;
use super::voice::Voice;
use crate::lab::{
    Direction, EchoSocket, ForeignProgram, GATEWAY, GATEWAY6, Metrics, NODE_LAN, NODE_LAN6, Namespace, Node, iperf,
    ping,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

const PINGS: u32 = 5;
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Length of one iperf3 run.
const IPERF_SECONDS: u32 = 3;

/// Tells it, checks and measures.
pub(crate) struct Story<'a> {
    pub(crate) voice: Voice,
    pub(crate) checks: &'a mut Checks,
    pub(crate) figures: &'a mut Figures,
}

impl Story<'_> {
    /// Returns the foreign program that is attached at the end.
    pub(crate) fn tell(mut self, stage: &mut Stage, early: ForeignProgram) -> Result<ForeignProgram> {
        let before = stage.node().metrics().context("metrics before the traffic")?;
        self.pages(stage);
        self.pings(stage);
        self.throughput(stage);
        let late = self.foreign(stage, early)?;
        let after = stage.node().metrics();
        if let Ok(after) = &after {
            self.path(stage.way(), &before, after);
        }
        if let Some(registration) = stage.registration() {
            self.checks.add("registered_and_relayed", registration);
        }
        let samples = after.map(|metrics| format!("{} samples", metrics.samples().len()));
        self.checks.add("metrics_parse", samples);
        self.checks.add("probes_answer", probes(stage.node()));
        self.checks.add("status_answers", stage.node().status().map(|_| "status --json is JSON".to_owned()));
        self.checks.add("iptables_empty", iptables(&stage.node().namespace));
        self.checks.add("nftables_empty", empty(&stage.node().namespace, "nft", &["list", "ruleset"]));
        let forwarded = stage.node().kernel_forwarded().and_then(|count| {
            ensure!(count == 0, "the kernel forwarded {count} datagrams");
            Ok("0 datagrams, IPv4 and IPv6, with forwarding on".to_owned())
        });
        self.checks.add("kernel_forwards_nothing", forwarded);
        Ok(late)
    }

    fn pages(&mut self, stage: &Stage) {
        self.voice.heading("remote: curl a page of the gateway");
        let start = Instant::now();
        let page = curl(stage.remote(), &format!("http://{GATEWAY}/"));
        self.figures.set("first_page_seconds", start.elapsed().as_secs_f64());
        self.page("page_arrived", page, &NODE_LAN.to_string());
        let page = curl(stage.remote(), &format!("http://[{GATEWAY6}]/"));
        self.page("page_arrived_ipv6", page, &NODE_LAN6.to_string());
        let seen: Vec<_> = stage.gateway().http_clients().into_keys().collect();
        let outcome = if seen == [NODE_LAN, NODE_LAN6] {
            Ok(format!("the service saw {NODE_LAN} and {NODE_LAN6}, eth0 of the node, and nobody else"))
        } else {
            Err(anyhow::anyhow!("the service saw {seen:?}"))
        };
        self.checks.add("client_is_the_node", outcome);
    }

    fn page(&mut self, name: &'static str, page: Result<String>, client: &str) {
        let outcome = page.and_then(|page| {
            self.voice.line(page.trim_end());
            ensure!(page == format!("Hello from the LAN, {client}\n"), "another page: {page}");
            Ok(page.trim_end().to_owned())
        });
        self.checks.add(name, outcome);
    }

    fn pings(&mut self, stage: &Stage) {
        self.voice.heading("remote: ping the gateway");
        for (name, figure, target) in [
            ("pings_answered", "ping_milliseconds", GATEWAY),
            ("pings_answered_ipv6", "ping_ipv6_milliseconds", GATEWAY6),
        ] {
            let outcome = ping(stage.remote(), target, PINGS, SECOND).and_then(|pings| {
                let median = pings.median().unwrap_or_default().as_secs_f64() * 1e3;
                let text = format!("{target}: {} of {} answered, {median:.2} ms", pings.round_trips.len(), pings.sent);
                self.voice.line(&text);
                ensure!(pings.all_answered(), "{text}");
                self.figures.set(figure, median);
                Ok(text)
            });
            self.checks.add(name, outcome);
        }
    }

    fn throughput(&mut self, stage: &mut Stage) {
        self.voice.heading("remote: iperf3 to the gateway, both ways");
        for (name, figure, direction) in [
            ("tcp_upload", "upload_gbit_per_second", Direction::Upload),
            ("tcp_download", "download_gbit_per_second", Direction::Download),
        ] {
            let started = stage.gateway_mut().start_iperf();
            let outcome = started.and_then(|()| iperf(stage.remote(), GATEWAY, direction, IPERF_SECONDS));
            let outcome = outcome.and_then(|measured| {
                let rate = measured.bits_per_second / 1e9;
                let text = format!("{rate:.2} Gbit/s, {} segments sent again", measured.retransmits);
                self.voice.line(&format!("{direction:?}: {text}"));
                self.figures.set(figure, rate);
                ensure!(measured.bytes > 0.0, "nothing arrived");
                Ok(text)
            });
            self.checks.add(name, outcome);
        }
    }

    /// Traffic of the gateway with the node itself is not ours: the foreign program must see all of it, and of ours none,
    /// whether it was attached before the daemon or after it.
    fn foreign(&mut self, stage: &Stage, early: ForeignProgram) -> Result<ForeignProgram> {
        let outcome = not_ours(stage).and_then(|()| expect_not_ours_only(&early));
        self.checks.add("foreign_program_sees_the_rest", outcome);
        // It returns OK, after which the kernel asks nobody: a second one sees something only without the first.
        drop(early);
        let late = ForeignProgram::attach(&stage.node().namespace, "eth0")?;
        let page = curl(stage.remote(), &format!("http://{GATEWAY}/"));
        let outcome = page.and_then(|_| not_ours(stage)).and_then(|()| expect_not_ours_only(&late));
        self.checks.add("late_foreign_program_sees_the_rest", outcome);
        Ok(late)
    }

    fn path(&mut self, way: &str, before: &Metrics, after: &Metrics) {
        self.voice.heading("The path of a packet, with the counters that moved");
        self.voice.line(&path::draw(way, before, after));
        for path in ["forwarded_out", "forwarded_in", "flows_opened"] {
            self.figures.set(path, path::moved(before, after, "peer_packets_total", &[("path", path)]));
        }
        self.figures.set("dropped", path::moved(before, after, "peer_dropped_packets_total", &[]));
    }
}

fn not_ours(stage: &Stage) -> Result<()> {
    let from = &stage.gateway().namespace;
    ensure!(ping(from, NODE_LAN, PINGS, SECOND)?.all_answered(), "the node does not answer the gateway's pings");
    for node in [NODE_LAN, NODE_LAN6] {
        // The discard port: an ICMP error comes back, which never is ours either.
        let socket = EchoSocket::open(from, (node, 9).into())?;
        for _ in 0..PINGS {
            let _ = socket.ask(b"not ours", SECOND / 20);
        }
    }
    Ok(())
}

fn expect_not_ours_only(foreign: &ForeignProgram) -> Result<String> {
    let seen = [foreign.ipv4(TCP)?, foreign.ipv6(TCP)?, foreign.ipv4(ICMP)?, foreign.ipv4(UDP)?, foreign.ipv6(UDP)?];
    let sent = u64::from(PINGS);
    ensure!(seen == [0, 0, sent, sent, sent], "saw TCP, TCP6, ICMP, UDP, UDP6 {seen:?}, not 0, 0 and {sent} each");
    Ok(format!("{sent} pings, 2 × {sent} datagrams to the node itself; of the replies to the mesh none"))
}

fn curl(from: &Namespace, url: &str) -> Result<String> {
    from.exec("curl", &["--silent", "--show-error", "--fail", "--max-time", "10", url])
}

fn probes(node: &Node) -> Result<String> {
    for path in ["/livez", "/readyz", "/startupz"] {
        let (status, body) = node.probe(path)?;
        ensure!(status == 200, "{path}: {status} {body}");
    }
    Ok("/livez, /readyz and /startupz say 200".to_owned())
}

fn iptables(node: &Namespace) -> Result<String> {
    empty(node, "iptables-save", &[])?;
    empty(node, "ip6tables-save", &[])
}

fn empty(node: &Namespace, program: &str, arguments: &[&str]) -> Result<String> {
    let rules = node.exec(program, arguments)?;
    ensure!(rules.trim().is_empty(), "{program} says:\n{rules}");
    Ok("no table, no chain, no rule".to_owned())
}
