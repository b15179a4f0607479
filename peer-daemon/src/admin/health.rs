//! `/livez`, `/readyz`, `/startupz` and `/metrics`: for the kubelet and Prometheus.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::Source;

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

async fn metrics(State(source): State<Arc<Source>>) -> Response {
    match source.metrics().await {
        Ok(text) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
