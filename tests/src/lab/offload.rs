//! What a device does for the stack.

use anyhow::{Context as _, Result};

use super::namespace::Namespace;
use crate::sys::device::ethtool;

/// Something that can be turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums of what is sent.
    TransmitChecksum,
    /// Segments of what is sent.
    Segmentation,
    /// Super-packets of what arrives.
    Receive,
}

/// Turns it on or off.
///
/// # Errors
/// The device cannot.
pub fn set_offload(namespace: &Namespace, device: &str, offload: Offload, on: bool) -> Result<()> {
    // ETHTOOL_STXCSUM, ETHTOOL_SGSO with ETHTOOL_STSO, ETHTOOL_SGRO of `linux/ethtool.h`.
    let commands: &[u32] = match offload {
        Offload::TransmitChecksum => &[0x17],
        Offload::Segmentation => &[0x1f, 0x24],
        Offload::Receive => &[0x2c],
    };
    namespace
        .enter(|| commands.iter().try_for_each(|&command| ethtool(device, command, on.into())))
        .with_context(|| format!("{}: {offload:?} of {device}", namespace.name()))
}
