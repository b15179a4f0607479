//! The process gives up what it does not need, so that an attacker who takes it over gets no more than that.
//!
//! [`confine`] is called once at the start, before any thread exists: capabilities and `no_new_privs` belong to threads
//! and are inherited. [`settle`] follows when the eBPF programs are loaded. [`look`] asks the kernel what is in force.
//! [`conceal()`] takes secrets out of the command line and the environment that other processes can read.
#![forbid(unsafe_code)]

mod capabilities;
mod conceal;
mod measure;
mod process;
mod seccomp;

pub use capabilities::settle;
pub use conceal::{ConcealError, conceal};
pub use measure::{Measure, look};
pub use seccomp::{DENIED, SeccompError};

/// A measure that the kernel, or the container, did not permit.
#[derive(Debug, thiserror::Error)]
#[error("{measure}: {why}; {}", measure.remedy())]
pub struct Lapse {
    /// Which.
    pub measure: Measure,
    /// What the kernel answered.
    pub why: String,
}

/// Puts every measure in force, as far as the kernel permits it. What it refuses is returned: the daemon carries traffic
/// without it, too, and an old container runtime must not keep a node from its network.
#[must_use]
pub fn confine() -> Vec<Lapse> {
    let outcomes = [
        (Measure::Capabilities, capabilities::reduce().map_err(|error| error.to_string())),
        (Measure::NoNewPrivileges, process::no_new_privileges().map_err(|error| error.to_string())),
        (Measure::NotDumpable, process::not_dumpable().map_err(|error| error.to_string())),
        (Measure::NoCore, process::no_core().map_err(|error| error.to_string())),
        // The last: from here on what it denies is denied to the others as well.
        (Measure::Seccomp, seccomp::install().map_err(|error| error.to_string())),
    ];
    let lapse = |(measure, outcome): (Measure, Result<(), String>)| outcome.err().map(|why| Lapse { measure, why });
    outcomes.into_iter().filter_map(lapse).collect()
}
