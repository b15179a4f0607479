//! What management wants to know about this system, as the official client says it.

mod addresses;
mod checks;
mod machine;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::proto::management::{Flags, PeerCapability, PeerSystemMeta};

/// The version of the official client whose behaviour ours has. The server and other peers judge by it what a peer
/// understands (port ranges from 0.48, lazy connections from 0.45), so that our own version number would mislead them.
pub const NETBIRD_VERSION: &str = "0.77.1";

/// What the system does not know about itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the peer; `None`: the host's.
    pub hostname: Option<String>,
    /// Version to report: [`NETBIRD_VERSION`] unless there is a reason.
    pub version: String,
    /// Settings that the server shows or acts upon.
    pub flags: Flags,
    /// Whether the overlay's IPv6 is wanted.
    pub ipv6: bool,
    /// Interfaces whose addresses are not told: the tunnel's.
    pub excluded_interfaces: BTreeSet<String>,
    /// Addresses that are not told: those of the overlay.
    pub excluded_addresses: BTreeSet<IpAddr>,
    /// Where the system's files are: `/`.
    pub root: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hostname: None,
            version: NETBIRD_VERSION.to_owned(),
            flags: Flags::default(),
            ipv6: true,
            excluded_interfaces: BTreeSet::new(),
            excluded_addresses: BTreeSet::new(),
            root: PathBuf::from("/"),
        }
    }
}

/// Gathers everything; `checks` are the files that posture checks ask for. What cannot be found out is left empty.
pub async fn gather(options: &Options, checks: &[String]) -> PeerSystemMeta {
    let machine = machine::Machine::read(&options.root);
    let network_addresses = addresses::gather(options).await;
    PeerSystemMeta {
        hostname: options.hostname.clone().unwrap_or(machine.hostname),
        go_os: "linux".to_owned(),
        kernel: machine.kernel,
        core: machine.os_version.clone(),
        platform: machine.platform,
        os: machine.os,
        netbird_version: options.version.clone(),
        // Empty: the server keeps what it has.
        ui_version: String::new(),
        kernel_version: machine.kernel_version,
        os_version: machine.os_version,
        network_addresses,
        sys_serial_number: machine.serial_number,
        sys_product_name: machine.product_name,
        sys_manufacturer: machine.manufacturer,
        environment: Some(machine.environment),
        files: checks::answer(&options.root, checks),
        flags: Some(options.flags),
        capabilities: capabilities(options.ipv6),
        // The classic map.
        sync_message_version: 0,
    }
}

fn capabilities(ipv6: bool) -> Vec<i32> {
    let mut capabilities = vec![PeerCapability::SourcePrefixes.into()];
    if ipv6 {
        capabilities.push(PeerCapability::Ipv6Overlay.into());
    }
    capabilities
}

#[cfg(test)]
mod tests;
