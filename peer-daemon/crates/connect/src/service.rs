//! The connector in tower's terms.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::{Alpn, Connector, Error, Stream, Target};

/// Connects tonic's channels; see [`Connector::grpc`].
#[derive(Clone, Debug)]
pub struct GrpcConnector {
    connector: Connector,
}

impl GrpcConnector {
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector }
    }
}

impl Service<Uri> for GrpcConnector {
    type Response = TokioIo<Stream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.connector.clone();
        Box::pin(async move {
            let target = Target::from_uri(&uri)?;
            connector.connect(&target, Alpn::H2).await.map(TokioIo::new)
        })
    }
}
