//! What scenarios share.
#![allow(dead_code, reason = "each scenario file uses its part")]

pub(crate) mod official_mesh;
pub(crate) mod streams;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use peer_tests::lab::{
    Client, Direction, ECHO_PORT, EchoSocket, GATEWAY, HTTP_PORT, Lab, Mesh, MeshPlan, Namespace, Official, Plan,
    Process, Udp, get, iperf, page_within, ping, wait_for,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Longer than it takes a client to try a handshake again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(12);

/// A lab whose daemon runs.
pub(crate) fn lab(plan: &Plan) -> Lab {
    Lab::start(plan).expect("lab")
}

/// A mesh whose daemon is ready and whose member has had a page from the LAN.
pub(crate) fn joined(plan: &MeshPlan) -> Mesh {
    let mesh = Mesh::start(plan).expect("mesh");
    page_within(PATIENCE, &mesh.member().namespace, GATEWAY).expect("a first page");
    mesh
}

/// The member has a page again, soon.
#[track_caller]
pub(crate) fn page_by_relay(mesh: &Mesh) {
    page_within(PATIENCE, &mesh.member().namespace, GATEWAY).expect("page");
}

/// The official programs, or why scenarios that need them are ignored.
pub(crate) fn official() -> Result<&'static Official, String> {
    static FOUND: OnceLock<Option<Official>> = OnceLock::new();
    let official = FOUND.get_or_init(|| Official::find().expect("official programs")).as_ref();
    official.ok_or_else(|| "NETBIRD_BIN_DIR names no folder with the official `netbird` and `combined`".to_owned())
}

/// One scenario at a time: for those that load the machine.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service's page, as this member gets it.
pub(crate) fn page(client: &Client, service: IpAddr) -> String {
    let (status, page) = get(&client.namespace, SocketAddr::new(service, HTTP_PORT), "/").expect("page");
    assert_eq!(status, 200);
    page
}

/// Asserts that a member does not notice what happens beside: 20 of 20 new connections, less than 1 % of datagrams lost, all
/// of its pings answered.
#[track_caller]
pub(crate) fn goes_on(member: &Client, service: IpAddr) {
    let pages = (0..20).filter(|_| {
        let page = get(&member.namespace, SocketAddr::new(service, HTTP_PORT), "/");
        page.is_ok_and(|(status, _)| status == 200)
    });
    assert_eq!(pages.count(), 20, "new connections");
    let socket = flow(member, service);
    let lost = (0..400_u32).filter(|number| !socket.ask(&number.to_be_bytes(), SECOND / 2).expect("send")).count();
    assert!(lost < 4, "{lost} of 400 datagrams lost");
    let pings = ping(&member.namespace, service, 50, SECOND).expect("ping");
    assert!(pings.all_answered(), "{} of {} pings answered", pings.round_trips.len(), pings.sent);
}

/// A UDP flow of this member with the service.
pub(crate) fn flow(client: &Client, service: IpAddr) -> EchoSocket {
    EchoSocket::open(&client.namespace, (service, ECHO_PORT).into()).expect("socket")
}

/// Gbit/s, and CPU seconds of the node per GiB.
pub(crate) fn measure(from: &Namespace, node: &Process, direction: Direction, seconds: u32) -> (f64, f64) {
    let before = node.cpu().expect("CPU");
    let throughput = iperf(from, GATEWAY, direction, seconds).expect("iperf3");
    let used = node.cpu().expect("CPU").process.saturating_sub(before.process);
    (throughput.bits_per_second / 1e9, used.as_secs_f64() / (throughput.bytes / f64::from(1 << 30)))
}

/// Tells people a figure, also when the scenario passes.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "\n  {text}");
}

/// Asserts that a value, asked for again and again, becomes what it should be.
#[track_caller]
pub(crate) fn becomes<T: Copy + PartialEq + std::fmt::Debug>(expected: T, mut ask: impl FnMut() -> T) {
    let mut last = ask();
    wait_for(SECOND * 5, || {
        last = ask();
        last == expected
    });
    assert_eq!(last, expected);
}

/// Whether the service answers the first time it is asked.
pub(crate) fn answered(socket: &EchoSocket, content: &[u8]) -> bool {
    socket.ask(content, SECOND * 2).expect("send")
}

/// Whether the service answers within a time, for what takes a moment to come back: it is asked again and again.
pub(crate) fn answered_within(limit: Duration, socket: &EchoSocket, content: &[u8]) -> bool {
    wait_for(limit, || socket.ask_within(content, SECOND / 10).expect("send"))
}

/// A flow between a member and a service of one's own: both sockets, and each one's view of the other.
pub(crate) struct Pair {
    pub(crate) member: Udp,
    pub(crate) service: Udp,
    /// The member, as the service sees it.
    pub(crate) seen: SocketAddr,
}

pub(crate) fn pair(lab: &Lab, at: IpAddr, port: u16) -> Pair {
    pair_with(lab, &lab.gateway.namespace, at, port)
}

/// As [`pair`], with a service that is elsewhere.
pub(crate) fn pair_with(lab: &Lab, host: &Namespace, at: IpAddr, port: u16) -> Pair {
    let any: IpAddr = if at.is_ipv4() { "0.0.0.0" } else { "::" }.parse().expect("an address");
    let member = Udp::bind(&lab.client().namespace, any, 0).expect("socket");
    let service = Udp::bind(host, at, port).expect("socket");
    member.connect((at, port).into()).expect("connect");
    let mut seen = None;
    wait_for(SECOND * 6, || {
        member.send(b"open").expect("send");
        seen = service.receive(SECOND).expect("receive");
        seen.is_some()
    });
    while service.receive(SECOND / 100).expect("receive").is_some() {}
    Pair { member, service, seen: seen.expect("it arrives").1 }
}
