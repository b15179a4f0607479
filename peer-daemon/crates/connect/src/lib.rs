//! One connector for management, signal and relay: address → TCP, through an HTTP proxy where the environment names one,
//! with TLS where the URL asks for it.
//!
//! * [`Connector::connect`] gives a byte stream; [`Connector::grpc`] the same in the form that tonic takes.
//! * TLS trusts the system's roots, else the bundled ones of Mozilla, and always the files of [`Config::ca_files`].
//! * `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (also in lower case) are read by [`Proxy::from_env`].
#![forbid(unsafe_code)]

mod connector;
mod error;
mod no_proxy;
mod proxy;
mod service;
mod stream;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod tunnel;

pub use connector::{Config, Connector};
pub use error::{Credentials, Error};
pub use proxy::Proxy;
pub use service::GrpcConnector;
pub use stream::Stream;
pub use target::Target;
pub use tls::Alpn;
