//! The command line. Flags and environment variables are those of the official client where it has them.

pub(crate) mod former;
mod ignored;
mod look;
mod status;
mod up;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub(crate) use self::look::{DoctorArgs, FlowsArgs, TraceArgs};
pub(crate) use self::status::{Check, NetworksArgs, StatusArgs};
pub(crate) use self::up::{AttachBy, EphemeralChoice, LogFormat, NetBirdArgs, UpArgs};

/// Configuration that cannot be used (`EX_CONFIG` of sysexits.h).
pub(crate) const EXIT_CONFIG: u8 = 78;

/// eBPF-accelerated, NetBird-compatible WireGuard routing peer. Without a command it runs as `up`.
#[derive(Debug, Parser)]
#[command(name = "peer-daemon", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the peer in the foreground until SIGTERM or SIGINT.
    Up(Box<UpArgs>),
    /// Taken for the official client's sake: `service run` is `up`.
    #[command(hide = true)]
    Service(ServiceArgs),
    /// Show what a running peer is doing.
    Status(StatusArgs),
    /// The networks of the map, and whether this peer carries them.
    #[command(alias = "routes")]
    Networks(NetworksArgs),
    /// Show the flows that the dataplane holds now, the most recently active first; or what it dropped lately.
    Flows(FlowsArgs),
    /// Show what becomes of a packet, stage by stage, and by which rule: of one that you describe (nothing is sent), or with
    /// --live of those that pass. Exit code of a described packet: 0: it passes; 1: it is dropped; 2: that cannot be said.
    Trace(TraceArgs),
    /// Name what stands in the way on this node, with its owner and the remedy. Exit code 0: nothing is wrong; 1: something
    /// is; 2: something could not be looked at; 78: the configuration cannot be used.
    Doctor(DoctorArgs),
    /// Print the version.
    Version,
    /// Print a new private key.
    Genkey,
    /// Read a private key from standard input and print its public key.
    Pubkey,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(subcommand)]
    pub(crate) command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// As `up`.
    Run(Box<UpArgs>),
}

impl Cli {
    /// Reads a command line as people and manifests write it: without a command it is `up`, and flags may stand before
    /// the command.
    pub(crate) fn from_line(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut line: Vec<_> = line.into_iter().collect();
        if line.is_empty() {
            line.push("peer-daemon".into());
        }
        let first = line.get(1).and_then(|arg| arg.to_str());
        let asks = |arg: &str| matches!(arg, "-h" | "--help" | "-V" | "--version");
        if first.is_none_or(|arg| arg.starts_with('-') && !asks(arg)) {
            let known = |arg: &OsString| arg.to_str().is_some_and(is_command);
            match line.iter().skip(1).position(known) {
                Some(at) => {
                    let command = line.remove(at + 1);
                    line.insert(1, command);
                }
                None => line.insert(1, "up".into()),
            }
        }
        let mut command = former::accept(Self::command());
        let mut matches = command.try_get_matches_from_mut(line)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

fn is_command(text: &str) -> bool {
    Cli::command().find_subcommand(text).is_some()
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SocketArgs {
    /// Control socket. Default: /var/run/netbird.sock, or netbird.sock in the state directory where that is not writable.
    #[arg(long, value_name = "PATH", env = "NB_CONTROL_SOCKET")]
    pub(crate) control_socket: Option<PathBuf>,
    /// The same as the official client writes it.
    #[arg(long, value_name = "unix://PATH", env = "NB_DAEMON_ADDR", value_parser = values::unix_socket, hide = true)]
    pub(crate) daemon_addr: Option<PathBuf>,
    /// Where state is kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/netbird", env = "NB_STATE_DIR")]
    pub(crate) state_dir: PathBuf,
}

impl SocketArgs {
    /// Where the control socket may be, in the order of preference.
    pub(crate) fn candidates(&self) -> Vec<PathBuf> {
        match self.control_socket.as_ref().or(self.daemon_addr.as_ref()) {
            Some(path) => vec![path.clone()],
            None => vec![PathBuf::from("/var/run/netbird.sock"), self.state_dir.join("netbird.sock")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::from_line(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_is_up() {
        for line in [
            "peer-daemon",
            "netbird up -F",
            "netbird service run --log-file console",
            "netbird up --foreground-mode=true",
        ] {
            let command = parse(line).expect(line).command;
            assert!(matches!(command, Command::Up(_) | Command::Service(_)), "{line}");
        }
        let Command::Up(args) =
            parse("peer-daemon --health-addr 127.0.0.1:9090 -m http://10.0.0.1").expect("up").command
        else {
            panic!("not up");
        };
        assert_eq!(args.netbird.management_url.as_deref(), Some("http://10.0.0.1"));
        assert!(args.config.is_none() && args.health_addr.is_some());
    }

    #[test]
    fn flags_may_stand_before_the_command() {
        let line = "netbird --daemon-addr unix:///run/x.sock status --check live";
        let Command::Status(args) = parse(line).expect("status").command else { panic!("not status") };
        assert_eq!(args.socket.candidates(), [PathBuf::from("/run/x.sock")]);
        assert_eq!(args.check, Some(Check::Live));
        assert!(matches!(parse("netbird routes list").expect("routes").command, Command::Networks(_)));
        assert!(matches!(parse("netbird networks ls").expect("networks").command, Command::Networks(_)));
        assert!(parse("netbird --help").is_err_and(|error| !error.use_stderr()));
        assert!(parse("netbird frobnicate").is_err_and(|error| error.use_stderr()));
    }

    #[test]
    fn filters_of_flows_name_the_fix() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["peer-daemon", "flows"], args].concat());
        assert!(parse(&["--peer", "100.64.0.0/24", "--port", "80", "--kind", "routed", "--protocol", "icmp"]).is_ok());
        for (args, fix) in [
            (["--peer", "10.0.0"], "public key"),
            (["--address", "10.0.0.0/40"], "10.1.2.0/24"),
            (["--port", "0"], "1..=65535"),
            (["--protocol", "sctp"], "tcp, udp, icmp"),
            (["--kind", "nat"], "masqueraded, routed, to_node, from_node, from_lan"),
            (["--limit", "10001"], "1..=10000"),
        ] {
            let error = parse(&args).expect_err(args[1]).to_string();
            assert!(args.iter().all(|arg| error.contains(arg)) && error.contains(fix), "{error}");
        }
    }

    #[test]
    fn the_socket_is_looked_for_in_both_places() {
        let args = |socket: Option<&str>| SocketArgs {
            control_socket: socket.map(Into::into),
            daemon_addr: None,
            state_dir: "/s".into(),
        };
        assert_eq!(args(Some("/x")).candidates(), [PathBuf::from("/x")]);
        assert_eq!(args(None).candidates(), [PathBuf::from("/var/run/netbird.sock"), PathBuf::from("/s/netbird.sock")]);
    }
}
