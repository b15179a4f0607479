//! What peers tell each other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prost::Message as _;

use crate::proto::signal::{Body, body};

/// WireGuard port of a peer that names none.
const DEFAULT_LISTEN_PORT: u16 = 51820;
/// Longest text taken over, bytes: a candidate has about 200, a relay's URL rarely more.
const MAX_TEXT: usize = 1024;

/// A message between two peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Here is how I can be reached; answer.
    Offer(Description),
    /// Here is how I can be reached.
    Answer(Description),
    /// An ICE candidate, as text.
    Candidate(String),
    /// The sender has stopped its connection for want of traffic.
    GoIdle,
    /// A peer's message to itself: the way through the server works.
    Heartbeat,
    /// Of old clients; means nothing any more.
    Mode,
}

/// How a peer can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// For ICE; `None`: the sender has none, only the relay is left.
    pub ice: Option<IceCredentials>,
    /// UDP port of the sender's WireGuard.
    pub listen_port: u16,
    /// Version of the sender's software.
    pub version: String,
    /// Changes with the sender's ICE agent.
    pub session: Option<SessionId>,
    /// URL of the sender's home relay, if it is connected to one.
    pub relay: Option<String>,
    /// Address behind that URL, where the sender knows it.
    pub relay_ip: Option<IpAddr>,
}

/// User name fragment and password of an ICE agent (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Id of an ICE session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 5]);

/// A body that is no message we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not protobuf.
    #[error("not a signal message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Of a newer client.
    #[error("signal message of the unknown type {0}")]
    UnknownType(i32),
    /// An offer's or answer's payload is not `ufrag:password`.
    #[error("an offer's or answer's payload must be UFRAG:PASSWORD with one colon")]
    Payload,
    /// A text is longer than anything needs.
    #[error("{field} of {length} bytes; {MAX_TEXT} are the limit")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its length, bytes.
        length: usize,
    },
}

impl Message {
    /// Decodes an opened body. Optional fields of a wrong length count as absent.
    ///
    /// # Errors
    ///
    /// When it is no message we know.
    pub fn decode(plaintext: &[u8]) -> Result<Self, MessageError> {
        let body = Body::decode(plaintext)?;
        let kind = body::Type::try_from(body.r#type).map_err(|_| MessageError::UnknownType(body.r#type))?;
        Ok(match kind {
            body::Type::Offer => Self::Offer(Description::of(body)?),
            body::Type::Answer => Self::Answer(Description::of(body)?),
            body::Type::Candidate => Self::Candidate(short("candidate", body.payload)?),
            body::Type::Mode => Self::Mode,
            body::Type::GoIdle => Self::GoIdle,
            body::Type::Heartbeat => Self::Heartbeat,
        })
    }

    /// As the body to seal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = match self {
            Self::Offer(description) => description.body(body::Type::Offer),
            Self::Answer(description) => description.body(body::Type::Answer),
            Self::Candidate(text) => Body { payload: text.clone(), ..of_type(body::Type::Candidate) },
            Self::Mode => of_type(body::Type::Mode),
            Self::GoIdle => of_type(body::Type::GoIdle),
            Self::Heartbeat => of_type(body::Type::Heartbeat),
        };
        body.encode_to_vec()
    }
}

impl Description {
    fn of(body: Body) -> Result<Self, MessageError> {
        let (ufrag, password) = body.payload.split_once(':').ok_or(MessageError::Payload)?;
        if password.contains(':') {
            return Err(MessageError::Payload);
        }
        let ice = if ufrag.is_empty() || password.is_empty() {
            None
        } else {
            Some(IceCredentials {
                ufrag: short("ufrag", ufrag.to_owned())?,
                password: short("password", password.to_owned())?,
            })
        };
        Ok(Self {
            ice,
            listen_port: u16::try_from(body.wg_listen_port)
                .ok()
                .filter(|port| *port != 0)
                .unwrap_or(DEFAULT_LISTEN_PORT),
            version: short("version", body.net_bird_version)?,
            session: body.session_id.and_then(|id| id.try_into().ok()).map(SessionId),
            relay: match body.relay_server_address.filter(|url| !url.is_empty()) {
                Some(url) => Some(short("relay", url)?),
                None => None,
            },
            relay_ip: body.relay_server_ip.and_then(|bytes| address(&bytes)),
        })
    }

    fn body(&self, kind: body::Type) -> Body {
        let (ufrag, password) = self.ice.as_ref().map_or(("", ""), |ice| (&ice.ufrag, &ice.password));
        Body {
            payload: format!("{ufrag}:{password}"),
            wg_listen_port: self.listen_port.into(),
            net_bird_version: self.version.clone(),
            session_id: self.session.map(|id| id.0.to_vec()),
            relay_server_address: self.relay.clone(),
            relay_server_ip: self.relay_ip.map(|ip| match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            }),
            ..of_type(kind)
        }
    }
}

fn of_type(kind: body::Type) -> Body {
    Body { r#type: kind.into(), ..Body::default() }
}

fn short(field: &'static str, text: String) -> Result<String, MessageError> {
    if text.len() > MAX_TEXT { Err(MessageError::TooLong { field, length: text.len() }) } else { Ok(text) }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).to_canonical())
}

#[cfg(test)]
mod tests;
