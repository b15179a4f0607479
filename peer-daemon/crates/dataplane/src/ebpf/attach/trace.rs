//! What a life leaves behind for the next one to know its programs by: the mesh device's alias has their ids.
//!
//! Pins tell whose a link is only where they are seen. A start with another bpffs, or without any, finds old programs of ours on
//! uplinks, and the kernel tells their names to nobody without CAP_SYS_ADMIN. Ids of programs, as the alias, last as long as the
//! machine runs.

use std::collections::BTreeSet;
use std::io;

use crate::sys;
use crate::tc::Tc;

/// Programs of an earlier life that are remembered at most: the kernel takes 255 bytes.
const MOST: usize = 10;
const RUNS: &str = "peer runs ";
const LEFT: &str = " left ";

/// Programs by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Of the life that wrote it.
    pub(crate) runs: BTreeSet<u32>,
    /// Of earlier ones, still attached somewhere.
    pub(crate) left: BTreeSet<u32>,
}

impl Trace {
    /// That of the device; an empty one where it has none.
    pub(crate) fn read(wt0: &str) -> Self {
        let alias = || Tc::connect()?.alias(sys::ifindex(wt0).unwrap_or(0));
        match sys::ifindex(wt0).map(|_| alias()) {
            None | Some(Ok(None)) => Self::default(),
            Some(Ok(Some(alias))) => Self::parse(&alias),
            Some(Err(error)) => {
                tracing::warn!(%error, device = wt0, "its alias cannot be read: old programs are not known as ours");
                Self::default()
            }
        }
    }

    /// Writes it to the device.
    pub(crate) fn write(&self, ifindex: u32) -> io::Result<()> {
        Tc::connect()?.set_alias(ifindex, &self.to_string())
    }

    fn parse(alias: &str) -> Self {
        let ids = |text: &str| text.split(',').filter_map(|id| id.parse().ok()).collect();
        let Some(rest) = alias.strip_prefix(RUNS) else { return Self::default() };
        let (runs, left) = rest.split_once(LEFT).unwrap_or((rest, ""));
        Self { runs: ids(runs), left: ids(left) }
    }
}

impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |ids: &BTreeSet<u32>| ids.iter().rev().take(MOST).map(u32::to_string).collect::<Vec<_>>().join(",");
        write!(f, "{RUNS}{}", list(&self.runs))?;
        if !self.left.is_empty() {
            write!(f, "{LEFT}{}", list(&self.left))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let none = BTreeSet::new();
        for (runs, left) in [(&[7, 8, 9, 10][..], &[3, 4][..]), (&[1], &[]), (&[], &[])] {
            let trace = Trace { runs: runs.iter().copied().collect(), left: left.iter().copied().collect() };
            assert_eq!(Trace::parse(&trace.to_string()), trace);
        }
        for foreign in ["", "uplink to rack 7", "peer runs", "peer runs x,-1"] {
            assert_eq!(Trace::parse(foreign), Trace { runs: none.clone(), left: none.clone() }, "{foreign:?}");
        }
    }

    #[test]
    fn it_fits_into_an_alias_and_keeps_the_latest() {
        let all: BTreeSet<u32> = (u32::MAX - 100..=u32::MAX).collect();
        let text = Trace { runs: all.clone(), left: all }.to_string();
        assert!(text.len() <= 255, "{}", text.len());
        assert!(Trace::parse(&text).left.contains(&u32::MAX));
    }
}
