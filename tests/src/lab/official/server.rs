//! The official servers: management, signal and relay in one process.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use peer_test_control::KeyPair;

use super::{Api, Official};
use crate::lab::addresses::SERVERS;
use crate::lab::http::get;
use crate::lab::internet::Internet;
use crate::lab::process::Process;
use crate::lab::traffic::wait_for;

const CONFIG: &str = "/run/lab/combined.yaml";
const DATA: &str = "/run/lab/combined";
/// A start may take so long.
const LIMIT: Duration = Duration::from_secs(60);

/// The servers. Killed when dropped.
pub struct OfficialServer {
    internet: Internet,
    binary: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl OfficialServer {
    /// Starts them with an empty store.
    ///
    /// # Errors
    /// They do not start.
    pub fn start(internet: Internet, official: &Official, port: u16) -> Result<Self> {
        let address = SocketAddr::new(SERVERS, port);
        // Without one of its own, each start would have a new one, which reads nothing of the old store.
        let key = KeyPair::generate().private_text();
        let text = format!(
            "server:\n  listenAddress: \"0.0.0.0:{port}\"\n  exposedAddress: \"http://{address}\"\n  stunPorts: [3478]\n  \
             metricsPort: 9095\n  healthcheckAddress: \"127.0.0.1:9005\"\n  logFile: \"console\"\n  logLevel: \"info\"\n  \
             dataDir: \"{DATA}\"\n  authSecret: \"interop-secret\"\n  disableAnonymousMetrics: true\n  \
             disableGeoliteUpdate: true\n  auth:\n    issuer: \"http://{address}/oauth2\"\n  store:\n    engine: \"sqlite\"\n    encryptionKey: \"{key}\"\n"
        );
        internet.namespace.write(CONFIG.as_ref(), &text)?;
        internet.namespace.enter(|| fs::create_dir_all(DATA))?;
        let mut this = Self { internet, binary: official.server.clone(), address, process: None };
        this.resume()?;
        Ok(this)
    }

    /// What peers are given as the address of management.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills them; the store stays.
    ///
    /// # Errors
    /// They do not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("they do not run")?.kill()
    }

    /// Starts them again.
    ///
    /// # Errors
    /// They do not start.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = self.internet.namespace.command(&self.binary);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", DATA);
        command.env("NB_DISABLE_GEOLOCATION", "true").env("NB_SETUP_PAT_ENABLED", "true");
        let mut process = Process::start("the official servers", command.args(["--config", CONFIG]))?;
        let ready = wait_for(LIMIT, || {
            let answer = get(&self.internet.namespace, self.address, "/api/instance");
            answer.is_ok_and(|(status, _)| status == 200) || process.ended().is_ok_and(|ended| ended.is_some())
        });
        ensure!(ready && process.ended()?.is_none(), "the official servers do not start:\n{}", process.log());
        self.process = Some(process);
        Ok(())
    }

    /// Makes the account and its owner, once.
    ///
    /// # Errors
    /// The servers refuse.
    pub fn set_up(&self) -> Result<Api> {
        Api::set_up(self.internet.namespace.clone(), self.address)
    }

    /// What they have said.
    ///
    /// # Errors
    /// They do not run.
    pub fn log(&self) -> Result<String> {
        Ok(self.process.as_ref().context("they do not run")?.log())
    }
}
