//! Programs that somebody else has on the node's devices.

use std::path::Path;

use anyhow::{Context as _, Result};
use peer_bpf_sys::object;

use super::namespace::Namespace;
use super::node::BPFFS;
pub use crate::sys::bpf::Hook;
use crate::sys::bpf::{self, ForeignLink, Loaded};
pub use crate::sys::programs::Behaviour;
use crate::sys::programs::IPV6_OFFSET;

/// What it is called, unless told otherwise.
const NAME: &str = "foreign";
/// Where `tc` finds programs of others: no bpffs of the daemon's.
const FOREIGN_BPFFS: &str = "/run/lab/foreign";

/// A program in a TCX chain, by a link of its own. Detached when dropped.
pub struct ForeignProgram {
    link: ForeignLink,
}

impl ForeignProgram {
    /// Attaches one to the tail of a device's ingress that counts and lets everything pass with `TC_ACT_OK`.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn attach(namespace: &Namespace, device: &str) -> Result<Self> {
        Self::attach_as(namespace, device, NAME, Hook::IngressTail, Behaviour::CountAndPass)
    }

    /// Attaches one of any kind.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn attach_as(
        namespace: &Namespace,
        device: &str,
        name: &str,
        hook: Hook,
        behaviour: Behaviour,
    ) -> Result<Self> {
        let link = namespace
            .enter(|| ForeignLink::attach(device, name, hook, behaviour))
            .with_context(|| format!("attach a foreign program to {device}"))?;
        Ok(Self { link })
    }

    /// Puts a new program into its link; its counters begin anew.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn update(&mut self, behaviour: Behaviour) -> Result<()> {
        Ok(self.link.update(NAME, behaviour)?)
    }

    /// Pins its link in the node's bpffs, as Cilium does with its own: `cilium/devices/DEVICE/links/NAME`.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn pin_as_cilium(&self, namespace: &Namespace, device: &str, name: &str) -> Result<()> {
        let directory = Path::new(BPFFS).join("cilium/devices").join(device).join("links");
        let pinned = namespace.enter(|| {
            std::fs::create_dir_all(&directory)?;
            self.link.pin(&directory.join(name))
        });
        pinned.with_context(|| format!("pin a link in {}", directory.display()))
    }

    /// IPv4 packets of this protocol that it saw.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn ipv4(&self, protocol: u8) -> Result<u64> {
        Ok(self.link.read(u32::from(protocol))?)
    }

    /// IPv6 packets with this next header that it saw.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn ipv6(&self, next_header: u8) -> Result<u64> {
        Ok(self.link.read(u32::from(next_header) + IPV6_OFFSET as u32)?)
    }

    /// How many programs are attached where it would be.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn chain_length(namespace: &Namespace, device: &str) -> Result<u32> {
        Ok(Self::chain(namespace, device)?.len() as u32)
    }

    /// Ids of the programs in the TCX ingress chain of a device, first to last.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn chain(namespace: &Namespace, device: &str) -> Result<Vec<u32>> {
        Ok(namespace.enter(|| bpf::tcx_ingress(device))?)
    }

    /// Programs, maps and links of the whole machine.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn objects_of_the_machine() -> Result<[usize; 3]> {
        Ok(object::count()?)
    }
}

/// A program in a device's legacy filter list (clsact ingress) that counts and lets everything pass with `TC_ACT_OK`.
pub struct LegacyFilter {
    program: Loaded,
}

impl LegacyFilter {
    /// Attaches it by `tc`, at priority 1 and handle 1.
    ///
    /// # Errors
    /// `tc` or bpf(2) refuses.
    pub fn attach(namespace: &Namespace, device: &str) -> Result<Self> {
        let directory = Path::new(FOREIGN_BPFFS);
        let program = Loaded::load(NAME, Behaviour::CountAndPass)?;
        namespace.mount_bpffs(directory)?;
        let pin = directory.join("legacy");
        namespace.enter(|| program.pin(&pin)).context("pin a foreign program")?;
        namespace.exec("tc", &["qdisc", "add", "dev", device, "clsact"])?;
        let pin = pin.to_string_lossy();
        let filter = ["filter", "add", "dev", device, "ingress", "prio", "1", "handle", "1", "bpf", "direct-action"];
        namespace.exec("tc", &[&filter[..], &["object-pinned", &pin]].concat())?;
        Ok(Self { program })
    }

    /// Removes all filters of the device's ingress, as a Cilium that has moved to TCX does.
    ///
    /// # Errors
    /// `tc` refuses.
    pub fn wipe(namespace: &Namespace, device: &str) -> Result<()> {
        namespace.exec("tc", &["filter", "delete", "dev", device, "ingress"])?;
        Ok(())
    }

    /// IPv4 packets of this protocol that it saw.
    ///
    /// # Errors
    /// bpf(2) refuses.
    pub fn ipv4(&self, protocol: u8) -> Result<u64> {
        Ok(self.program.read(u32::from(protocol))?)
    }
}
