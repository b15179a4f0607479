//! `/livez`, `/readyz`, `/startupz` and `/metrics`: for the kubelet and Prometheus.
//!
//! They have a thread of their own: what strangers do here takes no time from the tasks that talk to servers and keep the
//! dataplane in step, and what those do delays no probe.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::pages::{Page, Pages};
use super::server::{self, Limits, Pace, Places, Server};
use super::{Source, descriptors};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Connections of this machine, such as the kubelet's.
const OWN: usize = 32;
/// Connections of all others.
const FOREIGN: usize = 96;
/// Connections of one of them: more than any scraper opens.
const PER_SOURCE: usize = 32;
/// Connections that wait to be accepted. They come in bursts, and each is accepted at once.
const BACKLOG: u32 = 1024;
/// What the kernel keeps for each connection. Requests are small; a page of metrics is written in several turns.
const RECEIVE_BUFFER: u32 = 16 << 10;
const SEND_BUFFER: u32 = 64 << 10;
/// One page of metrics in so long, for this machine and for all others: a page may have several hundred kilobytes.
const PAGE_EVERY: Duration = Duration::from_millis(40);
/// Pages that may go out at once after a pause.
const PAGE_BURST: u32 = 10;
/// One answer to a probe in so long: with all places taken by askers, nobody waits for longer than a quarter of a second.
const PROBE_EVERY: Duration = Duration::from_micros(2500);
const PROBE_BURST: u32 = 100;
/// How long the control side may take to answer before it counts as stuck: longer than it gives the packet thread.
const PATIENCE: Duration = Duration::from_secs(4);

/// The bound address of the health endpoints.
///
/// # Errors
/// When it cannot be had.
pub(super) fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // Connections inherit these.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(addr)?;
        // It goes to another runtime.
        socket.listen(BACKLOG)?.into_std()
    };
    bind().with_context(|| format!("--health-addr {addr}: choose a free port of an own address"))
}

/// Serves until the task is aborted.
pub(super) async fn serve(listener: TcpListener, source: Arc<Source>) {
    let (stop, stopped) = oneshot::channel();
    let control = Handle::current();
    let run = move || run(listener, source, control, stopped);
    match std::thread::Builder::new().name("health".to_owned()).spawn(run) {
        // The thread ends when this task does, and `stop` with it.
        Ok(_) => std::future::pending::<()>().await,
        Err(error) => tracing::error!(%error, "no thread for the health endpoints: they are not served"),
    }
    drop::<oneshot::Sender<Infallible>>(stop);
}

fn run(listener: TcpListener, source: Arc<Source>, control: Handle, stopped: oneshot::Receiver<Infallible>) {
    let serve = || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let limit = descriptors::limit();
            let own = descriptors::part(OWN, limit / 2);
            let places = Places { own, foreign: descriptors::part(FOREIGN, limit), per_source: PER_SOURCE };
            let server = Server { limits: Limits::default(), places, stats: Arc::clone(&source.listeners.health) };
            tokio::select! {
                () = server.serve(listener, router(source, control)) => {}
                _ = stopped => {}
            }
            io::Result::Ok(())
        })
    };
    if let Err(error) = serve() {
        tracing::error!(%error, "the health endpoints have stopped");
    }
}

struct Health {
    source: Arc<Source>,
    /// Runs everything else.
    control: Handle,
    pages: Pages,
    own: Paces,
    foreign: Paces,
}

/// Others cannot delay what this machine asks.
struct Paces {
    pages: Pace,
    probes: Pace,
}

impl Paces {
    fn new() -> Self {
        Self { pages: Pace::new(PAGE_EVERY, PAGE_BURST), probes: Pace::new(PROBE_EVERY, PROBE_BURST) }
    }
}

fn router(source: Arc<Source>, control: Handle) -> Router {
    let (own, foreign) = (Paces::new(), Paces::new());
    let health = Arc::new(Health { source, control, pages: Pages::default(), own, foreign });
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics))
        // Paths that there are not as well.
        .layer(from_fn_with_state(Arc::clone(&health), paced))
        .with_state(health)
}

async fn paced(
    State(health): State<Arc<Health>>,
    Extension(asker): Extension<server::Source>,
    request: Request,
    next: Next,
) -> Response {
    let paces = if asker == server::Source::Own { &health.own } else { &health.foreign };
    let pace = if request.uri().path() == "/metrics" { &paces.pages } else { &paces.probes };
    pace.turn().await;
    next.run(request).await
}

/// Alive: the control side answers and the shard does, too.
async fn livez(State(health): State<Arc<Health>>) -> Response {
    // Not asked from here: this thread turns even when all others hang.
    let source = Arc::clone(&health.source);
    let alive = health.control.spawn(async move { source.alive().await });
    let alive = match tokio::time::timeout(PATIENCE, alive).await {
        Ok(Ok(alive)) => alive,
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(anyhow::anyhow!("the control side does not answer")),
    };
    match alive {
        Ok(()) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response(),
    }
}

/// Ready: packets can flow.
async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let report = health.source.readiness().report();
    (code(report.ready), report.to_string()).into_response()
}

/// Started: was ready once.
async fn startupz(State(health): State<Arc<Health>>) -> Response {
    let report = health.source.readiness().report();
    (code(report.started), report.to_string()).into_response()
}

async fn metrics(State(health): State<Arc<Health>>, headers: HeaderMap) -> Response {
    let source = Arc::clone(&health.source);
    match health.pages.get(&health.control, || async move { source.metrics().await }).await {
        Ok(page) => shown(page, &headers),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")).into_response(),
    }
}

/// The page, in the format that is asked for.
pub(super) fn shown(page: Page, headers: &HeaderMap) -> Response {
    if wants_open_metrics(headers) {
        ([(CONTENT_TYPE, OPEN_METRICS)], page.open_metrics).into_response()
    } else {
        ([(CONTENT_TYPE, CLASSIC)], page.classic).into_response()
    }
}

/// Prometheus names the formats that it reads; who names none, such as a person with curl, gets the older one.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|kind| kind.trim_start().starts_with("application/openmetrics-text"))
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        let wants =
            |accept: &str| wants_open_metrics(&HeaderMap::from_iter([(ACCEPT, accept.parse().expect("valid"))]));
        assert!(wants("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"));
        assert!(wants("text/plain, application/openmetrics-text; version=1.0.0"));
        assert!(!wants("text/plain;version=0.0.4"));
        assert!(!wants("*/*"));
        assert!(!wants_open_metrics(&HeaderMap::new()));
    }
}
