//! What passes a device.

use anyhow::{Context as _, Result};

use super::namespace::Namespace;
use crate::sys::packet_socket::PacketSocket;

/// Sees all packets of a device from its start on.
pub struct Capture {
    socket: PacketSocket,
}

/// A packet, from layer 3 on. What the stack sends may have an unfinished checksum of layer 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// It left by the device; otherwise it came.
    pub left: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Capture {
    /// Starts.
    ///
    /// # Errors
    /// No such device.
    pub fn start(namespace: &Namespace, device: &str) -> Result<Self> {
        let socket = namespace
            .enter(|| PacketSocket::capture(device))
            .with_context(|| format!("{}: capture on {device}", namespace.name()))?;
        Ok(Self { socket })
    }

    /// What was seen since the last call.
    ///
    /// # Errors
    /// The device went down.
    pub fn take(&self) -> Result<Vec<Captured>> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 1 << 17];
        while let Some((length, left)) = self.socket.next(&mut buffer)? {
            packets.push(Captured { left, bytes: buffer[..length].to_vec() });
        }
        Ok(packets)
    }
}

impl Captured {
    /// The segment size that a SYN asks for, if this is one.
    #[must_use]
    pub fn segment_size(&self) -> Option<u16> {
        let (protocol, header) = match self.bytes.first()? >> 4 {
            4 => (*self.bytes.get(9)?, 20),
            6 => (*self.bytes.get(6)?, 40),
            _ => return None,
        };
        let tcp = self.bytes.get(header..)?;
        if protocol != 6 || tcp.get(13)? & 2 == 0 {
            return None;
        }
        let mut options = tcp.get(20..usize::from(tcp[12] >> 4) * 4)?;
        loop {
            match *options {
                [2, 4, high, low, ..] => return Some(u16::from_be_bytes([high, low])),
                [1, ref rest @ ..] => options = rest,
                [2..=u8::MAX, length @ 2..=u8::MAX, ..] => options = options.get(usize::from(length)..)?,
                _ => return None,
            }
        }
    }

    /// Offset in bytes and whether more follow, if this is a fragment of IPv4.
    #[must_use]
    pub fn fragment(&self) -> Option<(u16, bool)> {
        let field = match *self.bytes {
            [first, _, _, _, _, _, high, low, ..] if first >> 4 == 4 => u16::from_be_bytes([high, low]),
            _ => return None,
        };
        (field & 0x3fff != 0).then_some(((field & 0x1fff) * 8, field & 0x2000 != 0))
    }
}
