//! The node under test: a namespace with peer-daemon in it.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use peer_common::DropReason;
use serde_json::Value;

use super::command::{Finished, run};
use super::config::NodeConfig;
use super::container::{Container, Places};
use super::http::{get, get_by_socket};
use super::metrics::Metrics;
use super::namespace::Namespace;
use super::process::Process;
use super::traffic::wait_for;

pub(crate) const HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
const CONFIG: &str = "/run/lab/peer.toml";
const CONTROL: &str = "/run/netbird.sock";
pub(crate) const BPFFS: &str = "/run/lab/bpffs";
const STATE: &str = "/run/lab/state";
/// Where other names of the daemon are.
const NAMES: &str = "/run/lab/bin";
/// A start or a clean end may take so long.
const LIMIT: Duration = Duration::from_secs(15);

/// What the daemon may do, and no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capabilities {
    /// `CAP_NET_ADMIN` and `CAP_BPF`.
    #[default]
    Minimal,
    /// `CAP_PERFMON` as well: the verifier then adds no fences.
    Deployed,
    /// All that root has, as when somebody starts it by hand.
    Root,
}

impl Capabilities {
    /// Names, for people.
    #[must_use]
    pub fn names(self) -> &'static str {
        match self {
            Self::Minimal => "CAP_NET_ADMIN and CAP_BPF alone",
            Self::Deployed => "CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON",
            Self::Root => "every capability",
        }
    }
}

/// What the next start of the daemon joins, in place of reading its configuration file.
#[derive(Clone, Debug)]
pub struct NodeJoining {
    /// Management.
    pub url: String,
    /// Lets it in; `None`: it must be known already.
    pub setup_key: Option<String>,
    /// Its name.
    pub hostname: String,
    /// Whether it takes its leave for good: `auto`, `yes`, `no`.
    pub ephemeral: &'static str,
    /// More of its environment.
    pub environment: Vec<(String, String)>,
}

/// The node; the daemon in it starts and ends as told.
pub struct Node {
    /// Where it is.
    pub namespace: Namespace,
    /// What the next start of the daemon reads.
    pub config: NodeConfig,
    /// What the next start of the daemon joins; `None`: nothing, it reads [`Self::config`].
    pub joining: Option<NodeJoining>,
    /// Where the next start of the daemon has its health endpoints; loopback unless a scenario says otherwise.
    pub health: SocketAddr,
    /// What the next start of the daemon may do.
    pub capabilities: Capabilities,
    /// More arguments of the next start.
    pub arguments: Vec<String>,
    /// The program of the next start.
    pub binary: PathBuf,
    /// Where the next start keeps its pins, unless it is contained.
    pub bpffs: PathBuf,
    /// What the kernel itself puts into every bpffs.
    kernel_pins: Vec<PathBuf>,
    daemon: Option<Process>,
    /// podman, while [`Self::daemon`] runs in a container.
    podman: u32,
    /// How the next start is contained; `None`: it is [`Self::binary`], with [`Self::capabilities`] and all files of the
    /// machine. Dropped after the daemon has ended.
    pub container: Option<Container>,
}

impl Drop for Node {
    /// What became of packets: half of what there is to know when a scenario fails.
    fn drop(&mut self) {
        if !std::thread::panicking() || self.daemon.is_none() {
            return;
        }
        let Ok((200, text)) = self.probe("/metrics") else { return };
        let counted = |line: &&str| {
            let packets =
                ["dropped", "denied", "_packets_total", "icmp", "errors"].iter().any(|part| line.contains(part));
            packets && !line.starts_with('#') && !line.ends_with(" 0")
        };
        eprintln!("--- counted by the node ---\n{}", text.lines().filter(counted).collect::<Vec<_>>().join("\n"));
    }
}

