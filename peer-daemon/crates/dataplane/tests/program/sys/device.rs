//! Devices of the calling thread's namespace that say what the kernel still has to do to a packet.
#![allow(unsafe_code, reason = "ioctl, packet sockets and interface indices are foreign functions")]

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use super::check;

/// `struct virtio_net_hdr`: the offload state of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offload {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    pub(crate) header_len: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
}

impl Offload {
    /// The checksum is to be completed.
    pub(crate) const NEEDS_CSUM: u8 = 1;
    const LEN: usize = 10;

    fn bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        (bytes[0], bytes[1]) = (self.flags, self.gso_type);
        for (at, word) in [(2, self.header_len), (4, self.gso_size), (6, self.csum_start), (8, self.csum_offset)] {
            bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn of(bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            header_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }
}

/// A TUN device or a packet socket, both with [`Offload`] before each packet.
pub(crate) struct Port(File);

impl Port {
    /// Makes a TUN device that takes and gives super-packets.
    pub(crate) fn tun(name: &CStr) -> io::Result<Self> {
        const OFFLOADS: libc::c_ulong = 0x01 | 0x02 | 0x04; // checksum, TCP over IPv4, TCP over IPv6
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        // SAFETY: a structure of integers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: the request that the command takes, alive through the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) })?;
        // SAFETY: takes an integer.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, OFFLOADS) })?;
        Ok(Self(file))
    }

    /// A packet socket on a device.
    pub(crate) fn packets(index: u32) -> io::Result<Self> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: takes integers only.
        let socket = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, all.into())
        };
        check(socket.min(0))?;
        // SAFETY: a descriptor that the kernel has just made.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        for option in [libc::PACKET_VNET_HDR, libc::PACKET_IGNORE_OUTGOING] {
            let on: libc::c_int = 1;
            let len = size_of::<libc::c_int>() as libc::socklen_t;
            // SAFETY: an option of integer size, alive through the call.
            let result =
                unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const on).cast(), len) };
            check(result)?;
        }
        // SAFETY: a structure of integers.
        let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_protocol = all;
        addr.sll_ifindex = index.cast_signed();
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: an address of the length given.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len) })?;
        Ok(Self(socket.into()))
    }

    pub(crate) fn send(&mut self, offload: Offload, packet: &[u8]) -> io::Result<()> {
        let mut bytes = offload.bytes().to_vec();
        bytes.extend(packet);
        let sent = self.0.write(&bytes)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::other("cut")) }
    }

    /// The next packet that `wanted` takes, others are passed over.
    pub(crate) fn receive(&mut self, wanted: impl Fn(&[u8]) -> bool) -> io::Result<(Offload, Vec<u8>)> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut bytes = vec![0; 70_000];
        while Instant::now() < deadline {
            match self.0.read(&mut bytes) {
                Ok(len) if len >= Offload::LEN && wanted(&bytes[Offload::LEN..len]) => {
                    return Ok((Offload::of(&bytes), bytes[Offload::LEN..len].to_vec()));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("nothing came"))
    }
}

/// Index of a device of this namespace.
pub(crate) fn index(name: &CStr) -> io::Result<u32> {
    // SAFETY: a C string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}
