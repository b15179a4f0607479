//! `/livez`, `/readyz`, `/startupz` and `/metrics`: for the kubelet and Prometheus.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::Source;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, source: Arc<Source>) {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics))
        .with_state(source);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "health endpoints have stopped");
    }
}

/// Alive: the control side answers and the shard does, too.
async fn livez(State(source): State<Arc<Source>>) -> Response {
    match source.alive().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response(),
    }
}

/// Ready: packets can flow.
async fn readyz(State(source): State<Arc<Source>>) -> Response {
    let report = source.readiness().report();
    (code(report.ready), report.to_string()).into_response()
}

/// Started: was ready once.
async fn startupz(State(source): State<Arc<Source>>) -> Response {
    let report = source.readiness().report();
    (code(report.started), report.to_string()).into_response()
}

async fn metrics(State(source): State<Arc<Source>>, headers: HeaderMap) -> Response {
    match source.metrics().await {
        Ok(text) if wants_open_metrics(&headers) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Ok(text) => ([(CONTENT_TYPE, CLASSIC)], peer_metrics::classic(&text)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
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
