//! The kernel's table of connections in one namespace, by netlink.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::Namespace;

/// `linux/netlink.h`.
const NETLINK_NETFILTER: i32 = 12;
const NLMSG_ERROR: u16 = 2;
/// NLM_F_REQUEST and NLM_F_ACK.
const FLAGS: u16 = 1 | 4;
/// `linux/netfilter/nfnetlink.h`: IPCTNL_MSG_CT_DELETE of NFNL_SUBSYS_CTNETLINK.
const DELETE: u16 = (1 << 8) | 2;
const HEADER: usize = 16;

/// Forgets all connections of a namespace.
pub(super) fn flush(namespace: &Namespace) -> Result<()> {
    // A header and, as `nfgenmsg`, any family: without attributes all entries go.
    let length: u32 = 20;
    let mut request = Vec::with_capacity(20);
    request.extend(length.to_ne_bytes());
    request.extend(DELETE.to_ne_bytes());
    request.extend(FLAGS.to_ne_bytes());
    request.resize(20, 0);
    namespace.enter(|| exchange(&request)).with_context(|| format!("{}: flush conntrack", namespace.name()))
}

/// UDP mappings that a namespace knows: one for each endpoint inside and destination.
pub(super) fn udp_mappings(namespace: &Namespace) -> Result<usize> {
    let table = namespace.read("/proc/net/nf_conntrack")?;
    Ok(table.lines().filter(|line| line.split_whitespace().nth(2) == Some("udp")).count())
}

fn exchange(request: &[u8]) -> Result<()> {
    let netlink = Domain::from(libc::AF_NETLINK);
    let socket = Socket::new(netlink, Type::RAW, Some(Protocol::from(NETLINK_NETFILTER)))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send(request)?;
    let mut socket = &socket;
    let mut answer = [0; 256];
    let length = std::io::Read::read(&mut socket, &mut answer)?;
    ensure!(length >= HEADER + 4, "{length} bytes are too few");
    if u16::from_ne_bytes([answer[4], answer[5]]) != NLMSG_ERROR {
        bail!("unexpected answer {:02x?}", &answer[..length]);
    }
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(-error).into()),
    }
}
