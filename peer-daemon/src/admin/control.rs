//! The control socket: HTTP over a Unix socket that only its owner may open.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::UnixListener;

use super::Source;
use crate::flows::{Refused, answer};
use crate::trace;

/// A bound control socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl ControlSocket {
    /// Binds the first of `candidates` that can be had. A socket that nobody answers is a left-over and replaced.
    ///
    /// # Errors
    /// When none can be had.
    pub(crate) fn bind(candidates: &[PathBuf]) -> anyhow::Result<Self> {
        let mut refused = Vec::new();
        for path in candidates {
            match bind(path) {
                Ok(listener) => {
                    tracing::debug!(path = %path.display(), "control socket");
                    return Ok(Self { listener, file: SocketFile(path.clone()) });
                }
                Err(error) => refused.push(format!("{}: {error}", path.display())),
            }
        }
        bail!("no control socket: {}; name a place with --control-socket", refused.join("; "))
    }

    /// Serves until the task is aborted.
    pub(crate) async fn serve(self, source: Arc<Source>) {
        let router = Router::new()
            .route("/status", get(status))
            .route("/flows", get(flows))
            .route("/trace", get(trace))
            .route("/trace/live", get(follow))
            .route("/trace/packets", get(followed))
            .route("/trace/end", get(end_following))
            .with_state(source);
        if let Err(error) = axum::serve(self.listener, router).await {
            tracing::error!(%error, "the control socket has stopped");
        }
        drop(self.file);
    }
}

async fn status(State(source): State<Arc<Source>>) -> Response {
    match source.report().await {
        Ok(report) => Json(report).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

async fn flows(State(source): State<Arc<Source>>, RawQuery(query): RawQuery) -> Response {
    match answer(&source.dataplane, &source.observer, &source.known().peers, &query.unwrap_or_default()).await {
        Ok(listing) => Json(listing).into_response(),
        Err(Refused::Field(error)) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        Err(Refused::Dataplane(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn trace(State(source): State<Arc<Source>>, RawQuery(query): RawQuery) -> Response {
    answered(trace::describe(&source, &query.unwrap_or_default()).await)
}

async fn follow(State(source): State<Arc<Source>>, RawQuery(query): RawQuery) -> Response {
    answered(trace::follow(&source, &query.unwrap_or_default()).await)
}

async fn followed(State(source): State<Arc<Source>>, RawQuery(query): RawQuery) -> Response {
    answered(trace::followed(&source, &query.unwrap_or_default()))
}

async fn end_following(State(source): State<Arc<Source>>) -> Response {
    answered(trace::end(&source).await)
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

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    // Under a name of its own until its mode is right: nobody opens it in between.
    let new = path.with_extension(format!("new.{}", std::process::id()));
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers there"));
    }
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    let finish = std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&new, path))
        .context("place the socket");
    match finish {
        Ok(()) => Ok(listener),
        Err(error) => {
            let _ = std::fs::remove_file(&new);
            Err(io::Error::other(format!("{error:#}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_left_over_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run").join("control.sock");
        let first = ControlSocket::bind(std::slice::from_ref(&path)).expect("bound");
        let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = dir.path().join("other.sock");
        let second = ControlSocket::bind(&[path.clone(), other.clone()]).expect("the next candidate");
        assert_eq!(second.file.0, other);
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
