//! `/livez`, `/readyz`, `/startupz` and `/metrics`: for the kubelet and Prometheus.

use std::net::SocketAddr;
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
use tokio::net::{TcpListener, TcpSocket};

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
const PAGE_EVERY: Duration = Duration::from_millis(20);
/// Pages that may go out at once after a pause.
const PAGE_BURST: u32 = 10;
/// One answer to a probe in so long: with all places taken by askers, nobody waits for longer than a quarter of a second.
const PROBE_EVERY: Duration = Duration::from_micros(2500);
const PROBE_BURST: u32 = 100;

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
        socket.listen(BACKLOG)
    };
    bind().with_context(|| format!("--health-addr {addr}: choose a free port of an own address"))
}

/// Serves until the task is aborted.
pub(super) async fn serve(listener: TcpListener, source: Arc<Source>) {
    let limit = descriptors::limit();
    let own = descriptors::part(OWN, limit / 2);
    let places = Places { own, foreign: descriptors::part(FOREIGN, limit), per_source: PER_SOURCE };
    let server = Server { limits: Limits::default(), places, stats: Arc::clone(&source.listeners.health) };
    server.serve(listener, router(source)).await;
}

struct Health {
    source: Arc<Source>,
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

fn router(source: Arc<Source>) -> Router {
    let health = Arc::new(Health { source, pages: Pages::default(), own: Paces::new(), foreign: Paces::new() });
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
    match health.source.alive().await {
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
    match health.pages.get(async || health.source.metrics().await).await {
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
