//! Model of a network address translator (terms of RFC 4787).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use rand::RngExt as _;
use rand::rngs::StdRng;

/// What may come in through a mapping, and whether each destination gets its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Behaviour {
    EndpointIndependent,
    AddressRestricted,
    PortRestricted,
    Symmetric,
    Blocked,
}

#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) outside: IpAddr,
    /// Number of the realm that `outside` belongs to.
    pub(crate) outer: usize,
    pub(crate) hairpin: bool,
    behaviour: Behaviour,
    mappings: HashMap<(SocketAddr, Option<SocketAddr>), u16>,
    owners: HashMap<u16, SocketAddr>,
    /// Where each mapping has sent to.
    permitted: HashSet<(u16, SocketAddr)>,
}

impl Nat {
    pub(crate) fn new(behaviour: Behaviour, outside: IpAddr, outer: usize, hairpin: bool) -> Self {
        let (mappings, owners, permitted) = Default::default();
        Self { outside, outer, hairpin, behaviour, mappings, owners, permitted }
    }

    /// The source that the destination sees.
    pub(crate) fn outbound(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        rng: &mut StdRng,
    ) -> Option<SocketAddr> {
        let each = match self.behaviour {
            Behaviour::Blocked => return None,
            Behaviour::Symmetric => Some(destination),
            _ => None,
        };
        let owners = &mut self.owners;
        let port = *self.mappings.entry((source, each)).or_insert_with(|| {
            loop {
                let port = rng.random_range(20_000..50_000);
                if owners.insert(port, source).is_none() {
                    return port;
                }
            }
        });
        self.permitted.insert((port, destination));
        Some(SocketAddr::new(self.outside, port))
    }

    /// The inner destination of what comes to `port`.
    pub(crate) fn inbound(&self, source: SocketAddr, port: u16) -> Option<SocketAddr> {
        let inner = *self.owners.get(&port)?;
        let permitted = match self.behaviour {
            Behaviour::EndpointIndependent => true,
            Behaviour::AddressRestricted => self.permitted.iter().any(|(of, to)| *of == port && to.ip() == source.ip()),
            _ => self.permitted.contains(&(port, source)),
        };
        permitted.then_some(inner)
    }

    /// Forgets every mapping, as after a restart.
    pub(crate) fn forget(&mut self) {
        self.mappings.clear();
        self.owners.clear();
        self.permitted.clear();
    }
}
