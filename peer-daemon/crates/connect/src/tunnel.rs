//! A way through an HTTP proxy (RFC 9110 §9.3.6).

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;

use crate::proxy::ProxyServer;
use crate::stream::Base;
use crate::{Credentials, Error, Target};

/// Asks the proxy at the other end of `base` for a connection to `target`.
pub(crate) async fn open(proxy: &ProxyServer, target: &Target, base: Base) -> Result<Base, Error> {
    let refused = |reason: String, credentials| Error::Proxy {
        proxy: proxy.target.to_string(),
        address: target.to_string(),
        reason,
        credentials,
    };
    let failed = |reason| refused(reason, Credentials::Fine);
    let hyper_failed = |error: hyper::Error| failed(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(base)).await.map_err(hyper_failed)?;
    let mut request =
        Request::builder().method(Method::CONNECT).uri(target.to_string()).header(HOST, target.to_string());
    if let Some(value) = &proxy.authorization {
        request = request.header(PROXY_AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(error.to_string()))?;
    let connection = tokio::spawn(connection.with_upgrades());
    let upgraded = async {
        let answer = sender.send_request(request).await.map_err(hyper_failed)?;
        if !answer.status().is_success() {
            let (credentials, hint) = match (answer.status(), &proxy.authorization) {
                (StatusCode::PROXY_AUTHENTICATION_REQUIRED, None) => {
                    (Credentials::Missing, ": it wants user and password")
                }
                (StatusCode::PROXY_AUTHENTICATION_REQUIRED, Some(_)) => {
                    (Credentials::Refused, ": it refuses the user and password of its URL")
                }
                _ => (Credentials::Fine, ""),
            };
            return Err(refused(format!("it answers {}{hint}", answer.status()), credentials));
        }
        hyper::upgrade::on(answer).await.map_err(hyper_failed)
    };
    let upgraded = upgraded.await;
    if upgraded.is_err() {
        connection.abort();
    }
    let parts = upgraded?.downcast::<TokioIo<Base>>().map_err(|_| failed("it is another connection".into()))?;
    Ok(parts.io.into_inner().through_proxy(parts.read_buf))
}
