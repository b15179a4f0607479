//! The official servers: management, signal and relay, in one process or in three.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use peer_test_control::KeyPair;
use serde_json::json;

use super::{Apart, Api, Official};
use crate::lab::addresses::SERVERS;
use crate::lab::http::get;
use crate::lab::internet::Internet;
use crate::lab::process::Process;
use crate::lab::traffic::wait_for;

const CONFIG: &str = "/run/lab/combined.yaml";
const APART: &str = "/run/lab/management.json";
const DATA: &str = "/run/lab/combined";
const SECRET: &str = "interop-secret";
const SIGNAL_PORT: u16 = 10_000;
const RELAY_PORT: u16 = 33_080;
/// A start may take so long.
const LIMIT: Duration = Duration::from_secs(60);

/// The servers. Killed when dropped.
pub struct OfficialServer {
    internet: Internet,
    /// What is killed and started again: the combined servers, or management.
    binary: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    process: Option<Process>,
    /// Signal and relay, where they are programs of their own.
    others: Vec<Process>,
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
             dataDir: \"{DATA}\"\n  authSecret: \"{SECRET}\"\n  disableAnonymousMetrics: true\n  \
             disableGeoliteUpdate: true\n  auth:\n    issuer: \"http://{address}/oauth2\"\n  store:\n    engine: \"sqlite\"\n    encryptionKey: \"{key}\"\n"
        );
        internet.namespace.write(CONFIG.as_ref(), &text)?;
        Self::launch(internet, &official.server, address, ["--config", CONFIG].map(str::to_owned).to_vec())
    }

    /// Starts them as three programs with an empty store: [`Self::kill`] and [`Self::resume`] are of management then.
    ///
    /// # Errors
    /// They do not start.
    pub fn start_apart(internet: Internet, programs: &Apart, port: u16) -> Result<Self> {
        let address = SocketAddr::new(SERVERS, port);
        let (signal, relay) = (SocketAddr::new(SERVERS, SIGNAL_PORT), SocketAddr::new(SERVERS, RELAY_PORT));
        let relay_url = format!("rel://{relay}");
        let settings = json!({
            "Relay": {"Addresses": [&relay_url], "CredentialsTTL": "12h", "Secret": SECRET},
            "Signal": {"Proto": "http", "URI": signal.to_string()},
            "Datadir": DATA,
            "StoreConfig": {"Engine": "sqlite"},
            "EmbeddedIdP": {"Enabled": true, "Issuer": format!("http://{address}/oauth2")},
        });
        internet.namespace.write(APART.as_ref(), &settings.to_string())?;
        let port = port.to_string();
        let arguments = ["management", "--config", APART, "--datadir", DATA, "--port", &port];
        let quiet = ["--log-file", "console", "--metrics-port", "9091", "--disable-anonymous-metrics"];
        let rest = ["--disable-geolite-update", "--disable-legacy-port", "--dns-domain", "mesh.test"];
        let arguments = [&arguments[..], &quiet, &rest].concat().into_iter().map(str::to_owned).collect();
        let mut this = Self::launch(internet, &programs.management, address, arguments)?;
        let port = SIGNAL_PORT.to_string();
        let signal = ["run", "--port", &port, "--metrics-port", "9092", "--log-file", "console"];
        let relay =
            ["--listen-address", &format!(":{RELAY_PORT}"), "--exposed-address", &relay_url, "--auth-secret", SECRET];
        let listeners = ["--metrics-port", "9093", "--health-listen-address", ":9003", "--log-file", "console"];
        this.start_other("official signal", &programs.signal, &signal, SIGNAL_PORT)?;
        this.start_other("official relay", &programs.relay, &[&relay[..], &listeners].concat(), RELAY_PORT)?;
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
        let mut command = self.command(&self.binary);
        let mut process = Process::start("the official servers", command.args(&self.arguments))?;
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

    fn launch(internet: Internet, program: &Path, address: SocketAddr, arguments: Vec<String>) -> Result<Self> {
        internet.namespace.enter(|| fs::create_dir_all(DATA))?;
        let binary = program.to_owned();
        let mut this = Self { internet, binary, arguments, address, process: None, others: Vec::new() };
        this.resume()?;
        Ok(this)
    }

    fn start_other(&mut self, name: &str, program: &Path, arguments: &[&str], port: u16) -> Result<()> {
        let mut process = Process::start(name, self.command(program).args(arguments))?;
        let address = SocketAddr::new(SERVERS, port);
        let listens = || self.internet.namespace.enter(|| TcpStream::connect(address)).is_ok();
        ensure!(wait_for(LIMIT, listens) && process.ended()?.is_none(), "{name} does not start:\n{}", process.log());
        self.others.push(process);
        Ok(())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = self.internet.namespace.command(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", DATA);
        command.env("NB_DISABLE_GEOLOCATION", "true").env("NB_SETUP_PAT_ENABLED", "true");
        command
    }
}
