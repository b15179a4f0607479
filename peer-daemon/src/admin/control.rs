//! The control socket: HTTP over a Unix socket that only its owner may open.

mod socket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::UnixListener;

use self::socket::SocketFile;
use super::pages::Page;
use super::server::{Limits, Pace, Places, Server};
use super::{Source, descriptors, health};
use crate::flows::{Refused, answer};
use crate::trace;

/// A bound control socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// Connections at once; all are of the owner.
const PLACES: usize = 32;
/// Least time between two answers that read tables or ask the packet thread.
const EVERY: Duration = Duration::from_millis(5);

impl ControlSocket {
    /// Binds the first of `candidates` that can be had. A socket that nobody answers is a left-over and replaced; a file, a
    /// directory or a link is not.
    ///
    /// # Errors
    /// When none can be had.
    pub(crate) fn bind(candidates: &[PathBuf]) -> anyhow::Result<Self> {
        let mut refused = Vec::new();
        for path in candidates {
            match socket::bind(path) {
                Ok((listener, file)) => {
                    tracing::debug!(path = %path.display(), "control socket");
                    return Ok(Self { listener, file });
                }
                Err(error) => refused.push(format!("{}: {error}", path.display())),
            }
        }
        bail!("no control socket: {}; name a place with --control-socket", refused.join("; "))
    }

    /// Serves until the task is aborted.
    pub(crate) async fn serve(self, source: Arc<Source>) {
        let own = descriptors::part(PLACES, descriptors::limit());
        let places = Places { own, foreign: 0, per_source: 0 };
        let server = Server { limits: Limits::default(), places, stats: Arc::clone(&source.listeners.control) };
        server.serve(self.listener, router(source)).await;
        drop(self.file);
    }
}

fn router(source: Arc<Source>) -> Router {
    // A script that asks in a loop, or many, must not keep the packet thread busy.
    let dear = Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/flows", get(flows))
        .layer(from_fn_with_state(Arc::new(Pace::new(EVERY, 1)), alone));
    Router::new()
        .route("/trace", get(trace))
        .route("/trace/live", get(follow))
        .route("/trace/packets", get(followed))
        .route("/trace/end", get(end_following))
        .route("/networks", get(networks))
        .route("/check/live", get(live))
        .route("/check/ready", get(ready))
        .route("/check/startup", get(startup))
        .merge(dear)
        .with_state(source)
}

async fn alone(State(pace): State<Arc<Pace>>, request: Request, next: Next) -> Response {
    let _turn = pace.alone().await;
    next.run(request).await
}

