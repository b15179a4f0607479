//! What the device should be, what it is, and where the two differ. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

/// Packets that wait for a queue to be read: a full one holds two seconds of a gigabit in super-packets, and 20 ms of it
/// in single packets. The kernel's own default is 500.
pub(super) const TX_QUEUE_LEN: u32 = 2000;

/// What somebody else may change about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Change {
    /// It was set down.
    Down,
    /// Its MTU.
    Mtu,
    /// The length of its queue.
    QueueLength,
    /// IPv4 forwarding, which the route lookups of the programs need.
    Forwarding,
    /// An address, or what the kernel routes to it.
    Address,
    /// A route into the device.
    Route,
}

impl Change {
    /// All of them, in index order.
    pub const ALL: [Self; 6] = [Self::Down, Self::Mtu, Self::QueueLength, Self::Forwarding, Self::Address, Self::Route];

    /// Label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Mtu => "mtu",
            Self::QueueLength => "queue_length",
            Self::Forwarding => "forwarding",
            Self::Address => "address",
            Self::Route => "route",
        }
    }
}

/// One difference between the device and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// Of which kind.
    pub change: Change,
    /// For people, such as "the address 100.64.0.1/16 is missing".
    pub what: String,
}

/// What the device should be. Addresses and routes are those that the kernel has taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) mtu: u32,
    pub(super) addresses: Vec<IpNet>,
    pub(super) routes: Vec<IpNet>,
}

/// What the device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) up: bool,
    pub(super) mtu: u32,
    pub(super) queue_length: u32,
    pub(super) forwarding: bool,
    pub(super) addresses: Vec<IpNet>,
    /// Destinations in the main table.
    pub(super) routes: Vec<IpNet>,
    /// Own addresses in the local table: without its entry an address receives nothing.
    pub(super) local: Vec<IpAddr>,
}

impl Wanted {
    /// Networks that the kernel routes into the device because of its addresses, each with the first address in it.
    pub(super) fn connected(&self) -> Vec<IpNet> {
        let mut connected: Vec<IpNet> = Vec::new();
        for net in self.addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len()) {
            if !connected.iter().any(|other| other.trunc() == net.trunc()) {
                connected.push(*net);
            }
        }
        connected
    }

    /// Whether an IPv6 address lacks its local route: the kernel adds that a moment after the address.
    pub(super) fn may_be_on_its_way(&self, seen: &Seen) -> bool {
        let lacks = |net: &IpNet| seen.addresses.contains(net) && !seen.local.contains(&net.addr());
        seen.up && self.addresses.iter().any(|net| matches!(net, IpNet::V6(_)) && lacks(net))
    }

    /// Where `seen` differs. What there is beyond what is wanted belongs to somebody else and does no harm.
    pub(super) fn deviations(&self, seen: &Seen) -> Vec<Deviation> {
        let mut found = Vec::new();
        let mut add = |change, what: String| found.push(Deviation { change, what });
        if !seen.up {
            add(Change::Down, "it is down".to_owned());
        }
        if seen.mtu != self.mtu {
            add(Change::Mtu, format!("its MTU is {} instead of {}", seen.mtu, self.mtu));
        }
        if seen.queue_length != TX_QUEUE_LEN {
            let length = seen.queue_length;
            add(Change::QueueLength, format!("the length of its queue is {length} instead of {TX_QUEUE_LEN}"));
        }
        if !seen.forwarding {
            add(Change::Forwarding, "IPv4 forwarding is off".to_owned());
        }
        for net in &self.addresses {
            if !seen.addresses.contains(net) {
                add(Change::Address, format!("the address {net} is missing"));
            } else if seen.up && !seen.local.contains(&net.addr()) {
                add(Change::Address, format!("the local route to {} is missing", net.addr()));
            }
        }
        let connected = self.connected();
        // A missing address explains its network's route, and a device that is down has none.
        let routed = connected.iter().filter(|net| seen.addresses.contains(net)).map(IpNet::trunc);
        for net in routed.chain(self.routes.iter().copied()).filter(|net| seen.up && !seen.routes.contains(net)) {
            add(Change::Route, format!("the route to {net} is missing"));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn wanted() -> Wanted {
        Wanted {
            mtu: 1420,
            addresses: ["100.64.0.1/16", "100.64.0.7/16", "fd64::1/64", "fd65::1/128"].map(net).into(),
            routes: vec![net("10.9.0.0/24")],
        }
    }

    fn right() -> Seen {
        let addresses = wanted().addresses;
        Seen {
            up: true,
            mtu: 1420,
            queue_length: TX_QUEUE_LEN,
            forwarding: true,
            local: addresses.iter().map(IpNet::addr).collect(),
            addresses,
            routes: ["100.64.0.0/16", "fd64::/64", "10.9.0.0/24", "10.99.0.0/24"].map(net).into(),
        }
    }

    /// What is different, of which kind that is, and how it is named.
    type Case = (fn(&mut Seen), Change, &'static str);

    #[test]
    fn each_change_is_found_and_named() {
        assert_eq!(wanted().deviations(&right()), [], "a route of somebody else's is none of our business");
        let cases: [Case; 8] = [
            (|seen| seen.mtu = 1280, Change::Mtu, "its MTU is 1280 instead of 1420"),
            (|seen| seen.queue_length = 500, Change::QueueLength, "the length of its queue is 500 instead of 2000"),
            (|seen| seen.forwarding = false, Change::Forwarding, "IPv4 forwarding is off"),
            (|seen| _ = seen.addresses.pop(), Change::Address, "the address fd65::1/128 is missing"),
            (|seen| _ = seen.local.remove(0), Change::Address, "the local route to 100.64.0.1 is missing"),
            (|seen| _ = seen.routes.remove(0), Change::Route, "the route to 100.64.0.0/16 is missing"),
            (|seen| _ = seen.routes.remove(1), Change::Route, "the route to fd64::/64 is missing"),
            (|seen| _ = seen.routes.remove(2), Change::Route, "the route to 10.9.0.0/24 is missing"),
        ];
        for (change, kind, what) in cases {
            let mut seen = right();
            change(&mut seen);
            assert_eq!(wanted().deviations(&seen), [Deviation { change: kind, what: what.to_owned() }]);
        }
    }

    #[test]
    fn a_device_that_is_down_has_no_routes_and_that_is_no_finding_of_its_own() {
        let down = Seen { up: false, routes: Vec::new(), local: Vec::new(), ..right() };
        assert_eq!(wanted().deviations(&down), [Deviation { change: Change::Down, what: "it is down".to_owned() }]);
    }

    #[test]
    fn each_network_of_addresses_is_connected_once_and_a_single_address_is_none() {
        assert_eq!(wanted().connected(), ["100.64.0.1/16", "fd64::1/64"].map(net));
    }
}
