//! What is in force, as the kernel says it.

use std::fmt;
use std::fs;

use crate::{capabilities, process};

/// One thing that confines the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// No capability but those in use.
    Capabilities,
    /// `no_new_privs`: no set-user-ID program or file capability gives more (`prctl(2)`).
    NoNewPrivileges,
    /// Not dumpable: only the host's root, with `CAP_SYS_PTRACE`, reads its memory and its environment.
    NotDumpable,
    /// `RLIMIT_CORE` is 0: a crash writes no keys to a disk.
    NoCore,
    /// The filter of system calls.
    Seccomp,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Capabilities, Self::NoNewPrivileges, Self::NotDumpable, Self::NoCore, Self::Seccomp];

    /// Its name in metrics, JSON and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no_new_privileges",
            Self::NotDumpable => "not_dumpable",
            Self::NoCore => "no_core",
            Self::Seccomp => "seccomp",
        }
    }

    /// What to do where it is not in force.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Capabilities => "give the container NET_ADMIN, BPF and PERFMON only, and drop all others",
            Self::NoNewPrivileges => "set allowPrivilegeEscalation: false, or NoNewPrivileges=yes in the unit",
            Self::NotDumpable => "allow prctl(PR_SET_DUMPABLE) in the container's seccomp profile",
            Self::NoCore => "allow prlimit64 in the container's seccomp profile, or set LimitCORE=0 in the unit",
            Self::Seccomp => {
                "use a kernel with CONFIG_SECCOMP_FILTER, and allow seccomp(2) in the container's seccomp profile"
            }
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Each measure, and whether it is in force for the calling thread. What cannot be read counts as not in force.
#[must_use]
pub fn look() -> [(Measure, bool); 5] {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    Measure::ALL.map(|measure| {
        let in_force = match measure {
            Measure::Capabilities => hex(&status, "CapPrm").is_some_and(|held| held & !capabilities::kept() == 0),
            Measure::NoNewPrivileges => field(&status, "NoNewPrivs") == Some("1"),
            Measure::NotDumpable => process::is_not_dumpable(),
            Measure::NoCore => process::has_no_core(),
            // 2: filters (proc(5)); that there is one more than the container's tells nobody, but it cannot be undone.
            Measure::Seccomp => field(&status, "Seccomp") == Some("2") && crate::seccomp::is_installed(),
        };
        (measure, in_force)
    })
}

fn hex(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(field(status, name)?, 16).ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_measure_has_a_name_and_a_remedy_of_its_own() {
        let names: BTreeSet<_> = Measure::ALL.iter().map(|measure| measure.name()).collect();
        let remedies: BTreeSet<_> = Measure::ALL.iter().map(|measure| measure.remedy()).collect();
        assert_eq!((names.len(), remedies.len()), (Measure::ALL.len(), Measure::ALL.len()));
    }

    #[test]
    fn fields_are_read_by_their_whole_name() {
        let status = "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\nCapPrm:\t000000c000001000\n";
        assert_eq!((field(status, "Seccomp"), field(status, "NoNewPrivs")), (Some("2"), Some("1")));
        assert_eq!((hex(status, "CapPrm"), hex(status, "CapEff")), (Some(0xc0_0000_1000), None));
    }
}
