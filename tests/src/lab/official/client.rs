//! The official client, in a namespace.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Official;
use crate::lab::command::{Finished, run};
use crate::lab::member::Joining;
use crate::lab::namespace::Namespace;
use crate::lab::process::Process;
use crate::lab::traffic::wait_for;

const SOCKET: &str = "unix:///run/lab/netbird.sock";
const STATE: &str = "/run/lab/netbird";
/// A start may take so long.
const LIMIT: Duration = Duration::from_secs(20);

/// The official client. Killed when dropped.
pub struct OfficialClient {
    /// Where it is.
    pub namespace: Namespace,
    binary: PathBuf,
    service: Option<Process>,
    by: Paths,
}

/// By which paths an official client may be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paths {
    /// `NB_FORCE_RELAY`.
    #[default]
    Relay,
    /// By any.
    Any,
}

impl OfficialClient {
    /// Starts one and lets it join.
    ///
    /// # Errors
    /// It does not start or does not join.
    pub fn join(namespace: Namespace, official: &Official, joining: &Joining, by: Paths) -> Result<Self> {
        // What it writes outside its state directory.
        for directory in ["/etc/iproute2", "/var/lib"] {
            namespace.hide(Path::new(directory))?;
        }
        namespace.enter(|| fs::create_dir_all(STATE))?;
        let mut this = Self { namespace, binary: official.client.clone(), service: None, by };
        this.launch()?;
        this.up(joining)?;
        Ok(this)
    }

    /// Starts its service, which remembers what it has joined.
    ///
    /// # Errors
    /// It does not start.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = self.command();
        command.args(["service", "run", "--log-file", "console", "--log-level", "debug", "--daemon-addr", SOCKET]);
        let service = Process::start("the official client", &mut command)?;
        let ready = wait_for(LIMIT, || {
            // Versions before 0.68 have no `--check`.
            let asked = self.cli(&["status"]);
            asked.is_ok_and(|finished| finished.status.success())
        });
        ensure!(ready, "the official client does not start:\n{}", service.log());
        self.service = Some(service);
        Ok(())
    }

    /// Kills its service.
    ///
    /// # Errors
    /// None runs.
    pub fn kill(&mut self) -> Result<()> {
        self.service.take().context("it does not run")?.kill()
    }

    /// Its service.
    ///
    /// # Errors
    /// None runs.
    pub fn process(&self) -> Result<&Process> {
        self.service.as_ref().context("it does not run")
    }

    /// What `netbird status --json` says.
    ///
    /// # Errors
    /// It fails.
    pub fn status(&self) -> Result<Value> {
        let Finished { status, stdout, stderr } = self.cli(&["status", "--json"])?;
        ensure!(status.success(), "netbird status: {stderr}{stdout}");
        Ok(serde_json::from_str(&stdout)?)
    }

    /// How it is connected with the peer of this public key: `Relayed`, `P2P`; none: it is not.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub fn connection(&self, key: &str) -> Result<Option<String>> {
        let status = self.status()?;
        let peers = status["peers"]["details"].as_array().cloned().unwrap_or_default();
        let peer = peers.iter().find(|peer| peer["publicKey"] == key && peer["status"] == "Connected");
        Ok(peer.and_then(|peer| peer["connectionType"].as_str().map(str::to_owned)))
    }

    /// Whether its overlay has IPv6: servers before 0.71 give none.
    ///
    /// # Errors
    /// The device is not there.
    pub fn has_ipv6(&self) -> Result<bool> {
        let shown = self.namespace.exec("ip", &["-6", "address", "show", "dev", "wt0", "scope", "global"])?;
        Ok(shown.contains("inet6"))
    }

    /// Its public key.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub fn key(&self) -> Result<String> {
        Ok(self.status()?["publicKey"].as_str().context("publicKey")?.to_owned())
    }

    /// Its address on the overlay.
    ///
    /// # Errors
    /// As [`Self::status`]; it has none yet.
    pub fn overlay(&self) -> Result<IpAddr> {
        let status = self.status()?;
        let text = status["netbirdIp"].as_str().context("netbirdIp")?;
        Ok(text.split('/').next().unwrap_or_default().parse()?)
    }

    fn up(&self, joining: &Joining) -> Result<()> {
        let Joining { url, setup_key, hostname, .. } = joining;
        let arguments = ["up", "--management-url", url, "--setup-key", setup_key, "--hostname", hostname];
        let arguments = [&arguments[..], &["--disable-dns", "--no-browser", "--interface-name", "wt0"]].concat();
        let Finished { status, stdout, stderr } = self.cli(&arguments)?;
        ensure!(status.success(), "netbird up: {stderr}{stdout}\n{}", self.process()?.log());
        Ok(())
    }

    fn cli(&self, arguments: &[&str]) -> Result<Finished> {
        run(self.command().args(arguments).args(["--daemon-addr", SOCKET]))
    }

    fn command(&self) -> Command {
        let mut command = self.namespace.command(&self.binary);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", STATE).env("USER", "root").env("NB_STATE_DIR", STATE);
        command.env("NB_FORCE_RELAY", (self.by == Paths::Relay).to_string()).env("NB_DISABLE_SSH_CONFIG", "true");
        command
    }
}
