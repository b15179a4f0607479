//! System calls of the lab.
#![allow(
    unsafe_code,
    reason = "setns, mount, prctl, kill, waitpid, reboot, ioctl, socket options and packet sockets are foreign"
)]

use std::io;

pub(crate) mod bpf;
pub(crate) mod device;
pub(crate) mod machine;
pub(crate) mod namespace;
pub(crate) mod packet_socket;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod socket;
pub(crate) mod tun;

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
