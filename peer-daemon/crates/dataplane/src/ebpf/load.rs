//! Loading the object with pinned maps.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use peer_common::layout::{self, map, program};

use crate::{Error, sys};

/// Built from `peer-ebpf` by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/peer-ebpf.o"));

/// Programs of a production load.
pub(super) const PROGRAMS: [&str; 3] = [program::WT0_INGRESS, program::WT0_EGRESS, program::UPLINK_INGRESS];

const CAP_NET_ADMIN: u32 = 12;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Where pins lie: `<bpffs>/peer/<device>/v<ABI>/{maps,links}`. Another layout makes new maps beside the old ones.
#[derive(Clone, Debug)]
pub(super) struct PinDirs {
    root: PathBuf,
    device: PathBuf,
    version: PathBuf,
    pub(super) maps: PathBuf,
    pub(super) links: PathBuf,
}

impl PinDirs {
    /// Makes the directories.
    pub(super) fn create(bpffs: &Path, device: &str) -> Result<Self, Error> {
        let on_bpffs =
            sys::is_bpffs(bpffs).map_err(|source| Error::io(format!("look at {}", bpffs.display()), source))?;
        if !on_bpffs {
            return Err(Error::NotBpffs { path: bpffs.to_owned() });
        }
        let root = bpffs.join("peer");
        // A dot means something to bpffs.
        let device = root.join(device.replace('.', "-"));
        let version = device.join(format!("v{}", layout::ABI));
        let (maps, links) = (version.join("maps"), version.join("links"));
        for dir in [&maps, &links] {
            fs::create_dir_all(dir).map_err(|source| Error::io(format!("make {}", dir.display()), source))?;
        }
        Ok(Self { root, device, version, maps, links })
    }

    /// Whether nothing is pinned yet.
    pub(super) fn is_fresh(&self) -> bool {
        fs::read_dir(&self.maps).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Removes the pins of our maps, and each directory that is empty then.
    pub(super) fn remove(&self) -> Result<(), Error> {
        for name in map::PINNED {
            let pin = self.maps.join(name);
            match fs::remove_file(&pin) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("remove {}", pin.display()), source));
                }
                _ => {}
            }
        }
        for dir in [&self.maps, &self.links, &self.version, &self.device, &self.root] {
            // Not empty: another device of ours, or another version, lives there.
            let _ = fs::remove_dir(dir);
        }
        Ok(())
    }
}

/// Loads object and programs. Pinned maps that are there are taken over with all they hold.
pub(super) fn load(dirs: &PinDirs, flows: u32) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(&dirs.maps).verifier_log_level(VerifierLogLevel::STATS);
    loader.map_max_entries(map::FLOWS, flows).map_max_entries(map::MAPPINGS, flows);
    let mut ebpf = loader.load(OBJECT).map_err(|error| missing_capabilities().unwrap_or(Error::Load(error)))?;
    for name in PROGRAMS {
        let failed =
            |source| missing_capabilities().unwrap_or(Error::Program { what: format!("load program {name}"), source });
        classifier(&mut ebpf, name).map_err(failed)?.load().map_err(failed)?;
    }
    Ok(ebpf)
}

/// The program of that name.
pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, aya::programs::ProgramError> {
    ebpf.program_mut(name).ok_or(aya::programs::ProgramError::NotLoaded)?.try_into()
}

/// Whether programs are loaded without CAP_PERFMON, and thus with Spectre fences.
pub(super) fn is_hardened() -> bool {
    effective_capabilities() & (1 << CAP_PERFMON) == 0
}

fn missing_capabilities() -> Option<Error> {
    let have = effective_capabilities();
    let needed = [(CAP_BPF, "CAP_BPF"), (CAP_NET_ADMIN, "CAP_NET_ADMIN")];
    let missing: Vec<_> = needed.iter().filter(|(bit, _)| have & (1 << bit) == 0).map(|(_, name)| *name).collect();
    (!missing.is_empty()).then(|| Error::Capabilities { missing: missing.join(" and ") })
}

fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}
