//! Connections: HTTP/1 and HTTP/2 on one port, with TLS or without.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Takes connections until the runtime ends.
pub(crate) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    loop {
        // Errors are of one connection; the next one may be better.
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(stream, tls.clone(), router.clone()));
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => talk(stream, router).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                talk(stream, router).await;
            }
        }
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let builder = Builder::new(TokioExecutor::new());
    let service = TowerToHyperService::new(router);
    // How a client goes away is its own affair.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}
