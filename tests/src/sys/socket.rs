//! Socket options that are numbers, and many datagrams in one call.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::check;

/// Sets an option.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value lives through the call and has the length given.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<i32>() as u32)
    })?;
    Ok(())
}

/// Reads an option.
pub(crate) fn option(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as u32;
    // SAFETY: value and length live through the call; the kernel writes no more than the length says.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) })?;
    Ok(value)
}

/// Sends datagrams on a connected or bound socket; says how many went.
pub(crate) fn send_many(
    socket: BorrowedFd<'_>,
    address: Option<&libc::sockaddr_ll>,
    datagrams: &[Vec<u8>],
) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> = datagrams
        .iter()
        .map(|datagram| libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: a plain structure of integers and pointers that may be null.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            if let Some(address) = address {
                message.msg_hdr.msg_name = std::ptr::from_ref(address).cast_mut().cast();
                message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
            }
            message
        })
        .collect();
    // SAFETY: messages, their parts, the datagrams and the address live through the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
    usize::try_from(check(sent)?).map_err(io::Error::other)
}
