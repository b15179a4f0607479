//! Wires between namespaces and their addresses.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::namespace::Namespace;
use super::traffic::wait_for;

/// An address may take so long to become usable.
const LIMIT: Duration = Duration::from_secs(5);

/// One end of a wire.
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Name of the device.
    pub device: &'a str,
    /// Addresses with the length of their prefix.
    pub addresses: &'a [(IpAddr, u8)],
}

/// Lays a wire: two devices, up, with their addresses usable at once.
///
/// # Errors
/// `ip` fails.
pub fn wire(one: &End<'_>, other: &End<'_>) -> Result<()> {
    let far = other.namespace.path();
    one.namespace.exec(
        "ip",
        &["link", "add", one.device, "type", "veth", "peer", "name", other.device, "netns", &far.to_string_lossy()],
    )?;
    for end in [one, other] {
        for (address, length) in end.addresses {
            add_address(end.namespace, end.device, *address, *length)?;
        }
        end.namespace.exec("ip", &["link", "set", end.device, "up"])?;
    }
    for end in [one, other] {
        for (address, _) in end.addresses {
            await_neighbours(end.namespace, end.device, *address)?;
        }
    }
    Ok(())
}

/// Gives a device an address, without the wait for duplicates that IPv6 makes.
///
/// # Errors
/// `ip` fails.
pub fn add_address(namespace: &Namespace, device: &str, address: IpAddr, length: u8) -> Result<()> {
    let prefix = format!("{address}/{length}");
    let mut arguments = vec!["address", "add", &prefix, "dev", device];
    if address.is_ipv6() {
        arguments.push("nodad");
    }
    namespace.exec("ip", &arguments)?;
    Ok(())
}

/// Waits until neighbours who ask for an IPv6 address are heard: who asks before asks again after a second (RFC 4861 §10).
/// The kernel joins their group some time after the address is there, and routes groups some time after there is a carrier.
///
/// # Errors
/// Nobody is heard for five seconds.
pub fn await_neighbours(namespace: &Namespace, device: &str, address: IpAddr) -> Result<()> {
    let IpAddr::V6(address) = address else { return Ok(()) };
    let [.., a, b, c] = address.octets();
    // The solicited-node group, RFC 4291 §2.7.1.
    let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
    let groups = "ff000000000000000000000000000000";
    let listed = |path, prefix: &str| {
        let table = namespace.read(path).unwrap_or_default();
        table.lines().any(|line| line.contains(prefix) && line.split_whitespace().any(|field| field == device))
    };
    let heard = || listed("/proc/net/igmp6", &group) && listed("/proc/net/ipv6_route", groups);
    ensure!(wait_for(LIMIT, heard), "{}: nobody at {device} can ask for {address}", namespace.name());
    Ok(())
}

/// Sets a sysctl of the namespace.
///
/// # Errors
/// There is no such sysctl.
pub fn sysctl(namespace: &Namespace, key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    namespace.write(path.as_ref(), value)
}
