//! The health port under attack from the LAN: it answers those who ask properly, and the mesh does not notice.

mod common;

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use common::{SECOND, alone, goes_on, page, tell};
use peer_tests::lab::{
    Binaries, Direction, GATEWAY, Lab, MemoryLimit, NODE_LAN, Namespace, Plan, Resident, Slow, Slowness, add_address,
    iperf, raise_descriptor_limit, wait_for,
};
use socket2::{Domain, Socket, Type};

/// As the manifests have it: members cannot reach it, who shares the node's LAN can.
const HEALTH: SocketAddr = SocketAddr::new(NODE_LAN, 9590);
/// The least memory that a manifest allows (deploy/overlays/rootless); the `DaemonSet` allows more than twice as much.
const MEMORY: u64 = 256 << 20;
/// Of that what connections to the health port may take, with all that is made for them.
const WORTH: u64 = 32 << 20;
/// What a moment of the daemon's own life may make of difference in memory.
const NOISE: u64 = 12 << 20;
/// In which a probe has to be answered: the shortest `timeoutSeconds` of the manifests.
const ANSWERED: Duration = Duration::from_secs(2);
/// In which 19 of 20 have to be, also where other work keeps both cores busy.
const SOON: Duration = SECOND;
/// Attackers' hosts.
const HOSTS: u8 = 60;
const SCRAPERS: usize = 32;
const ROUNDS: usize = 9;
/// Of each measurement.
const SECONDS: u32 = 1;

/// Another host of the LAN, which asks as it should.
const MONITOR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

fn attacker(number: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, 100 + number).into()
}

fn lab() -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.health = HEALTH;
    lab.up().expect("start");
    for address in (0..HOSTS).map(attacker).chain([MONITOR]) {
        add_address(&lab.gateway.namespace, "eth0", address, 24).expect("address");
    }
    page(lab.client(), GATEWAY);
    lab
}

/// Asks as the kubelet does, with no more time than it gives. How long it took.
fn probe(source: IpAddr, path: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&HEALTH.into(), ANSWERED)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWERED))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    Ok(begun.elapsed())
}

/// Probes until told to stop, or until one fails. How long each took, the shortest first.
fn probing(from: &Namespace, source: IpAddr, stop: &AtomicBool) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for path in ["/livez", "/readyz"] {
            let took = from.enter(|| probe(source, path));
            if took.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            times.push(took.with_context(|| format!("{path} for {source} after {} probes", times.len()))?);
        }
        // The pace of probes, not a flood.
        thread::sleep(SECOND / 20);
    }
    times.sort();
    Ok(times)
}

#[test]
fn slow_connections_take_a_bounded_part_of_memory_and_probes_are_answered() {
    let _alone = alone();
    raise_descriptor_limit().expect("descriptors");
    // Goes last, also when the scenario fails: the daemon must have left it.
    let limit;
    let mut lab = lab();
    let pid = lab.node.daemon().expect("daemon").pid();
    wait_for(SECOND, || false);
    let before = Resident::of(pid).expect("memory");
    limit = MemoryLimit::of(pid, MEMORY - before.now).expect("a control group");
    Resident::forget_peak(pid).expect("memory");
    let (lan, node) = (lab.gateway.namespace.clone(), lab.node.namespace.clone());
    let stop = AtomicBool::new(false);
    let hosts: Vec<_> = (0..HOSTS).map(attacker).collect();
    thread::scope(|scope| {
        let kubelet = scope.spawn(|| probing(&node, NODE_LAN, &stop));
        let monitor = scope.spawn(|| probing(&lan, MONITOR, &stop));
        let attack = scope.spawn(|| {
            let (mut slow, begun) = (Slow::default(), Instant::now());
            let ways = [Slowness::Header];
            let opened = slow.open(&lan, &hosts[..1], HEALTH, &ways, 2000).expect("half headers");
            tell(&format!("{opened} connections of one host with half a header in {:.1?}", begun.elapsed()));
            assert!(opened > 1900, "{opened} of 2000");
            let (mut slow, begun) = (Slow::default(), Instant::now());
            let ways = [Slowness::Header, Slowness::Silent, Slowness::Reader("/metrics"), Slowness::Reader("/readyz")];
            let mut opened = 0;
            while opened < 5000 && !stop.load(Ordering::Relaxed) {
                opened += slow.open(&lan, &hosts, HEALTH, &ways, 250).expect("slow connections");
                slow.go_on();
            }
            tell(&format!("{opened} slow connections of {HOSTS} hosts in {:.1?}", begun.elapsed()));
            // They hold on for a while.
            for _ in 0..10 {
                slow.go_on();
                wait_for(SECOND / 4, || false);
            }
            slow
        });
        while !attack.is_finished() {
            goes_on(lab.client(), GATEWAY);
        }
        let slow = attack.join().expect("attackers");
        let open = lab.node.metric("peer_listener_connections", &[("listener", "health")]).expect("metrics");
        stop.store(true, Ordering::Relaxed);
        for (who, probing) in [("the node itself", kubelet), ("another host", monitor)] {
            let times = probing.join().expect("no panic").unwrap_or_else(|error| panic!("{error:#}"));
            let [middle, most, all] =
                [50, 95, 100].map(|percent| times[(times.len() * percent / 100).saturating_sub(1)]);
            let count = times.len();
            tell(&format!("{count} probes from {who}: half within {middle:.1?}, 95 % {most:.1?}, all {all:.1?}"));
            assert!(count > 20 && most < SOON && all < ANSWERED, "{who}: {count}, {most:?}, {all:?}");
        }
        assert!((1.0..=128.0).contains(&open), "{open} are open");
        drop(slow);
    });
    let cut = |reason| lab.node.metric("peer_listener_cut_total", &[("listener", "health"), ("reason", reason)]);
    assert!(cut("source").expect("metrics") > 1000.0, "one host has its places and no more");
    assert!(cut("full").expect("metrics") > 1000.0, "many hosts have theirs together");
    let during = Resident::of(pid).expect("it lives");
    assert!(during.peak < before.now + WORTH, "{} MiB at the peak, {} before", during.peak >> 20, before.now >> 20);
    // Closed connections are forgotten at once, and their memory with them.
    let mut after = during;
    let back = wait_for(SECOND * 12, || {
        after = Resident::of(pid).expect("it lives");
        let open = lab.node.metric("peer_listener_connections", &[("listener", "health")]).expect("metrics");
        open == 0.0 && after.now < before.now + NOISE
    });
    let contained = if limit.is_some() { "in a control group of that much" } else { "without a control group" };
    tell(&format!(
        "resident: {:.1} MiB before, {:.1} at the peak, {:.1} after; {} MiB are allowed, {contained}",
        mib(before.now),
        mib(during.peak),
        mib(after.now),
        MEMORY >> 20
    ));
    assert!(back, "{after:?} after {before:?}");
    goes_on(lab.client(), GATEWAY);
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What all scrapers had.
#[derive(Default)]
struct Scraped {
    pages: AtomicU64,
    bytes: AtomicU64,
    different: Mutex<HashSet<Vec<u8>>>,
}

/// Asks for the page again and again: even ones on a connection of their own each time, odd ones on one that stays.
fn scrape(number: usize, stop: &AtomicBool, scraped: &Scraped) -> anyhow::Result<()> {
    let keep = number % 2 == 1;
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => TcpStream::connect_timeout(&HEALTH, SECOND * 5)?,
        };
        stream.set_read_timeout(Some(SECOND * 20))?;
        let connection = if keep { "keep-alive" } else { "close" };
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: peer\r\nconnection: {connection}\r\n\r\n")?;
        let mut reader = std::io::BufReader::new(stream);
        let length = read_header(&mut reader)?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        scraped.pages.fetch_add(1, Ordering::Relaxed);
        scraped.bytes.fetch_add(length as u64, Ordering::Relaxed);
        scraped.different.lock().expect("no panic").insert(body);
        kept = keep.then(|| reader.into_inner());
    }
    Ok(())
}

