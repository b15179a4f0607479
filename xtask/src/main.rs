//! The project's own commands: `cargo xtask setup | build-ebpf | image | demo | picture | test | vmtest | bench | ci`.
//!
//! A laptop and CI run the same commands. What they say goes to stderr; stdout is left to results.
#![forbid(unsafe_code)]

mod bench;
mod build_ebpf;
mod ci;
mod daemon;
mod demo;
mod image;
mod libraries;
mod picture;
mod process;
mod setup;
mod steps;
mod test;
mod toolchain;
mod vmtest;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Commands of the peer workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find what is missing; install it (Debian, as root) or print the commands that do
    Setup,
    /// Compile the eBPF programs that the daemon embeds
    BuildEbpf(build_ebpf::Options),
    /// Write container images as OCI archives
    Image(image::Options),
    /// Run the main job in network namespaces on this machine and check what it promises
    Demo(demo::Options),
    /// Run everything that must pass: unit, property and program tests, and the scenarios
    Test,
    /// Run tests under other kernels, in virtual machines
    Vmtest(vmtest::Options),
    /// Measure what things cost
    Bench(bench::Options),
    /// Draw the README's picture: the lab under traffic, as a Prometheus sees it
    Picture(picture::Options),
    /// Format, lints, docs and licences, then `test` and `demo`
    Ci,
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the command's own checks passed.
fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Setup => setup::command().map(|()| true),
        Command::BuildEbpf(options) => build_ebpf::command(*options).map(|()| true),
        Command::Image(options) => image::command_line(options).map(|()| true),
        Command::Demo(options) => demo::command(*options),
        Command::Test => test::command().map(|()| true),
        Command::Vmtest(options) => vmtest::command(options).map(|()| true),
        Command::Bench(options) => bench::command(*options).map(|()| true),
        Command::Picture(options) => picture::command(options).map(|()| true),
        Command::Ci => ci::command().map(|()| true),
    }
}
