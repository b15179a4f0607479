//! Who may talk to whom.

use crate::proto::management::{RuleAction, RuleProtocol};

/// A policy with one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its id.
    pub id: String,
    /// Whether it holds.
    pub enabled: bool,
    /// What happens.
    pub action: Action,
    /// To which packets.
    pub protocol: Protocol,
    /// Whether destinations may begin, too.
    pub bidirectional: bool,
    /// Groups.
    pub sources: Vec<String>,
    /// Groups of peers and of resources.
    pub destinations: Vec<String>,
    /// Single ports.
    pub ports: Vec<u16>,
    /// Ranges; without effect beside single ports.
    pub ranges: Vec<(u16, u16)>,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Accept,
    /// It does not.
    Drop,
}

/// Protocols of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Every protocol.
    All,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and `ICMPv6`.
    Icmp,
    /// SSH to `NetBird`'s own server: 22 and 22022.
    NetbirdSsh,
}

impl Policy {
    /// For all ports and both directions.
    #[must_use]
    pub fn new(id: &str, action: Action, protocol: Protocol, sources: &[&str], destinations: &[&str]) -> Self {
        let owned = |groups: &[&str]| groups.iter().map(|&group| group.to_owned()).collect();
        Self {
            id: id.to_owned(),
            enabled: true,
            action,
            protocol,
            bidirectional: true,
            sources: owned(sources),
            destinations: owned(destinations),
            ports: Vec::new(),
            ranges: Vec::new(),
        }
    }

    /// The same for these ports, from sources to destinations only.
    #[must_use]
    pub fn on_ports(mut self, ports: &[u16]) -> Self {
        self.ports = ports.to_vec();
        self.bidirectional = false;
        self
    }
}

impl Action {
    pub(crate) fn as_proto(self) -> i32 {
        match self {
            Self::Accept => RuleAction::Accept,
            Self::Drop => RuleAction::Drop,
        }
        .into()
    }
}

impl Protocol {
    /// As route rules have it, where SSH keeps its own number.
    pub(crate) fn as_proto(self) -> RuleProtocol {
        match self {
            Self::All => RuleProtocol::All,
            Self::Tcp => RuleProtocol::Tcp,
            Self::Udp => RuleProtocol::Udp,
            Self::Icmp => RuleProtocol::Icmp,
            Self::NetbirdSsh => RuleProtocol::NetbirdSsh,
        }
    }

    pub(crate) fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}
