//! What stands in the way of packets: each conflict with its owner and the remedy.
//!
//! Facts are gathered in one place and judged in another. Judging is pure; gathering only reads, but for probes of the
//! kernel, which load a program that is refused and make a map that is closed at once.

mod facts;
mod finding;
mod forwarding;
mod gather;
mod network;
mod order;
pub(crate) mod procfs;
mod system;

use std::ops::RangeInclusive;
use std::path::PathBuf;

use self::facts::Facts;
pub use self::finding::{Check, Finding, Severity};
use crate::kernel::{Questions, Snapshot};
use crate::{Configuration, Intent, ebpf};

/// What is examined.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Mount point of the bpffs.
    pub bpffs: PathBuf,
    /// The mesh device, by name: it may not be there yet.
    pub wt0: String,
    /// Ports that source NAT may take.
    pub nat_ports: RangeInclusive<u16>,
    /// What is in the way of a wider range, where it was not given: [`crate::nat_ports::Choice::bounds`].
    pub nat_bounds: Vec<String>,
    /// Uplinks beyond those that the intent leads to.
    pub uplinks: Vec<String>,
    /// Routes to be served, where they are known.
    pub intent: Option<&'a Intent>,
    /// Addresses that the mesh device should have now; none where that is not known.
    pub addresses: Vec<std::net::IpAddr>,
    /// The listening port, if it should be free.
    pub listen_port: Option<u16>,
    /// Ask what the kernel and the TUN driver can do. What runs already has shown it.
    pub probe: bool,
    /// What remedies may name.
    pub configuration: Configuration,
}

impl Subject<'_> {
    /// What the snapshot for [`examine`] must tell.
    #[must_use]
    pub fn questions(&self) -> Questions {
        match self.intent {
            Some(intent) => ebpf::questions(intent),
            None => ebpf::default_questions(),
        }
    }
}

/// Looks at everything and returns what was found, the worst first. In the namespaces of the calling thread; blocks for
/// some milliseconds.
#[must_use]
pub fn examine(subject: &Subject<'_>, node: &Snapshot) -> Vec<Finding> {
    judge(&gather::gather(subject, node))
}

/// That there was no bpffs when programs were loaded.
pub(crate) fn unpinned(bpffs: &std::path::Path) -> Finding {
    system::no_bpffs(&bpffs.display().to_string())
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    system::check(facts, &mut found);
    order::check(facts, &mut found);
    network::check(facts, &mut found);
    found.sort_by_key(|finding| finding.severity);
    found
}

#[cfg(test)]
mod tests;
