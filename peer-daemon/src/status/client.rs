//! One request over the control socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

const PATIENCE: Duration = Duration::from_secs(5);

/// Nobody answers at any socket.
#[derive(Debug, thiserror::Error)]
#[error("no peer is running here, or its socket is elsewhere (--control-socket): {refused}")]
pub(crate) struct NobodyAnswers {
    pub(crate) refused: String,
    /// One of the sockets is there and belongs to somebody else.
    pub(crate) forbidden: bool,
}

/// Asks the first of `sockets` that answers.
///
/// # Errors
/// [`NobodyAnswers`], or what one answered in place of an answer.
pub(crate) async fn get(sockets: &[PathBuf], path: &str) -> anyhow::Result<Bytes> {
    let (mut refused, mut forbidden) = (Vec::new(), false);
    for socket in sockets {
        match UnixStream::connect(socket).await {
            Ok(stream) => {
                let answer = tokio::time::timeout(PATIENCE, exchange(stream, path)).await;
                let late = || format!("{} does not answer within {} s", socket.display(), PATIENCE.as_secs());
                return answer.with_context(late)?.with_context(|| describe(socket));
            }
            Err(error) => {
                forbidden |= error.kind() == ErrorKind::PermissionDenied;
                refused.push(format!("{}: {error}", socket.display()));
            }
        }
    }
    Err(NobodyAnswers { refused: refused.join("; "), forbidden }.into())
}

async fn exchange(stream: UnixStream, path: &str) -> anyhow::Result<Bytes> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header("host", "peer").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    if status != StatusCode::OK {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

fn describe(socket: &Path) -> String {
    format!("ask {}", socket.display())
}
