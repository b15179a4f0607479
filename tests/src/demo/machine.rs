//! The machine around the lab, which must not change.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};

/// What a careless program leaves behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    named_namespaces: BTreeSet<String>,
    devices: BTreeSet<String>,
    mounts: BTreeSet<String>,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let names = |directory: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        Ok(Self {
            named_namespaces: names("/run/netns"),
            devices: names("/sys/class/net"),
            mounts: mounts.lines().map(str::to_owned).collect(),
        })
    }

    /// Nothing has come or gone.
    pub(crate) fn expect_unchanged(&self) -> Result<()> {
        let now = Self::look()?;
        ensure!(now.named_namespaces == self.named_namespaces, "named namespaces: {:?}", now.named_namespaces);
        ensure!(now.devices == self.devices, "devices: {:?}", now.devices);
        let new: Vec<_> = now.mounts.difference(&self.mounts).collect();
        ensure!(new.is_empty(), "mounts: {new:?}");
        Ok(())
    }
}
