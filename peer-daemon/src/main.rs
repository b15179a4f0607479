//! `peer-daemon`: an eBPF-accelerated, NetBird-compatible WireGuard routing peer.
#![forbid(unsafe_code)]

mod admin;
mod cli;
mod clock;
mod doctor;
mod flow_log;
mod flows;
mod keys;
mod logging;
mod netbird;
mod peers;
mod status;
mod trace;
mod up;

use std::io::Write as _;
use std::process::ExitCode;

use crate::cli::{Cli, Command, ServiceCommand};

fn main() -> ExitCode {
    let cli = match Cli::from_line(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::Up(args) => up::run(&args),
        Command::Service(service) => match service.command {
            ServiceCommand::Run(args) => up::run(&args),
        },
        Command::Status(args) => status::run(&args),
        Command::Networks(args) => status::networks(&args),
        Command::Flows(args) => flows::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Version => version(),
        Command::Genkey => keys::genkey(),
        Command::Pubkey => keys::pubkey(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("peer-daemon: {error:#}");
            if admin::descriptors_have_ended(&error) {
                eprintln!("peer-daemon: {}", admin::DESCRIPTORS_REMEDY);
            }
            ExitCode::FAILURE
        }
    }
}

fn version() -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{}", env!("CARGO_PKG_VERSION"))?;
    Ok(ExitCode::SUCCESS)
}