/// The length of the body that follows.
fn read_header(from: &mut impl std::io::BufRead) -> anyhow::Result<usize> {
    let mut length = None;
    loop {
        let mut line = String::new();
        anyhow::ensure!(from.read_line(&mut line)? > 0, "it closed");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = Some(value.trim().parse()?);
        }
        if line == "\r\n" {
            return length.ok_or_else(|| anyhow::anyhow!("no length"));
        }
    }
}

/// What 32 scrapers cost a download, rounds with and without them in turn. The baseline is no scrapers at all and not ones of
/// another server: those here wait for their turn most of the time, so that their own CPU time is next to nothing.
#[test]
fn scraping_in_a_loop_costs_a_download_next_to_nothing() {
    let _alone = alone();
    let mut lab = lab();
    lab.gateway.start_iperf().expect("iperf3");
    let lan = lab.gateway.namespace.clone();
    let (scraped, mut scraping) = (Scraped::default(), Duration::ZERO);
    let measure =
        || iperf(&lab.client().namespace, GATEWAY, Direction::Download, SECONDS).expect("iperf3").bits_per_second / 1e6;
    measure();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(measure());
        let (stop, begun) = (AtomicBool::new(false), Instant::now());
        thread::scope(|scope| {
            let scrapers: Vec<_> = (0..SCRAPERS)
                .map(|number| {
                    let (lan, stop, scraped) = (lan.clone(), &stop, &scraped);
                    scope.spawn(move || lan.enter(|| scrape(number, stop, scraped)))
                })
                .collect();
            with.push(measure());
            stop.store(true, Ordering::Relaxed);
            for scraper in scrapers {
                scraper.join().expect("no panic").expect("each is answered");
            }
        });
        scraping += begun.elapsed();
    }
    let (pages, bytes) = (scraped.pages.into_inner(), scraped.bytes.into_inner());
    let different = scraped.different.into_inner().expect("no panic").len() as u64;
    let (without, with) = (median(&mut without), median(&mut with));
    tell(&format!(
        "a member's download: {without:.0} Mbit/s, beside {SCRAPERS} scrapers in a loop {with:.0} ({:.0} %); in \
         {scraping:.1?} they had {pages} pages of {} KiB, {different} different ones",
        with / without * 100.0,
        (bytes / pages.max(1)) >> 10
    ));
    let (seconds, rounds) = (1 + scraping.as_secs(), ROUNDS as u64);
    assert!(pages > SCRAPERS as u64 && pages < 25 * seconds + 30 * rounds, "{pages} pages in {scraping:?}");
    assert!(different <= seconds + 2 * rounds, "a page is made at most once a second: {different} in {scraping:?}");
    assert!(with > 0.9 * without, "{with:.0} of {without:.0} Mbit/s");
    goes_on(lab.client(), GATEWAY);
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
