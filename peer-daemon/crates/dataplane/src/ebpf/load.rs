//! Loading the object, with its maps pinned where there are pins.

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use peer_common::layout::{map, program};

use super::log;
use super::pins::PinDirs;
use crate::Error;

/// Built from `peer-ebpf` by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/peer-ebpf.o"));

/// Programs that are attached.
pub(super) const PROGRAMS: [&str; 4] =
    [program::WT0_INGRESS, program::WT0_LAST, program::WT0_EGRESS, program::UPLINK_INGRESS];

/// Loads object and programs. Pinned maps that are there are taken over with all they hold.
pub(super) fn load(dirs: &PinDirs, flows: u32) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    if dirs.is_pinned() {
        for name in map::PINNED {
            loader.map_pin_path(name, dirs.maps.join(name));
        }
    }
    loader.map_max_entries(map::FLOWS, flows).map_max_entries(map::MAPPINGS, flows);
    let mut ebpf = loader.load(OBJECT).map_err(|error| lacking().unwrap_or(Error::Load(error)))?;
    for name in PROGRAMS.into_iter().chain([program::DESCRIBE]) {
        let failed = |source| lacking().unwrap_or(Error::Program { what: format!("load program {name}"), source });
        classifier(&mut ebpf, name).map_err(failed)?.load().map_err(failed)?;
    }
    log::install(&mut ebpf)?;
    Ok(ebpf)
}

/// The program of that name.
pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, aya::programs::ProgramError> {
    ebpf.program_mut(name).ok_or(aya::programs::ProgramError::NotLoaded)?.try_into()
}

/// The likely reason of whatever failed, if capabilities are missing.
fn lacking() -> Option<Error> {
    Error::missing_capabilities()
}
