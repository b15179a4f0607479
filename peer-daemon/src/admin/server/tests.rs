//! Real connections over loopback.

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);
const GENEROUS: Limits = Limits { request: LONG, make: LONG, take: LONG, header: 8192 };
const PLACES: Places = Places { own: 4, foreign: 1, per_source: 1 };
const BIG: usize = 16 << 20;

struct Served {
    addr: std::net::SocketAddr,
    stats: Arc<ListenerStats>,
    task: JoinHandle<()>,
}

async fn serve(limits: Limits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let stats = ListenerStats::new("test");
    let router = Router::new()
        .route("/", get(async || "ok\n"))
        .route("/big", get(async || vec![b'x'; BIG]))
        .route("/never", get(async || std::future::pending::<&str>().await));
    let server = Server { limits, places: PLACES, stats: Arc::clone(&stats) };
    Served { addr, stats, task: tokio::spawn(server.serve(listener, router)) }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("accepted")
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("written");
        rest(&mut stream).await
    }
}

/// What comes until the other end closes, however it does that.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await;
    let _ = read.expect("it is closed in time");
    String::from_utf8(text).expect("text")
}

#[tokio::test]
async fn half_a_request_is_not_waited_for_and_neither_is_the_next_one() {
    let served = serve(Limits { request: SHORT, ..GENEROUS }).await;
    assert_eq!(served.ask("GET / HTT").await, "");
    assert_eq!(served.ask("").await, "");
    let answer = served.ask("GET / HTTP/1.1\r\nhost: peer\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    assert_eq!(served.stats.cuts(Cut::Request), 3, "the third had its answer and asked nothing more");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let served = serve(Limits { take: SHORT, ..GENEROUS }).await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: peer\r\n\r\n").await.expect("written");
    while served.stats.cuts(Cut::Answer) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(rest(&mut stream).await.len() < BIG);
    // One that reads has it all.
    let answer = served.ask("GET /big HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n").await;
    assert!(answer.len() > BIG, "{}", answer.len());
    assert_eq!(served.stats.cuts(Cut::Answer), 1);
}

#[tokio::test]
async fn an_answer_that_is_not_made_in_time_says_so() {
    let served = serve(Limits { make: SHORT, ..GENEROUS }).await;
    let answer = served.ask("GET /never HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[tokio::test]
async fn long_headers_and_bodies_are_refused() {
    let served = serve(GENEROUS).await;
    let long = format!("GET / HTTP/1.1\r\nhost: peer\r\nx: {}\r\n\r\n", "y".repeat(10_000));
    let answer = served.ask(&long).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    for body in
        ["content-length: 1\r\n\r\nx", "content-length: 999999999\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"]
    {
        let answer = served.ask(&format!("GET / HTTP/1.1\r\nhost: peer\r\n{body}")).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{body}: {answer}");
    }
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_is_answered() {
    let served = serve(GENEROUS).await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = served.connect().await;
        // It may have given way already.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await;
        slow.push(stream);
        let answer = served.ask("GET / HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n").await;
        assert!(answer.ends_with("ok\n"), "{answer}");
        assert!(served.stats.open() <= PLACES.own as u64 + 1, "{}", served.stats.open());
    }
    assert!(served.stats.cuts(Cut::Full) >= 96, "{}", served.stats.cuts(Cut::Full));
    assert_eq!(rest(&mut slow[0]).await, "", "the first was closed");
    served.task.abort();
    drop(served.task.await);
    while served.stats.open() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Answers as the kernel does a process that has no descriptor left, and then as usual.
struct Exhausted(TcpListener, std::sync::atomic::AtomicU32);

impl Accept for Exhausted {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Source)> {
        use std::sync::atomic::Ordering;
        if (1..=3).contains(&self.1.fetch_add(1, Ordering::Relaxed)) {
            return Err(rustix::io::Errno::MFILE.into());
        }
        Accept::accept(&self.0).await
    }
}

#[tokio::test]
async fn without_descriptors_the_longest_waiting_gives_its_own_and_all_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let stats = ListenerStats::new("test");
    let server = Server { limits: GENEROUS, places: PLACES, stats: Arc::clone(&stats) };
    let begun = Instant::now();
    let task =
        tokio::spawn(server.serve(Exhausted(listener, 0.into()), Router::new().route("/", get(async || "ok\n"))));
    let served = Served { addr, stats, task };
    let mut waiting = served.connect().await;
    assert_eq!(rest(&mut waiting).await, "", "it gave its descriptor");
    assert!(served.ask("GET / HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n").await.ends_with("ok\n"));
    assert_eq!(served.stats.cuts(Cut::Descriptors), 1);
    assert!(begun.elapsed() >= REST * 3, "it rests after each failure");
}

#[test]
fn sources_are_hosts_or_networks_and_own_addresses() {
    let of =
        |remote: &str, local: &str| source(remote.parse().expect("an address"), local.parse().expect("an address"));
    assert_eq!(of("127.0.0.1", "127.0.0.1"), Source::Own);
    assert_eq!(of("::ffff:192.0.2.1", "::ffff:192.0.2.1"), Source::Own);
    assert_eq!(of("::ffff:192.0.2.2", "::ffff:192.0.2.1"), of("192.0.2.2", "192.0.2.1"));
    assert_eq!(of("2001:db8::1", "2001:db8::7"), of("2001:db8::ffff:1", "2001:db8::7"));
    assert_ne!(of("2001:db8::1", "2001:db8::7"), of("2001:db8:0:1::1", "2001:db8::7"));
    assert_eq!(of("2001:db8::7", "2001:db8::7"), Source::Own);
}
