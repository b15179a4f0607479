//! System calls that neither rustix nor socket2 has: the ioctls of /dev/net/tun and one socket option; and a descriptor lent to
//! the reactor.
#![allow(unsafe_code, reason = "ioctl(2), setsockopt(2) and AsyncFd have no safe form for these requests")]

use std::ffi::c_ulong;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Attaches the descriptor to the TUN of that name, which is made if it is not there. `flags` are `IFF_…` of linux/if_tun.h.
pub(crate) fn attach_tun(tun: BorrowedFd<'_>, name: &str, flags: i32) -> io::Result<()> {
    // SAFETY: a plain structure of integers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // Flags are a short in the kernel's structure; IFF_TUN_EXCL is its sign bit.
    request.ifr_ifru.ifru_flags = (flags as u16).cast_signed();
    // SAFETY: the request reads and writes one `ifreq`, which lives through the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// Whether the device outlives its last descriptor.
pub(crate) fn set_persistent(tun: BorrowedFd<'_>, persistent: bool) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, c_ulong::from(persistent)) })
}

/// What the kernel may leave for us to do to packets that we read: `TUN_F_…`.
pub(crate) fn set_offloads(tun: BorrowedFd<'_>, offloads: u32) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(offloads)) })
}

/// Length of the header before each packet.
pub(crate) fn set_vnet_header_len(tun: BorrowedFd<'_>, len: i32) -> io::Result<()> {
    // SAFETY: the request reads one integer, which lives through the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) })
}

/// Whether IPv6 datagrams larger than the MTU are refused instead of sent in fragments.
pub(crate) fn set_ipv6_dontfrag(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let value = i32::from(on);
    let len = size_of_val(&value) as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG);
    // SAFETY: the option is one integer of `len` bytes, which lives through the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) })
}

/// Waits for a descriptor to become readable. Must be called inside a tokio runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps its descriptor open and never replaces it; it is only dropped together with the registration.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