impl Node {
    /// A node whose daemon does not run yet, with a bpffs of its own.
    ///
    /// # Errors
    /// The bpffs cannot be mounted.
    pub fn new(namespace: Namespace, config: NodeConfig, capabilities: Capabilities, binary: &Path) -> Result<Self> {
        namespace.mount_bpffs(Path::new(BPFFS))?;
        let kernel_pins = namespace.enter(|| {
            fs::create_dir(STATE)?;
            files_below(Path::new(BPFFS))
        })?;
        let binary = binary.to_owned();
        let arguments = Vec::new();
        let (joining, daemon, podman, container) = (None, None, 0, None);
        let health = HEALTH;
        Ok(Self {
            namespace,
            config,
            joining,
            health,
            capabilities,
            arguments,
            binary,
            bpffs: BPFFS.into(),
            kernel_pins,
            daemon,
            podman,
            container,
        })
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; the message has its log.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        let (namespace, health) = (self.namespace.clone(), self.health);
        let daemon = self.daemon.as_mut().context("launched")?;
        let mut answer = String::from("no answer");
        let mut ended = None;
        let ready = wait_for(LIMIT, || {
            ended = daemon.ended().ok().flatten();
            if ended.is_some() {
                return true;
            }
            match get(&namespace, health, "/readyz") {
                Ok((200, _)) => true,
                Ok((status, body)) => {
                    answer = format!("{status} {body}");
                    false
                }
                Err(_) => false,
            }
        });
        if let Some(status) = ended {
            bail!("the daemon ended ({status}):\n{}", daemon.log());
        }
        ensure!(ready, "the daemon is not ready after {LIMIT:?} ({answer}):\n{}", daemon.log());
        Ok(())
    }

    /// Starts the daemon without waiting for anything.
    ///
    /// # Errors
    /// One runs already, or it cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the daemon runs already");
        let mut command = self.up_command()?;
        let mut daemon = Process::start("peer-daemon", &mut command)?;
        if self.container.is_some() {
            self.podman = daemon.lead_to_child()?;
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Runs the daemon to its end: for configurations that it must refuse.
    ///
    /// # Errors
    /// It does not end by itself.
    pub fn run_to_end(&self) -> Result<Finished> {
        run(&mut self.up_command()?)
    }

    /// Runs a second daemon for the same device to its end: with our pins, in a network namespace of its own.
    ///
    /// # Errors
    /// It does not end by itself.
    pub fn run_beside(&self) -> Result<Finished> {
        let mut command = self.namespace.contained_command("unshare");
        command.args(["--net", "--"]).arg(&self.binary).args(["up", "--config", CONFIG, "--bpffs", BPFFS]);
        command.args(["--control-socket", "/run/lab/beside.sock", "--state-dir", "/run/lab/beside"]);
        run(&mut command)
    }

    /// Writes the configuration as it is now and lets the daemon read it again (SIGHUP). Returns what it says to that: one
    /// line for each thing that it refuses, or the one that says what changed.
    ///
    /// # Errors
    /// None runs, or it says nothing in time.
    pub fn reload(&mut self) -> Result<Vec<String>> {
        self.namespace.write(CONFIG.as_ref(), &self.config.to_string())?;
        let daemon = self.daemon.as_mut().context("no daemon runs")?;
        let before = daemon.log().len();
        daemon.signal(libc::SIGHUP)?;
        let mut said = Vec::new();
        let answered = wait_for(LIMIT, || {
            let log = daemon.log();
            let whole = log[before..].rfind('\n').map_or("", |end| &log[before..before + end]);
            said = whole.lines().filter(|line| line.contains("reloaded")).map(str::to_owned).collect();
            !said.is_empty()
        });
        ensure!(answered, "SIGHUP had no answer:\n{}", daemon.log());
        Ok(said)
    }

    /// Ends the daemon with SIGTERM and waits.
    ///
    /// # Errors
    /// None runs, or it does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut daemon = self.daemon.take().context("no daemon runs")?;
        daemon.terminate(LIMIT)?.with_context(|| format!("no end {LIMIT:?} after SIGTERM:\n{}", daemon.log()))
    }

    /// Ends the daemon with SIGKILL.
    ///
    /// # Errors
    /// None runs.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("no daemon runs")?.kill()
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// None runs.
    pub fn daemon(&mut self) -> Result<&mut Process> {
        self.daemon.as_mut().context("no daemon runs")
    }

    /// Status and body of a path of the health address.
    ///
    /// # Errors
    /// No answer.
    pub fn probe(&self, path: &str) -> Result<(u16, String)> {
        get(&self.namespace, self.health, path)
    }

    /// The text of `/metrics`, as Prometheus asks for it.
    ///
    /// # Errors
    /// No answer.
    pub fn open_metrics(&self) -> Result<String> {
        let url = format!("http://{}/metrics", self.health);
        let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        self.namespace.exec("curl", &["--silent", "--show-error", "--fail", "--header", accept, &url])
    }

