//! Errors of dataplanes.

use std::io;
use std::path::PathBuf;

use peer_core::policy::compile::TooLarge;

use crate::Capabilities;

/// Why a dataplane could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Capabilities are missing.
    #[error("loading eBPF programs needs {missing}: {remedy}")]
    Capabilities {
        /// Their names, as `CAP_…`.
        missing: String,
        /// What to do.
        remedy: String,
    },
    /// The pin directory is not on a bpffs.
    #[error("{} is not a BPF file system: mount one there (`mount -t bpf bpf {0}`), or mount the host's /sys/fs/bpf into the container and name it with --bpffs", path.display())]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// The bpffs does not let us make directories.
    #[error("cannot write to the BPF file system {}: {source}; mount it without `readOnly`, and run as its owner (uid 0)", path.display())]
    BpffsReadOnly {
        /// Its mount point.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Another daemon has the pins of this device.
    #[error("{} belongs to another running peer: {owner}; stop that one, or give this one another device (--interface-name, `name` in a file) or another bpffs (--bpffs)", path.display())]
    PinsInUse {
        /// The directory of the pins.
        path: PathBuf,
        /// Who it is, as far as that can be seen.
        owner: String,
    },
    /// Somebody has put another table in the place of ours.
    #[error("{} is not the table {map} that the programs use: another peer has taken the pins over; stop it, and restart this one", path.display())]
    ForeignTable {
        /// The table's name.
        map: &'static str,
        /// Its pin.
        path: PathBuf,
    },
    /// A program cannot be where it would have to be.
    #[error("{device}: {why}")]
    Order {
        /// The device.
        device: String,
        /// What stands in the way, and the remedy.
        why: String,
    },
    /// Somebody has deleted the mesh device.
    #[error("the device {name} was deleted: the daemon ends, and the next start makes it anew; flows are kept")]
    Wt0Gone {
        /// Its name.
        name: String,
    },
    /// Packets do not reach a program of ours.
    #[error("{why}")]
    Unreached {
        /// Which, and why.
        why: String,
    },
    /// The embedded object does not load.
    #[error("cannot load the eBPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// The kernel refused a program or an attachment.
    #[error("{what}: {source}")]
    Program {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: aya::programs::ProgramError,
    },
    /// A map is missing or does not take an entry.
    #[error("map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: aya::maps::MapError,
    },
    /// A file or system call.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The answer.
        source: io::Error,
    },
    /// The compiled policy is too large.
    #[error(transparent)]
    PolicyTooLarge(#[from] TooLarge),
    /// A packet from one family to the other.
    #[error("a packet has both addresses of IPv4 or both of IPv6")]
    Families,
    /// More routes than counters.
    #[error("{routes} routes are wanted, {limit} are possible: merge neighbouring prefixes")]
    TooManyRoutes {
        /// Routes wanted.
        routes: usize,
        /// Routes that fit.
        limit: usize,
    },
    /// Netlink.
    #[error("netlink, {what}: {source}")]
    Netlink {
        /// What was asked.
        what: &'static str,
        /// The answer.
        source: rtnetlink::Error,
    },
}

impl Error {
    /// Whether more is wanted than the tables hold: less of it would do.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::PolicyTooLarge(_) | Self::TooManyRoutes { .. })
    }

    /// What this process lacks to load programs, if anything.
    pub(crate) fn missing_capabilities() -> Option<Self> {
        let own = Capabilities::current();
        own.missing().map(|missing| Self::Capabilities { missing, remedy: own.remedy() })
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}
