//! What changes on the node, free of any netlink type.

use std::net::IpAddr;

use ipnet::IpNet;

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A neighbour came, moved or went.
    Neighbour(Neighbour),
    /// The way to a prefix.
    Route(IpNet),
    /// Links or addresses.
    Node,
    /// Rules: where any packet goes may differ now.
    Rules,
    /// The kernel had more to tell than fits: anything may have changed.
    Lost,
}

/// A neighbour as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface index of the link that it is on.
    pub link: u32,
    /// Its address.
    pub addr: IpAddr,
    /// What is known of its Ethernet address.
    pub hardware: Hardware,
}

/// What the kernel knows of a neighbour's Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// The address.
    At([u8; 6]),
    /// Nothing: nobody has asked.
    Unknown,
    /// It has asked, and waits for an answer.
    Asked,
    /// It has asked in vain.
    Failed,
}

/// Changes that came close together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Neighbours, in the order of what happened.
    pub neighbours: Vec<Neighbour>,
    /// Ways that may be others now.
    pub ways: Ways,
    /// Links, addresses or rules may differ.
    pub node: bool,
    /// Neighbours must be listed: changes were lost.
    pub lost: bool,
}

/// Which ways may be others now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ways {
    /// To these prefixes.
    To(Vec<IpNet>),
    /// All.
    All,
}

/// Prefixes that are kept one by one; with more of them, all ways may be others.
const MANY: usize = 64;

impl Default for Ways {
    fn default() -> Self {
        Self::To(Vec::new())
    }
}

impl Ways {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::To(prefixes) if prefixes.is_empty())
    }

    fn add(&mut self, prefix: IpNet) {
        if let Self::To(prefixes) = self
            && !prefixes.contains(&prefix)
        {
            prefixes.push(prefix);
            if prefixes.len() > MANY {
                *self = Self::All;
            }
        }
    }
}

impl Changes {
    /// Adds one.
    pub fn add(&mut self, change: Change) {
        match change {
            Change::Neighbour(neighbour) => self.neighbours.push(neighbour),
            Change::Route(prefix) => self.ways.add(prefix),
            // What a link or address means for ways follows from the node as it is then.
            Change::Node => self.node = true,
            Change::Rules => (self.node, self.ways) = (true, Ways::All),
            Change::Lost => (self.lost, self.node, self.ways) = (true, true, Ways::All),
        }
    }

    /// Whether more has changed than neighbours.
    #[must_use]
    pub fn beyond_neighbours(&self) -> bool {
        self.node || !self.ways.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(all: impl IntoIterator<Item = Change>) -> Changes {
        let mut changes = Changes::default();
        all.into_iter().for_each(|change| changes.add(change));
        changes
    }

    #[test]
    fn neighbours_alone_ask_for_no_look_at_the_node() {
        let neighbour = Neighbour { link: 3, addr: [192, 0, 2, 1].into(), hardware: Hardware::Unknown };
        let seen = changes([Change::Neighbour(neighbour), Change::Neighbour(neighbour)]);
        assert_eq!(seen.neighbours, [neighbour; 2]);
        assert!(!seen.beyond_neighbours() && !seen.lost);
    }

    #[test]
    fn ways_are_told_by_prefix_until_they_are_many() {
        let net = |third: u8| Change::Route(format!("10.9.{third}.0/24").parse().expect("a prefix"));
        let seen = changes([net(1), net(2), net(1)]);
        assert!(matches!(&seen.ways, Ways::To(prefixes) if prefixes.len() == 2) && seen.beyond_neighbours());
        assert_eq!(changes((0..=MANY as u8).map(net)).ways, Ways::All);
    }

    #[test]
    fn what_was_lost_may_be_anything() {
        let seen = changes([Change::Lost]);
        assert!(seen.lost && seen.beyond_neighbours());
        assert_eq!(seen.ways, Ways::All);
        assert!(changes([Change::Node]).beyond_neighbours() && changes([Change::Node]).ways.is_empty());
    }
}