    /// All metrics as they are now: over the control socket, since the health address shows what may be a second old. Of a
    /// container, whose socket is inside, that has to do.
    ///
    /// # Errors
    /// No answer, or text that the format does not have.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, text) = match self.container {
            Some(_) => self.probe("/metrics")?,
            None => get_by_socket(&self.namespace, Path::new(CONTROL), "/metrics")?,
        };
        ensure!(status == 200, "/metrics: {status}");
        Metrics::parse(&text)
    }

    /// The sum of the samples of `name` that have these labels; 0 when there is none.
    ///
    /// # Errors
    /// As [`Self::metrics`].
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.metrics()?.sum(name, labels))
    }

    /// Waits until [`Self::metric`] is at least `least`; returns the last value.
    ///
    /// # Errors
    /// As [`Self::metrics`].
    pub fn await_metric(&self, limit: Duration, least: f64, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let mut value = Ok(0.0);
        wait_for(limit, || {
            value = self.metric(name, labels);
            value.as_ref().is_ok_and(|&value| value >= least)
        });
        value
    }

    /// Packets that the programs dropped for a reason.
    ///
    /// # Errors
    /// As [`Self::metrics`].
    pub fn dropped(&self, reason: DropReason) -> Result<f64> {
        self.metric("peer_dropped_packets_total", &[("reason", reason.name())])
    }

    /// Datagrams that the `WireGuard` engine dropped for a reason.
    ///
    /// # Errors
    /// As [`Self::metrics`].
    pub fn refused(&self, reason: &str) -> Result<f64> {
        self.metric("peer_wireguard_datagrams_dropped_total", &[("reason", reason)])
    }

    /// What `peer-daemon status --json` says.
    ///
    /// # Errors
    /// It fails or says no JSON.
    pub fn status(&self) -> Result<Value> {
        let text = self.status_text(&["--json"])?;
        let mut answer: Value = serde_json::from_str(&text).with_context(|| format!("status --json: {text}"))?;
        // The rest is what the official client says as well.
        Ok(answer["node"].take())
    }

    /// What `peer-daemon status` says.
    ///
    /// # Errors
    /// It fails.
    pub fn status_text(&self, arguments: &[&str]) -> Result<String> {
        let Some(container) = &self.container else {
            let arguments = [&["status", "--control-socket", CONTROL], arguments].concat();
            return self.namespace.exec(&self.binary.to_string_lossy(), &arguments);
        };
        let arguments = [&["status"], arguments].concat();
        let Finished { status, stdout, stderr } =
            run(&mut container.daemon_command(&self.namespace, self.podman, &arguments))?;
        ensure!(status.success(), "{}: {status}: {stderr}{stdout}", arguments.join(" "));
        Ok(stdout)
    }

    /// Runs a line of a manifest, as kubelet does, where the daemon answers to the name `netbird` as well.
    ///
    /// # Errors
    /// It does not start or does not end.
    pub fn shell(&self, line: &str) -> Result<Finished> {
        if self.container.is_some() {
            return self.inside(&["sh", "-ec", line]);
        }
        self.namespace.enter(|| {
            fs::create_dir_all(NAMES)?;
            match symlink(&self.binary, Path::new(NAMES).join("netbird")) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                outcome => outcome,
            }
        })?;
        let path = format!("{NAMES}:/usr/sbin:/usr/bin:/sbin:/bin");
        run(self.namespace.command("sh").args(["-ec", line]).env("PATH", path))
    }

    /// Runs a program of the container that the daemon is in.
    ///
    /// # Errors
    /// There is no container, or the program does not start or does not end.
    pub fn inside(&self, program: &[&str]) -> Result<Finished> {
        let container = self.container.as_ref().context("the daemon is in no container")?;
        run(&mut container.exec_command(&self.namespace, self.podman, program))
    }

    /// `peer-daemon flows`, with these arguments, to be started.
    #[must_use]
    pub fn flows_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(&self.binary);
        command.args(["flows", "--control-socket", CONTROL]).args(arguments);
        command
    }

    /// `peer-daemon trace`, with these arguments, to be started.
    #[must_use]
    pub fn trace_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(&self.binary);
        command.args(["trace", "--control-socket", CONTROL]).args(arguments);
        command
    }

    /// What `peer-daemon doctor --json` says with the capabilities of the daemon, and how many of its findings are
    /// conflicts.
    ///
    /// # Errors
    /// It says no JSON, or its exit code contradicts it.
    pub fn doctor(&self) -> Result<Value> {
        let mut command = self.confined();
        command
            .arg(&self.binary)
            .args(["doctor", "--json", "--control-socket", CONTROL, "--state-dir", STATE, "--bpffs"])
            .arg(&self.bpffs);
        let Finished { status, stdout, stderr } = run(&mut command)?;
        let report: Value =
            serde_json::from_str(&stdout).with_context(|| format!("doctor --json: {stdout}{stderr}"))?;
        let expected = if report["conflicts"] != 0 { 1 } else { i32::from(report["unknown"] != 0) * 2 };
        ensure!(status.code() == Some(expected), "{status}, with the report {stdout}");
        Ok(report)
    }

    /// Pins of the daemon, directories left out.
    ///
    /// # Errors
    /// The bpffs cannot be read.
    pub fn pins(&self) -> Result<Vec<PathBuf>> {
        let mut pins = self.namespace.enter(|| files_below(Path::new(BPFFS)))?;
        pins.retain(|pin| !self.kernel_pins.contains(pin));
        pins.sort();
        Ok(pins)
    }

    /// Files that the daemon keeps over restarts.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn state_files(&self) -> Result<Vec<PathBuf>> {
        self.namespace.enter(|| files_below(Path::new(STATE)))
    }

    /// Whether the network map that the daemon keeps over restarts names this peer.
    #[must_use]
    pub fn keeps_map_with(&self, key: &str) -> bool {
        let map = self.namespace.enter(|| fs::read(Path::new(STATE).join("network-map.bin")));
        map.is_ok_and(|map| map.windows(key.len()).any(|piece| piece == key.as_bytes()))
    }

    /// Datagrams that the kernel has forwarded, both families.
    ///
    /// # Errors
    /// `/proc/net` cannot be read.
    pub fn kernel_forwarded(&self) -> Result<u64> {
        kernel_forwarded(&self.namespace)
    }

    fn up_command(&self) -> Result<Command> {
        let mut arguments = vec!["--health-addr".to_owned(), self.health.to_string()];
        let mut environment = Vec::new();
        match &self.joining {
            None => {
                self.namespace.write(CONFIG.as_ref(), &self.config.to_string())?;
                arguments.extend(["--config", CONFIG].map(str::to_owned));
            }
            Some(joining) => {
                arguments.extend(["--ephemeral", joining.ephemeral].map(str::to_owned));
                environment.extend([("NB_MANAGEMENT_URL", joining.url.as_str()), ("NB_LOG_LEVEL", "debug")]);
                environment.push(("NB_HOSTNAME", &joining.hostname));
                environment.extend(joining.setup_key.iter().map(|key| ("NB_SETUP_KEY", key.as_str())));
                environment.extend(joining.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            }
        }
        if let Some(container) = &self.container {
            let shared: &[&Path] = if self.joining.is_none() { &[Path::new(CONFIG)] } else { &[] };
            let places = Places { state: STATE.as_ref(), bpffs: BPFFS.as_ref(), shared };
            arguments.extend(self.arguments.iter().cloned());
            return Ok(container.up_command(&self.namespace, &places, &arguments, &environment));
        }
        let mut command = self.confined();
        command.arg(&self.binary).arg("up").args(arguments).envs(environment);
        command.args(["--control-socket", CONTROL, "--state-dir", STATE, "--bpffs"]).arg(&self.bpffs);
        command.args(&self.arguments);
        Ok(command)
    }

    /// What comes next runs with the daemon's capabilities.
    fn confined(&self) -> Command {
        let set = match self.capabilities {
            Capabilities::Minimal => "-all,+net_admin,+bpf",
            Capabilities::Deployed => "-all,+net_admin,+bpf,+perfmon",
            Capabilities::Root => return self.namespace.contained_command("env"),
        };
        let mut command = self.namespace.contained_command("setpriv");
        command.args(["--bounding-set", set, "--inh-caps", set, "--ambient-caps", set, "--no-new-privs", "--"]);
        command
    }
}

/// Datagrams that the kernel of a namespace has forwarded, both families.
pub(crate) fn kernel_forwarded(namespace: &Namespace) -> Result<u64> {
    let table = namespace.read("/proc/net/snmp")?;
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().context("Ip names")?, lines.next().context("Ip values")?);
    let v4 = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "ForwDatagrams");
    let v4: u64 = v4.context("ForwDatagrams")?.1.parse()?;
    let table = namespace.read("/proc/net/snmp6")?;
    let v6 = table.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
    Ok(v4 + v6.context("Ip6OutForwDatagrams")?.trim().parse::<u64>()?)
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
