//! What peers tell each other through the signal server.

use std::net::IpAddr;

pub use peer_ice::Credentials;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "This is how I can be reached; and you?"
    Offer(Offer),
    /// The reply to an offer.
    Answer(Offer),
    /// An ICE candidate, as text.
    Candidate(String),
    /// The sender has nothing to say any more and closes its side.
    GoIdle,
}

/// How the sender can be reached. Offers and answers say the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// ICE credentials; `None`: the sender does without ICE.
    pub credentials: Option<Credentials>,
    /// The sender's ICE session.
    pub session: Option<Session>,
    /// UDP port of the sender's WireGuard.
    pub wireguard_port: u16,
    /// Version of the sender's client.
    pub version: String,
    /// The sender's home relay; `None`: it is not connected to one.
    pub relay: Option<RelayServer>,
}

/// Id of an ICE session: another one for each agent of the sender.
pub type Session = [u8; 5];

/// A relay server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayServer {
    /// Its instance URL, `rel://host:port` or `rels://host:port`.
    pub url: String,
    /// The address it was reached at, for those who cannot resolve its name.
    pub address: Option<IpAddr>,
}
