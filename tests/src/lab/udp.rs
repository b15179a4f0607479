//! UDP sockets whose every option is set, and whose errors are seen.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::namespace::Namespace;
use super::traffic::wait_for;
use crate::sys::socket::{option, set_option};

/// May the stack fragment, or set "don't fragment".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmenting {
    /// Never sets "don't fragment".
    Allowed,
    /// Always sets it, and refuses what is too large.
    Forbidden,
    /// Always sets it, and does not care what the path was said to take.
    Probe,
}

/// A bound UDP socket.
pub struct Udp {
    socket: UdpSocket,
    namespace: Namespace,
    v6: bool,
}

impl Udp {
    /// Opens one.
    ///
    /// # Errors
    /// The address is not there, or taken.
    pub fn bind(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Self> {
        let socket = namespace.enter(|| UdpSocket::bind((address, port)));
        let socket = socket.with_context(|| format!("{}: UDP at {address} {port}", namespace.name()))?;
        Ok(Self { socket, namespace: namespace.clone(), v6: address.is_ipv6() })
    }

    /// Closes it and waits until nobody is at its port any more. One that is dropped may still be there: children of
    /// other threads hold copies of it until they are other programs.
    ///
    /// # Errors
    /// `ss` fails; there is another socket at its port.
    pub fn close(self) -> Result<()> {
        let Self { socket, namespace, .. } = self;
        let address = socket.local_addr()?;
        drop(socket);
        let there = || namespace.exec("ss", &["-Huan", &format!("sport = :{}", address.port())]);
        let gone = wait_for(Duration::from_secs(5), || there().is_ok_and(|sockets| sockets.is_empty()));
        ensure!(gone, "UDP at {address} is still there: {}", there()?);
        Ok(())
    }

    /// Only talks to `to` from now on, and hears of errors about it.
    ///
    /// # Errors
    /// No route.
    pub fn connect(&self, to: SocketAddr) -> Result<()> {
        Ok(self.socket.connect(to)?)
    }

    /// Where it is.
    ///
    /// # Errors
    /// As [`UdpSocket::local_addr`].
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends on a connected socket.
    ///
    /// # Errors
    /// The kernel's: also those that were told by ICMP.
    pub fn send(&self, content: &[u8]) -> io::Result<()> {
        self.socket.send(content).map(drop)
    }

    /// Sends to an address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send_to(&self, content: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.send_to(content, to).map(drop)
    }

    /// The next datagram and who sent it; `None`: none came in time.
    ///
    /// # Errors
    /// The kernel's: also those that were told by ICMP.
    pub fn receive(&self, limit: Duration) -> io::Result<Option<(Vec<u8>, SocketAddr)>> {
        let mut buffer = vec![0; 1 << 16];
        self.socket.set_read_timeout(Some(limit))?;
        let deadline = Instant::now() + limit;
        loop {
            return match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => Ok(Some((buffer[..length].to_vec(), from))),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
                // A signal, of a child that ends for one.
                Err(error) if error.kind() == ErrorKind::Interrupted && Instant::now() < deadline => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
                Err(error) => Err(error),
            };
        }
    }

    /// Waits for an error that ICMP tells; `None`: none came in time.
    ///
    /// # Errors
    /// The time cannot be set.
    pub fn error(&self, limit: Duration) -> Result<Option<ErrorKind>> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(error) = self.socket.take_error()? {
                return Ok(Some(error.kind()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(None)
    }

    /// Sets whether datagrams may be fragmented.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn fragmenting(&self, how: Fragmenting) -> Result<()> {
        let value = match how {
            Fragmenting::Allowed => libc::IP_PMTUDISC_DONT,
            Fragmenting::Forbidden => libc::IP_PMTUDISC_DO,
            Fragmenting::Probe => libc::IP_PMTUDISC_PROBE,
        };
        let (level, name) = if self.v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
        } else {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
        };
        Ok(set_option(self.socket.as_fd(), level, name, value)?)
    }

    /// What the path of a connected socket takes, as the kernel has learned it, bytes.
    ///
    /// # Errors
    /// Not connected.
    pub fn path_mtu(&self) -> Result<i32> {
        let (level, name) =
            if self.v6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
        Ok(option(self.socket.as_fd(), level, name)?)
    }

    /// Sends without a checksum, which IPv4 allows.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn without_checksum(&self) -> Result<()> {
        /// `asm-generic/socket.h`.
        const SO_NO_CHECK: i32 = 11;
        Ok(set_option(self.socket.as_fd(), libc::SOL_SOCKET, SO_NO_CHECK, 1)?)
    }

    /// Lets one send carry datagrams of `size` bytes each.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn segmented(&self, size: u16) -> Result<()> {
        Ok(set_option(self.socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, size.into())?)
    }
}
