//! Capabilities: those in use are kept, in the order of their use.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

/// What loading the eBPF programs and running them takes.
const IN_USE: [Capability; 3] = [Capability::CAP_NET_ADMIN, Capability::CAP_BPF, Capability::CAP_PERFMON];

/// Gives up all capabilities but `NET_ADMIN`, `BPF`, `PERFMON` and, until [`settle`], `NET_BIND_SERVICE`; for the calling
/// thread and all that it starts.
///
/// Not kept: `DAC_OVERRIDE`. The pods have run without it from the first, so state directory, key file and flow log must
/// belong to the daemon's user in any case; with it a daemon that was taken over writes every file of the node.
pub(crate) fn reduce() -> Result<(), CapsError> {
    // While CAP_SETPCAP is there. Where it is not, a container's runtime has bounded the set. What is in use goes as well:
    // the bounding set is about execve(2) only, and there is none.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::runtime::thread_all_supported() {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut keep: CapsHashSet = IN_USE.into_iter().chain([Capability::CAP_NET_BIND_SERVICE]).collect();
    // What the narrower ones were split from, where somebody gives the wide one only.
    if !permitted.contains(&Capability::CAP_BPF) {
        keep.insert(Capability::CAP_SYS_ADMIN);
    }
    restrict(&keep)
}

/// Gives up what was needed until the programs were loaded: `PERFMON`, and `NET_BIND_SERVICE` unless the daemon is to listen
/// on a port below 1024. For the calling thread and all that it starts.
///
/// # Errors
/// The kernel refuses.
pub fn settle(low_ports: bool) -> Result<(), CapsError> {
    let mut keep = caps::read(None, CapSet::Permitted)?;
    keep.remove(&Capability::CAP_PERFMON);
    if !low_ports {
        keep.remove(&Capability::CAP_NET_BIND_SERVICE);
    }
    caps::clear(None, CapSet::Ambient)?;
    restrict(&keep)
}

/// All that may be left, as a mask. `SYS_ADMIN` is not among them: where it stands in for `BPF` that shows.
pub(crate) fn kept() -> u64 {
    IN_USE.iter().chain([&Capability::CAP_NET_BIND_SERVICE]).fold(0, |mask, capability| mask | capability.bitmask())
}

/// Effective before permitted: the kernel refuses an effective capability that is not permitted.
fn restrict(keep: &CapsHashSet) -> Result<(), CapsError> {
    caps::clear(None, CapSet::Inheritable)?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        let held = caps::read(None, set)?;
        caps::set(None, set, &held.intersection(keep).copied().collect())?;
    }
    Ok(())
}
