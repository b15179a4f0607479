//! What others may ask a running peer: health and metrics over TCP, status over the control socket.

mod control;
mod descriptors;
mod hardening;
mod health;
mod overview;
mod pages;
mod process;
mod readiness;
mod server;
mod source;

use std::net::TcpListener;
use std::sync::Arc;

use tokio::task::JoinSet;

pub(crate) use self::control::ControlSocket;
pub(crate) use self::descriptors::raise as raise_descriptor_limit;
pub(crate) use self::descriptors::{REMEDY as DESCRIPTORS_REMEDY, have_ended as descriptors_have_ended};
pub(crate) use self::overview::timestamp;
pub(crate) use self::source::{ControlPlane, Known, Running, Source, endpoint};
use crate::cli::UpArgs;

/// Both, bound.
pub(crate) struct Admin {
    control: ControlSocket,
    health: Option<TcpListener>,
}

impl Admin {
    /// Binds what the command line asks for.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub(crate) fn bind(args: &UpArgs) -> anyhow::Result<Self> {
        let health = args.health_addr.map(health::bind).transpose()?;
        Ok(Self { control: ControlSocket::bind(&args.socket.candidates())?, health })
    }

    /// The TCP port of the health endpoints, if there are any.
    pub(crate) fn health_port(&self) -> Option<u16> {
        self.health.as_ref().and_then(|listener| listener.local_addr().ok()).map(|addr| addr.port())
    }

    /// Serves until the tasks are aborted.
    pub(crate) fn serve(self, source: &Arc<Source>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.control.serve(Arc::clone(source)));
        if let Some(listener) = self.health {
            tasks.spawn(health::serve(listener, Arc::clone(source)));
        }
        tasks
    }
}
