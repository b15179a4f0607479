//! Wires between namespaces and their addresses.

use std::net::IpAddr;

use anyhow::Result;

use super::namespace::Namespace;

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

/// Sets a sysctl of the namespace.
///
/// # Errors
/// There is no such sysctl.
pub fn sysctl(namespace: &Namespace, key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    namespace.write(path.as_ref(), value)
}
