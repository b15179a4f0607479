//! Errors of opening devices, sockets and shards. What happens to single packets later is counted, not returned.

use std::io;

/// Why packet I/O could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no TUN driver within reach.
    #[error(
        "cannot open /dev/net/tun: {source}; load the module `tun`, and in a container give it the device \
         (a hostPath of type CharDevice, or `--device /dev/net/tun`)"
    )]
    NoTunDriver {
        /// The answer.
        source: io::Error,
    },
    /// CAP_NET_ADMIN is missing.
    #[error(
        "creating the device {name} needs CAP_NET_ADMIN: add NET_ADMIN to the container's securityContext.capabilities.add"
    )]
    NotAdmin {
        /// The device.
        name: String,
    },
    /// No device can be named so.
    #[error("{name:?} is no name for a device: 1 to 15 bytes without `/`, `:`, `%` and white space, not `.` or `..`")]
    Name {
        /// The name.
        name: String,
    },
    /// A number that cannot be.
    #[error("{what} is {value}, possible are {min} to {max}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: usize,
        /// Smallest possible.
        min: usize,
        /// Largest possible.
        max: usize,
    },
    /// The name belongs to a device of another kind. It is left alone.
    #[error(
        "{name} is a device of kind {kind:?} that we did not make: choose another name, or remove it with `ip link delete {name}`"
    )]
    NotTun {
        /// The device.
        name: String,
        /// What kind the kernel says it is; empty: a real one.
        kind: String,
    },
    /// A TUN that cannot be ours. It is left alone.
    #[error(
        "the TUN {name} was made by another program ({what}): choose another name, or remove it with `ip link delete {name}`"
    )]
    ForeignTun {
        /// The device.
        name: String,
        /// What is different.
        what: &'static str,
    },
    /// Another process has the device open.
    #[error(
        "the TUN {name} is in use by another process, likely a second daemon: stop that one, or choose another name"
    )]
    Busy {
        /// The device.
        name: String,
    },
    /// The port belongs to another process.
    #[error("UDP port {port} ({family}) is in use by another process; `ss -lunp 'sport = :{port}'` names the owner")]
    PortInUse {
        /// The port.
        port: u16,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// The kernel chose a port for IPv4 that IPv6 did not have, again and again.
    #[error("found no UDP port that is free for IPv4 and IPv6 in {tries} tries")]
    NoCommonPort {
        /// How often it was tried.
        tries: u32,
    },
    /// A system call.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The answer.
        source: io::Error,
    },
    /// Netlink.
    #[error("netlink, {what}: {source}")]
    Netlink {
        /// What was asked.
        what: String,
        /// The answer.
        source: rtnetlink::Error,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn netlink(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let what = what.into();
        move |source| Self::Netlink { what, source }
    }
}
