//! Bridges to which parties are wired: the internet's, and those inside NAT boxes.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use std::time::Duration;

use anyhow::{Result, ensure};

use super::addresses::{OTHER_SERVERS6, SERVERS6, at_servers, at_servers6};
use super::link::{End, sysctl, wire};
use super::namespace::Namespace;
use super::traffic::wait_for;

/// Of every bridge: no two are at one wire. Locally administered.
const LINK_ADDRESS: &str = "02:00:5e:00:53:01";
/// Neighbours may take so long to find each other.
const LIMIT: Duration = Duration::from_secs(5);
/// Time between questions for a neighbour, milliseconds.
const RETRANSMISSION: &str = "50";
/// Time between datagrams.
const TICK: Duration = Duration::from_millis(20);
/// RFC 863.
const DISCARD: u16 = 9;

/// The router inside an IPv6-only network, as seen by those in it.
pub(crate) const ROUTER6: &str = "fe80::1";

/// Where parties are wired to, with the addresses that they get.
#[derive(Clone)]
pub struct Wire {
    /// Where the bridge is.
    pub namespace: Namespace,
    bridge: String,
    addresses: Addresses,
}

#[derive(Clone, Copy)]
enum Addresses {
    /// Both families, without a router: all are neighbours.
    Internet,
    /// The same, IPv4 only.
    Internet4,
    /// The same, IPv6 only.
    Internet6,
    /// Private IPv4 addresses behind a NAT: the first three octets.
    Private([u8; 3]),
    /// IPv6 addresses of the internet's network behind a router, which has this number.
    Behind6(u8),
}

impl Wire {
    /// Makes a bridge. Its link address stays the same: by default it is that of a port, and changes when the port goes,
    /// while neighbours still send to the one before. It floods multicast: a snooping bridge that is new loses some.
    pub(crate) fn lay(namespace: &Namespace, bridge: &str) -> Result<()> {
        let arguments = ["link", "add", bridge, "address", LINK_ADDRESS, "type", "bridge", "mcast_snooping", "0"];
        namespace.exec("ip", &arguments)?;
        Ok(())
    }

    pub(crate) fn of_internet(namespace: &Namespace, bridge: &str) -> Self {
        Self { namespace: namespace.clone(), bridge: bridge.to_owned(), addresses: Addresses::Internet }
    }

    pub(crate) fn private(namespace: &Namespace, bridge: &str, network: [u8; 3]) -> Self {
        Self { namespace: namespace.clone(), bridge: bridge.to_owned(), addresses: Addresses::Private(network) }
    }

    pub(crate) fn behind6(namespace: &Namespace, bridge: &str, number: u8) -> Self {
        Self { namespace: namespace.clone(), bridge: bridge.to_owned(), addresses: Addresses::Behind6(number) }
    }

    /// The same wire; parties get IPv4 addresses only.
    #[must_use]
    pub fn only_v4(&self) -> Self {
        self.restricted(Addresses::Internet4)
    }

    /// The same wire; parties get IPv6 addresses only.
    #[must_use]
    pub fn only_v6(&self) -> Self {
        self.restricted(Addresses::Internet6)
    }

    /// Wires a party to it and returns the party's addresses. Behind a router, the party gets a default route. `number`
    /// is the party's own at this wire, from 2 on: a router has 1.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn attach(&self, party: &Namespace, device: &str, number: u8) -> Result<Vec<IpAddr>> {
        let port = format!("port{number}");
        let addresses = self.addresses_of(number);
        wire(
            &End { namespace: &self.namespace, device: &port, addresses: &[] },
            &End { namespace: party, device, addresses: &addresses },
        )?;
        self.namespace.exec("ip", &["link", "set", &port, "master", &self.bridge])?;
        match self.addresses {
            Addresses::Private([a, b, c]) => {
                party.exec("ip", &["route", "add", "default", "via", &format!("{a}.{b}.{c}.1"), "dev", device])?;
            }
            Addresses::Behind6(_) => {
                party.exec("ip", &["-6", "route", "add", "default", "via", ROUTER6, "dev", device])?;
                for (address, _) in &addresses {
                    // To its neighbours outside, the router answers for those inside.
                    let address = address.to_string();
                    self.namespace.exec("ip", &["-6", "neigh", "add", "proxy", &address, "dev", "eth0"])?;
                }
            }
            Addresses::Internet | Addresses::Internet4 | Addresses::Internet6 => {}
        }
        // A bridge notices its first port some time later; until then, it sends nothing of its own.
        let state = format!("/sys/class/net/{}/operstate", self.bridge);
        let up = || self.namespace.read(&state).is_ok_and(|state| state.trim() == "up");
        ensure!(wait_for(LIMIT, up), "{}: {} has no carrier", self.namespace.name(), self.bridge);
        self.await_neighbours(party, device)?;
        Ok(addresses.into_iter().map(|(address, _)| address).collect())
    }

    /// Lets a party ask the servers by IPv6 until they answer: then everybody on the path knows its neighbours. The first
    /// question after a bridge got a port can be lost, and the kernel asks again after a second only.
    fn await_neighbours(&self, party: &Namespace, device: &str) -> Result<()> {
        let outside = match self.addresses {
            Addresses::Internet | Addresses::Internet6 => None,
            Addresses::Behind6(_) => Some((&self.namespace, "eth0")),
            Addresses::Internet4 | Addresses::Private(_) => return Ok(()),
        };
        for (space, device) in [(party, device)].into_iter().chain(outside) {
            sysctl(space, &format!("net/ipv6/neigh/{device}/retrans_time_ms"), RETRANSMISSION)?;
        }
        sysctl(&self.namespace, &format!("net/ipv6/neigh/{}/retrans_time_ms", self.bridge), RETRANSMISSION)?;
        for server in [SERVERS6, OTHER_SERVERS6] {
            let socket = party.enter(|| {
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
                socket.connect((server, DISCARD))?;
                io::Result::Ok(socket)
            })?;
            socket.set_read_timeout(Some(TICK))?;
            // Nobody is at the port: the error that says so has come all the way back.
            let answered = wait_for(LIMIT, || {
                let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
                socket.send(&[]).is_err_and(refused) || socket.recv(&mut [0]).is_err_and(refused)
            });
            ensure!(answered, "{}: {server} is not found", party.name());
        }
        Ok(())
    }

    fn restricted(&self, to: Addresses) -> Self {
        let addresses = if matches!(self.addresses, Addresses::Internet) { to } else { self.addresses };
        Self { addresses, ..self.clone() }
    }

    fn addresses_of(&self, number: u8) -> Vec<(IpAddr, u8)> {
        match self.addresses {
            Addresses::Internet => vec![(at_servers(number), 24), (at_servers6(number), 64)],
            Addresses::Internet4 => vec![(at_servers(number), 24)],
            Addresses::Internet6 => vec![(at_servers6(number), 64)],
            Addresses::Private([a, b, c]) => vec![(Ipv4Addr::new(a, b, c, number).into(), 24)],
            Addresses::Behind6(router) => vec![(inside6(router, number), 128)],
        }
    }
}

/// An address behind a router of IPv6.
pub(crate) fn inside6(router: u8, number: u8) -> IpAddr {
    let last = u16::from_be_bytes([router, number]);
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, last))
}
