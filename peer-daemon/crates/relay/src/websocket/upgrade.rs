//! From HTTP to WebSocket (RFC 6455 §4.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use peer_connect::{Stream, Target};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

const PATH: &str = "/relay";
/// What the server hashes with our key (§1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// The server does not speak HTTP.
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    /// The target cannot be written into a header.
    #[error("no HTTP request: {0}")]
    Request(#[from] http::Error),
    /// Something else is there, or a proxy in between does not pass WebSockets on.
    #[error("{PATH} answers {0}, not 101: no relay there, or a proxy that does not pass WebSockets on")]
    Status(StatusCode),
    /// An answer to another question.
    #[error("the answer's header `{0}` is not that of a WebSocket server")]
    Header(&'static str),
}

/// Makes a WebSocket of `stream`. Returns it with what the server has sent on it already. `nonce`: random.
pub(crate) async fn upgrade(target: &Target, stream: Stream, nonce: [u8; 16]) -> Result<(Stream, Bytes), UpgradeError> {
    let key = STANDARD.encode(nonce);
    let default_port = if target.tls { 443 } else { 80 };
    let address = target.to_string();
    let host =
        if target.port == default_port { address.trim_end_matches(&format!(":{default_port}")) } else { &address };
    let request = Request::get(PATH)
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDrop(tokio::spawn(connection.with_upgrades()));
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpgradeError::Status(answer.status()));
    }
    check(answer.headers(), &key)?;
    let parts = hyper::upgrade::on(answer).await?.downcast::<TokioIo<Stream>>();
    drop(connection);
    // It is the stream that was put in.
    let parts = parts.map_err(|_| UpgradeError::Header("upgrade"))?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

fn check(headers: &HeaderMap, key: &str) -> Result<(), UpgradeError> {
    let is = |name, wanted: &str| {
        let value = headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted))
    };
    if !is(UPGRADE, "websocket") {
        return Err(UpgradeError::Header("upgrade"));
    }
    if !is(CONNECTION, "upgrade") {
        return Err(UpgradeError::Header("connection"));
    }
    let accepted = headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|value| value.as_bytes() == accept(key).as_bytes());
    if accepted { Ok(()) } else { Err(UpgradeError::Header("sec-websocket-accept")) }
}

fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_example_is_accepted() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
