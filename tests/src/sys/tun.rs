//! A further queue of a TUN that somebody else has made.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

use super::check;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// `struct ifreq`, as far as the TUN driver reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    rest: [u8; 22],
}

/// Opens one in the namespace of the calling thread. What is written, behind ten bytes of vnet header, arrives at the
/// device as if its owner had written it.
pub(crate) fn open_queue(device: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE | libc::IFF_VNET_HDR;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: flags as i16, rest: [0; 22] };
    let length = device.len().min(libc::IFNAMSIZ - 1);
    request.name[..length].copy_from_slice(&device.as_bytes()[..length]);
    // SAFETY: the structure lives through the call and has the size of the kernel's.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
    Ok(file)
}
