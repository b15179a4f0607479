//! Candidates as text: the payload of NetBird's CANDIDATE messages (RFC 8839, section 5.1, without `a=candidate:`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crc::{CRC_32_ISO_HDLC, Crc};

use crate::limits::CANDIDATE_TEXT;

#[cfg(test)]
mod tests;

static CRC_32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// How an address became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Address of an interface.
    Host,
    /// Mapping that a STUN server saw.
    ServerReflexive,
    /// Mapping that the other peer saw.
    PeerReflexive,
    /// Address of a TURN server.
    Relayed,
}

impl Kind {
    /// As candidate text has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relayed => "relay",
        }
    }

    /// Type preference (RFC 8445, section 5.1.2.2).
    const fn preference(self) -> u32 {
        match self {
            Self::Host => 126,
            Self::ServerReflexive => 100,
            Self::PeerReflexive => 110,
            Self::Relayed => 0,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A UDP candidate of component 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Candidates with the same foundation fail together; opaque.
    pub foundation: String,
    /// The higher, the better.
    pub priority: u32,
    /// Transport address.
    pub address: SocketAddr,
    /// How it became known.
    pub kind: Kind,
    /// The address behind the mapping, as far as the sender shows it.
    pub related: Option<SocketAddr>,
    /// The sender's user name fragment.
    pub ufrag: Option<String>,
    /// The candidate's id, which clients before 0.56 do not have.
    pub cid: Option<String>,
}

/// Text that is no usable candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCandidateError {
    /// Longer than any candidate.
    #[error("the candidate is longer than {CANDIDATE_TEXT} bytes")]
    Length,
    /// Fewer fields than a candidate has.
    #[error("the candidate ends before its type")]
    Missing,
    /// Not component 1.
    #[error("the candidate's component is not 1")]
    Component,
    /// Not UDP.
    #[error("the candidate's transport is not UDP")]
    Transport,
    /// Priority that is no number of 32 bits.
    #[error("the candidate's priority is not a number")]
    Priority,
    /// Address or port that is none; a name, for example.
    #[error("the candidate's address or port is invalid")]
    Address,
    /// Unknown type.
    #[error("the candidate's type is unknown")]
    Kind,
}

impl Candidate {
    /// One with the usual foundation and priority, and without extensions.
    #[must_use]
    pub fn new(kind: Kind, address: SocketAddr, related: Option<SocketAddr>) -> Self {
        let foundation = foundation(kind, address.ip()).to_string();
        // RFC 8445, section 5.1.2.1; local preference 65535, component 1.
        let priority = kind.preference() << 24 | 0xffff << 8 | 255;
        Self { foundation, priority, address, kind, related, ufrag: None, cid: None }
    }

    /// The candidate that official clients derive from a received one: behind a mapping with another port there may be a static
    /// forwarding of the WireGuard port. Senders without `cid` send it themselves.
    #[must_use]
    pub fn static_forwarding(&self) -> Option<Self> {
        let port = self.related?.port();
        if self.kind != Kind::ServerReflexive || self.cid.is_none() || port == 0 || port == self.address.port() {
            return None;
        }
        Some(Self { address: SocketAddr::new(self.address.ip(), port), ..self.clone() })
    }
}

/// CRC-32 of type, address and network.
fn foundation(kind: Kind, ip: IpAddr) -> u32 {
    let network = if ip.is_ipv4() { "udp4" } else { "udp6" };
    CRC_32.checksum(format!("{kind}{ip}{network}").as_bytes())
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { foundation, priority, address, kind, .. } = self;
        write!(f, "{foundation} 1 udp {priority} {} {} typ {kind}", address.ip(), address.port())?;
        if let Some(related) = self.related {
            write!(f, " raddr {} rport {}", related.ip(), related.port())?;
        }
        for (key, value) in [("ufrag", &self.ufrag), ("cid", &self.cid)] {
            if let Some(value) = value {
                write!(f, " {key} {value}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Candidate {
    type Err = ParseCandidateError;

    /// Tolerates a prefix `candidate:` and unknown extensions.
    fn from_str(text: &str) -> Result<Self, ParseCandidateError> {
        use ParseCandidateError::{Address, Component, Kind as Type, Length, Missing, Priority, Transport};
        if text.len() > CANDIDATE_TEXT {
            return Err(Length);
        }
        let text = text.trim_start();
        let mut fields = text.strip_prefix("candidate:").unwrap_or(text).split_ascii_whitespace();
        let mut next = || fields.next().ok_or(Missing);
        let foundation = next()?.to_owned();
        if next()? != "1" {
            return Err(Component);
        }
        if !next()?.eq_ignore_ascii_case("udp") {
            return Err(Transport);
        }
        let priority = next()?.parse().map_err(|_| Priority)?;
        let ip = next()?.parse().map_err(|_| Address)?;
        let port = next()?.parse().map_err(|_| Address)?;
        if next()? != "typ" {
            return Err(Missing);
        }
        let kind = match next()? {
            "host" => Kind::Host,
            "srflx" => Kind::ServerReflexive,
            "prflx" => Kind::PeerReflexive,
            "relay" => Kind::Relayed,
            _ => return Err(Type),
        };
        let address = SocketAddr::new(ip, port);
        let (mut related_ip, mut related_port, mut ufrag, mut cid) = (None, None, None, None);
        while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
            match key {
                "raddr" => related_ip = value.parse().ok(),
                "rport" => related_port = value.parse().ok().filter(|port| *port != 0),
                "ufrag" => ufrag = Some(value.to_owned()),
                "cid" => cid = Some(value.to_owned()),
                _ => {}
            }
        }
        let related = related_ip.zip(related_port).map(|(ip, port)| SocketAddr::new(ip, port));
        Ok(Self { foundation, priority, address, kind, related, ufrag, cid })
    }
}
