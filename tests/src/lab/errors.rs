//! ICMP errors, read as strictly as their RFCs are written.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::forge::{checksum, pseudo_header};
use super::namespace::Namespace;

/// Receives what comes to a host by ICMP.
pub struct IcmpListener {
    /// A raw socket in the clothes of one that says from whom.
    socket: UdpSocket,
    v6: bool,
}

/// An error or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpMessage {
    /// Who tells.
    pub from: IpAddr,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum: of "too big" the MTU.
    pub rest: u32,
    /// What follows: of an error the packet that it is about.
    pub content: Vec<u8>,
}

impl IcmpListener {
    /// Begins to listen.
    ///
    /// # Errors
    /// No raw socket.
    pub fn open(namespace: &Namespace, v6: bool) -> Result<Self> {
        let (domain, protocol) = if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
        let socket = namespace.enter(|| Socket::new(domain, Type::RAW, Some(protocol))).context("raw socket")?;
        Ok(Self { socket: socket.into(), v6 })
    }

    /// The next message of one of these types; `None`: none came in time.
    ///
    /// # Errors
    /// One came that is not as its RFC wants it.
    pub fn next(&self, kinds: &[u8], limit: Duration) -> Result<Option<IcmpMessage>> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error.into()),
            };
            // Raw IPv4 sockets show the header; raw IPv6 sockets do not, and have looked at the checksum already.
            let header = if self.v6 { 0 } else { usize::from(buffer[0] & 15) * 4 };
            let bytes = buffer.get(header..length).context("a short header")?;
            ensure!(bytes.len() >= 8, "a short message from {from}");
            ensure!(self.v6 || checksum(&[bytes]) == 0, "a bad checksum from {from}");
            if kinds.contains(&bytes[0]) {
                let rest = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
                let content = bytes[8..].to_vec();
                return Ok(Some(IcmpMessage { from: from.ip(), kind: bytes[0], code: bytes[1], rest, content }));
            }
        }
    }
}

impl IcmpMessage {
    /// Types of errors.
    #[must_use]
    pub fn errors(v6: bool) -> &'static [u8] {
        if v6 { &[1, 2, 3, 4] } else { &[3, 11, 12] }
    }

    /// Asserts that it quotes this packet: every byte as it was sent, but for the hop limit; checksums right.
    ///
    /// # Errors
    /// It does not.
    pub fn quotes(&self, sent: &[u8]) -> Result<()> {
        let quoted = strip_hops(&self.content)?;
        let expected = strip_hops(sent)?;
        let length = quoted.len().min(expected.len());
        ensure!(length >= 28, "{length} bytes are too few");
        if quoted[..length] != expected[..length] {
            bail!("quotes\n{quoted:02x?}, sent was\n{expected:02x?}");
        }
        ensure!(quoted.len() <= expected.len(), "quotes more than was sent");
        if self.content.first().is_some_and(|byte| byte >> 4 == 4) {
            ensure!(checksum(&[&self.content[..20]]) == 0, "bad checksum in the quoted IPv4 header");
        }
        Ok(())
    }

    /// Asserts that the checksum of layer 4 in the quoted packet, which must be whole, is right.
    ///
    /// # Errors
    /// It is not.
    pub fn quotes_intact(&self) -> Result<()> {
        let packet = &self.content;
        let address4 =
            |at: usize| IpAddr::V4(Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]));
        let address6 = |at: usize| -> Result<IpAddr> {
            let octets: [u8; 16] = packet[at..at + 16].try_into()?;
            Ok(IpAddr::V6(Ipv6Addr::from(octets)))
        };
        ensure!(packet.len() >= 28, "{} bytes are too few", packet.len());
        let (header, protocol, source, destination) = if packet[0] >> 4 == 4 {
            (20, packet[9], address4(12), address4(16))
        } else {
            ensure!(packet.len() >= 48, "{} bytes are too few", packet.len());
            (40, packet[6], address6(8)?, address6(24)?)
        };
        let body = &packet[header..];
        let pseudo = if protocol == 1 {
            Vec::new()
        } else {
            pseudo_header(source, destination, protocol, u16::try_from(body.len())?)
        };
        ensure!(checksum(&[&pseudo, body]) == 0, "bad checksum in the quoted packet: {packet:02x?}");
        Ok(())
    }
}

/// Without what every hop changes: TTL and header checksum, or hop limit.
fn strip_hops(packet: &[u8]) -> Result<Vec<u8>> {
    let mut packet = packet.to_vec();
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => {
            packet[8] = 0;
            packet[10..12].fill(0);
        }
        Some(6) if packet.len() >= 40 => packet[7] = 0,
        _ => bail!("neither IPv4 nor IPv6: {packet:02x?}"),
    }
    Ok(packet)
}
