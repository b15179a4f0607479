//! `peer-daemon`: an eBPF-accelerated, NetBird-compatible WireGuard routing peer.
#![forbid(unsafe_code)]

mod admin;
mod cli;
mod doctor;
mod flow_log;
mod flows;
mod keys;
mod logging;
mod peers;
mod state;
mod status;
mod trace;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(args) => up::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Flows(args) => flows::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Genkey => keys::genkey(),
        Command::Pubkey => keys::pubkey(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("peer-daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}
