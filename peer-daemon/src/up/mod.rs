//! `up`: the life of the process.

mod apply;
mod confine;
mod drain;
mod early;
mod endpoints;
mod life;
mod mesh_device;
mod signals;
pub(crate) mod translate;

use std::process::ExitCode;

use anyhow::Context as _;
use peer_dataplane::Configuration;
use peer_dataplane::ebpf::{Attach, EbpfDataplane, Options};

pub(crate) use self::drain::Drain;
pub(crate) use self::early::{reserve, sockets};
pub(crate) use self::life::{Node, Opened};
pub(crate) use self::signals::{Signals, Told};
use crate::cli::{AttachBy, EXIT_CONFIG, UpArgs};
use crate::{admin, logging, netbird};

/// Runs the peer until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part of it fails.
pub(crate) fn run(args: &UpArgs) -> anyhow::Result<ExitCode> {
    logging::init(&args.log_level, args.log_format)?;
    admin::raise_descriptor_limit();
    confine::begin(args);
    if let Some(warning) = args.ignored.warning(|name| std::env::var(name).ok()) {
        tracing::warn!("{warning}");
    }
    if args.log_file.iter().any(|file| !file.is_empty() && file != "console") {
        tracing::warn!("--log-file is without effect: logs go to standard error");
    }
    let (named, most) = (args.nat_addresses.len(), peer_common::route::MAX_NAT_SOURCES as usize);
    if named > most {
        eprintln!(
            "peer-daemon: --nat-addresses (NB_NAT_ADDRESSES): {named} addresses, of which {most} fit: name fewer"
        );
        return Ok(ExitCode::from(EXIT_CONFIG));
    }
    // The official client's configuration is JSON; ours is not.
    match args.config.as_deref() {
        Some(file) if file.extension().is_none_or(|extension| extension != "json") => run_static(args, file),
        _ => netbird::run(args),
    }
}

fn run_static(args: &UpArgs, file: &std::path::Path) -> anyhow::Result<ExitCode> {
    if args.netbird.protect_node == Some(true) {
        eprintln!(
            "peer-daemon: --protect-node (NB_PROTECT_NODE): a file has no rules of routes: its rules open what they name; \
             leave the node's addresses out of their destinations, and set it to false"
        );
        return Ok(ExitCode::from(EXIT_CONFIG));
    }
    if args.uplinks.iter().any(|name| !name.trim().is_empty()) {
        eprintln!(
            "peer-daemon: --uplinks (NB_UPLINKS): with a file each route names its own (`uplink`): write it there, and leave \
             this out"
        );
        return Ok(ExitCode::from(EXIT_CONFIG));
    }
    // Whatever is wrong in the file is said before anything is opened.
    let desired = match peer_static::load(file) {
        Ok(desired) => desired,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let dataplane = open_dataplane(args, &desired.interface.name, desired.interface.listen_port, Configuration::File)?;
    runtime()?.block_on(life::live(args, file, desired, dataplane))?;
    Ok(ExitCode::SUCCESS)
}

/// Loads the programs, and gives up what only that needed. WireGuard will listen on `port`.
pub(crate) fn open_dataplane(
    args: &UpArgs,
    device: &str,
    port: u16,
    configuration: Configuration,
) -> anyhow::Result<EbpfDataplane> {
    let attach = match args.attach {
        AttachBy::Auto => Attach::Auto,
        AttachBy::Tcx => Attach::Tcx,
        AttachBy::Clsact => Attach::Clsact,
    };
    let options = Options {
        bpffs: args.bpffs.clone(),
        // What is kept is kept by its pins.
        require_pins: args.require_pins || args.keep_dataplane,
        flows: args.max_flows,
        attach,
        allow_unsafe_order: args.allow_unsafe_order,
    };
    let dataplane = EbpfDataplane::open(&options, device)?.configured_by(configuration);
    // Loading was all that it is for. Capabilities belong to threads, and as yet there is one.
    confine::settle(args, port)?;
    Ok(dataplane)
}

/// For the control side only: packets have a thread of their own.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().context("start the runtime")
}
