//! `up`: the life of the process.

mod apply;
mod capabilities;
mod endpoints;
mod life;
pub(crate) mod translate;

use std::process::ExitCode;

use anyhow::Context as _;
use peer_dataplane::ebpf::{Attach, EbpfDataplane, Options};

use crate::cli::{AttachBy, EXIT_CONFIG, UpArgs};
use crate::logging;

/// Runs the peer until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part of it fails.
pub(crate) fn run(args: &UpArgs) -> anyhow::Result<ExitCode> {
    logging::init(&args.log_level, args.log_format)?;
    // Whatever is wrong in the file is said before anything is opened.
    let desired = match peer_static::load(&args.config) {
        Ok(desired) => desired,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let attach = match args.attach {
        AttachBy::Auto => Attach::Auto,
        AttachBy::Tcx => Attach::Tcx,
        AttachBy::Clsact => Attach::Clsact,
    };
    let options = Options {
        bpffs: args.bpffs.clone(),
        flows: args.max_flows,
        attach,
        allow_unsafe_order: args.allow_unsafe_order,
    };
    let dataplane = EbpfDataplane::open(&options, &desired.interface.name)?;
    // Loading was all that it is for. Capabilities belong to threads, and as yet there is one.
    capabilities::drop_perfmon()?;
    // Control side only: packets have a thread of their own.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().context("start the runtime")?;
    runtime.block_on(life::live(args, desired, dataplane))?;
    Ok(ExitCode::SUCCESS)
}
