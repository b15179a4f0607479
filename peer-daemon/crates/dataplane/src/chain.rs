//! Who stands where in the chains of a device, and whose program it is.
//!
//! Without CAP_SYS_ADMIN, which nobody should give us, the kernel tells ids only. Links that somebody has pinned are
//! opened by their path and give their ids away: ours, those of other peers on this node, Cilium's. What remains is of an
//! unknown owner.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::ebpf::Trace;
use crate::sys::{self, Chain, TcxHook};

/// Programs of Cilium's are named so.
pub(crate) const CILIUM_PREFIX: &str = "cil_";

/// Programs of peers are named so.
pub(crate) const OWN_PREFIX: &str = "peer_";

/// Whose a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Ours.
    Own,
    /// That of an earlier life of ours, whose pins are not to be seen from here.
    Former,
    /// That of another peer on this node, by the name of its mesh device. It lets pass what is not its own.
    Peer(String),
    /// Cilium's, by the name of the program. Its verdict ends the chain.
    Cilium(String),
    /// Nobody knows whose; its name, where the kernel tells it.
    Unknown(Option<String>),
}

impl Owner {
    /// Whether nobody behind such a program sees what it has seen.
    #[must_use]
    pub fn ends_chain(&self) -> bool {
        matches!(self, Self::Cilium(_))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("this peer"),
            Self::Former => f.write_str("an earlier life of this peer"),
            Self::Peer(device) => write!(f, "the peer of {device}"),
            Self::Cilium(program) => write!(f, "Cilium ({program})"),
            Self::Unknown(Some(name)) => write!(f, "unknown ({name})"),
            Self::Unknown(None) => f.write_str("unknown"),
        }
    }
}

/// A program in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Id of the program.
    pub program: u32,
    /// Id of its link; 0: it has none.
    pub link: u32,
    /// Whose.
    pub owner: Owner,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {} of owner {}", self.program, self.owner)
    }
}

/// Whose links are whose, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners {
    links: BTreeMap<u32, Owner>,
    trace: Trace,
}

impl Owners {
    /// Looks at what is pinned below `bpffs`, for the peer of the device `wt0`.
    pub(crate) fn read(bpffs: &Path, wt0: &str) -> Self {
        let mut owners = BTreeMap::new();
        for device in entries(&bpffs.join("peer")) {
            let name = file_name(&device).replace(':', ".");
            let owner = if name == wt0 { Owner::Own } else { Owner::Peer(name) };
            for version in entries(&device) {
                collect(&version.join("links"), &mut owners, |_| owner.clone());
            }
        }
        for device in entries(&bpffs.join("cilium/devices")) {
            collect(&device.join("links"), &mut owners, |program| Owner::Cilium(program.to_owned()));
        }
        Self { links: owners, trace: Trace::read(wt0) }
    }

    /// The same with links of ours that are not pinned.
    pub(crate) fn and_own(mut self, links: impl IntoIterator<Item = u32>) -> Self {
        self.links.extend(links.into_iter().filter(|link| *link != 0).map(|link| (link, Owner::Own)));
        self
    }

    /// The chain, first to last.
    pub(crate) fn chain(&self, ifindex: u32, hook: TcxHook) -> io::Result<(Vec<Neighbour>, u64)> {
        let Chain { entries, revision } = sys::chain(ifindex, hook)?;
        Ok((entries.into_iter().map(|(program, link)| self.neighbour(program, link)).collect(), revision))
    }

    fn neighbour(&self, program: u32, link: u32) -> Neighbour {
        let known = (link != 0).then(|| self.links.get(&link)).flatten();
        let traced = || {
            let Trace { runs, left } = &self.trace;
            left.contains(&program).then_some(Owner::Former).or(runs.contains(&program).then_some(Owner::Own))
        };
        let owner = known.cloned().or_else(traced).unwrap_or_else(|| match sys::program_name(program) {
            Ok(name) if name.starts_with(CILIUM_PREFIX) => Owner::Cilium(name),
            name => Owner::Unknown(name.ok().filter(|name| !name.is_empty())),
        });
        Neighbour { program, link, owner }
    }
}

fn collect(dir: &Path, owners: &mut BTreeMap<u32, Owner>, owner: impl Fn(&str) -> Owner) {
    for path in entries(dir) {
        // A pin that cannot be opened, or is no TCX link, says nothing about any chain.
        if let Ok(Some(info)) = sys::link_at(&path).and_then(|link| link.map(|link| link.info()).transpose()) {
            owners.insert(info.id, owner(&file_name(&path)));
        }
    }
}

/// What a directory holds; nothing, if it is not there or not for us.
pub(crate) fn entries(dir: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(dir).into_iter().flatten();
    let mut paths: Vec<_> = list.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    paths
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