async fn status(State(source): State<Arc<Source>>) -> Response {
    match source.answer().await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

/// As on the health listener, but as things stand now.
async fn metrics(State(source): State<Arc<Source>>, headers: HeaderMap) -> Response {
    match source.metrics().await {
        Ok(text) => health::shown(Page::new(text), &headers),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

async fn networks(State(source): State<Arc<Source>>) -> Response {
    Json(source.networks()).into_response()
}

async fn live(State(source): State<Arc<Source>>) -> Response {
    checked(source.alive().await.map_err(|error| format!("{error:#}")))
}

async fn ready(State(source): State<Arc<Source>>) -> Response {
    let report = source.readiness().report();
    checked(if report.ready { Ok(()) } else { Err(report.to_string()) })
}

async fn startup(State(source): State<Arc<Source>>) -> Response {
    checked(source.joined())
}

fn checked(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

async fn flows(State(source): State<Arc<Source>>, RawQuery(query): RawQuery) -> Response {
    let Some(running) = source.running() else { return not_started() };
    match answer(&running.dataplane, &running.observer, &running.known().peers, &query.unwrap_or_default()).await {
        Ok(listing) => Json(listing).into_response(),
        Err(Refused::Field(error)) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        Err(Refused::Dataplane(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn trace(State(source): State<Arc<Source>>, RawQuery(query): RawQuery) -> Response {
    let Some(running) = source.running() else { return not_started() };
    answered(trace::describe(&running, &query.unwrap_or_default()).await)
}

async fn follow(State(source): State<Arc<Source>>, RawQuery(query): RawQuery) -> Response {
    let Some(running) = source.running() else { return not_started() };
    answered(trace::follow(&running, &query.unwrap_or_default()).await)
}

async fn followed(State(source): State<Arc<Source>>, RawQuery(query): RawQuery) -> Response {
    let Some(running) = source.running() else { return not_started() };
    answered(trace::followed(&running, &query.unwrap_or_default()))
}

async fn end_following(State(source): State<Arc<Source>>) -> Response {
    let Some(running) = source.running() else { return not_started() };
    answered(trace::end(&running).await)
}

fn not_started() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the node has not started yet\n").into_response()
}

fn answered<T: serde::Serialize>(answer: Result<T, trace::Refused>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(trace::Refused::Field(error)) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        Err(error @ trace::Refused::Busy { .. }) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
        Err(trace::Refused::Dataplane(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use peer_core::readiness::Readiness;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::watch;

    use super::*;
    use crate::admin::ControlPlane;
    use crate::status::get as ask;

    fn serve() -> (tempfile::TempDir, PathBuf, tokio::task::JoinHandle<()>) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        let socket = ControlSocket::bind(std::slice::from_ref(&path)).expect("bound");
        let readiness = Readiness::new();
        // Kept beyond its end, as of a part that has stopped.
        drop(readiness.latch("network"));
        let source = Source::new(readiness, ControlPlane::Static, watch::Sender::new(None).subscribe());
        let task = tokio::spawn(socket.serve(Arc::new(source)));
        (dir, path, task)
    }

    #[tokio::test]
    async fn a_daemon_whose_node_has_not_started_says_so() {
        let (_dir, path, _task) = serve();
        let sockets = [path];
        let status = ask(&sockets, "/status").await.expect("an answer");
        let answer: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
        assert_eq!((&answer["node"]["ready"], &answer["node"]["interface"]), (&false.into(), &serde_json::Value::Null));
        assert_eq!(&ask(&sockets, "/networks").await.expect("an answer")[..], b"[]");
        ask(&sockets, "/check/live").await.expect("it lives");
        for (path, why) in [("/check/ready", "network"), ("/check/startup", "network"), ("/flows", "not started")] {
            let error = format!("{:#}", ask(&sockets, path).await.expect_err(path));
            assert!(error.contains("503") && error.contains(why), "{path}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_comes_by_the_socket_it_goes_on_answering(
            bytes in prop::collection::vec(any::<u8>(), 0..300), path in "/[ -~]{0,40}",
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (_dir, socket, _task) = serve();
                let line = format!("GET {path} HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n");
                for request in [bytes.as_slice(), line.as_bytes()] {
                    let mut stream = tokio::net::UnixStream::connect(&socket).await.expect("accepted");
                    // It may hang up before it has read everything.
                    let _ = stream.write_all(request).await;
                    let _ = stream.shutdown().await;
                    let mut answer = Vec::new();
                    let _ = stream.read_to_end(&mut answer).await;
                }
                ask(&[socket], "/check/live").await.expect("it still answers");
            });
        }
    }

    #[tokio::test]
    async fn a_left_over_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run").join("control.sock");
        let first = ControlSocket::bind(std::slice::from_ref(&path)).expect("bound");
        let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = dir.path().join("other.sock");
        let second = ControlSocket::bind(&[path.clone(), other.clone()]).expect("the next candidate");
        assert_eq!(second.file.path, other);
        // As after a crash: the file is there, nobody listens.
        let ControlSocket { listener, file } = first;
        drop(listener);
        let again = ControlSocket::bind(std::slice::from_ref(&path)).expect("replaced");
        drop(file);
        drop(again);
        assert!(
            ControlSocket::bind(&[dir.path().join("x".repeat(200))])
                .expect_err("too long")
                .to_string()
                .contains("--control-socket")
        );
    }
}
