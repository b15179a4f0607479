//! A program that somebody else has on the node's uplink.

use anyhow::{Context as _, Result};

use super::namespace::Namespace;
use crate::sys::bpf::{self, CountingProgram};

/// At the tail of TCX ingress, returning `TC_ACT_OK`, counting what reaches it. Detached when dropped.
pub struct ForeignProgram {
    program: CountingProgram,
}

impl ForeignProgram {
    /// Attaches it to a device of the namespace.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn attach(namespace: &Namespace, device: &str) -> Result<Self> {
        let program = namespace
            .enter(|| CountingProgram::attach(device))
            .with_context(|| format!("attach a foreign program to {device}"))?;
        Ok(Self { program })
    }

    /// IPv4 packets of this protocol that it saw.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn ipv4(&self, protocol: u8) -> Result<u64> {
        Ok(self.program.ipv4(protocol)?)
    }

    /// IPv6 packets with this next header that it saw.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn ipv6(&self, next_header: u8) -> Result<u64> {
        Ok(self.program.ipv6(next_header)?)
    }

    /// How many programs are attached where it would be.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn chain_length(namespace: &Namespace, device: &str) -> Result<u32> {
        Ok(namespace.enter(|| bpf::tcx_ingress_count(device))?)
    }
}
