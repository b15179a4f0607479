//! Official clients and servers: programs named by `NETBIRD_BIN_DIR`, which this project neither has nor needs.

mod api;
mod client;
mod login;
mod mesh;
mod server;

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

pub use api::Api;
pub use client::{OfficialClient, Paths};
pub use mesh::OfficialMesh;
pub use server::OfficialServer;

/// Names the folder.
const VARIABLE: &str = "NETBIRD_BIN_DIR";

/// The official programs.
#[derive(Clone, Debug)]
pub struct Official {
    /// `netbird`, the client.
    pub client: PathBuf,
    /// `combined`, the servers.
    pub server: PathBuf,
    /// `management`, `signal` and `relay`, the servers as programs of their own, if all three are there.
    pub apart: Option<Apart>,
    /// Version of the client.
    pub version: String,
}

/// The servers as programs of their own.
#[derive(Clone, Debug)]
pub struct Apart {
    /// `management`.
    pub management: PathBuf,
    /// `signal`.
    pub signal: PathBuf,
    /// `relay`.
    pub relay: PathBuf,
}

impl Official {
    /// Finds them; `None`: the variable is not set.
    ///
    /// # Errors
    /// The folder lacks one of them.
    pub fn find() -> Result<Option<Self>> {
        let Some(folder) = env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(None) };
        let program = |name: &str| {
            let path = folder.join(name);
            ensure!(path.is_file(), "{VARIABLE}={}: there is no {name} in it", folder.display());
            path.canonicalize().with_context(|| path.display().to_string())
        };
        let (client, server) = (program("netbird")?, program("combined")?);
        let apart = match [program("management"), program("signal"), program("relay")] {
            [Ok(management), Ok(signal), Ok(relay)] => Some(Apart { management, signal, relay }),
            _ => None,
        };
        let output = Command::new(&client).arg("version").env("HOME", env::temp_dir()).output().context("netbird")?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Some(Self { client, server, apart, version }))
    }
}
