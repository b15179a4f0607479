//! What the process keeps.

use anyhow::Context as _;
use caps::{CapSet, Capability};

/// Gives CAP_PERFMON up for good, in the calling thread and in all that it starts.
pub(super) fn drop_perfmon() -> anyhow::Result<()> {
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        caps::drop(None, set, Capability::CAP_PERFMON).context("give CAP_PERFMON up")?;
    }
    Ok(())
}
