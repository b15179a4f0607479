//! What lies between the parties of a mesh: one wire, with the servers at it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::Result;
use peer_test_control::{StunServer, TurnServer};

use super::addresses::{OTHER_SERVERS, OTHER_SERVERS6, SERVERS, SERVERS6, at_servers};
use super::link::{End, add_address, wire};
use super::namespace::Namespace;
use super::traffic::wait_for;
use super::wire::Wire;

const BRIDGE: &str = "hub";

/// A namespace with a bridge to which parties are wired.
#[derive(Clone)]
pub struct Internet {
    /// Where servers run.
    pub namespace: Namespace,
}

impl Internet {
    /// Lays it.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn new() -> Result<Self> {
        let namespace = Namespace::new("internet")?;
        Wire::lay(&namespace, BRIDGE)?;
        for (address, length) in [(SERVERS, 24), (OTHER_SERVERS, 24), (SERVERS6, 64), (OTHER_SERVERS6, 64)] {
            add_address(&namespace, BRIDGE, address, length)?;
        }
        namespace.exec("ip", &["link", "set", BRIDGE, "up"])?;
        Ok(Self { namespace })
    }

    /// The wire itself, where parties get addresses of both families, and NAT boxes go in between.
    #[must_use]
    pub fn wire(&self) -> Wire {
        Wire::of_internet(&self.namespace, BRIDGE)
    }

    /// Wires a party to it, with an IPv4 address only.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn attach(&self, party: &Namespace, device: &str, number: u8) -> Result<()> {
        let port = format!("port{number}");
        wire(
            &End { namespace: &self.namespace, device: &port, addresses: &[] },
            &End { namespace: party, device, addresses: &[(at_servers(number), 24)] },
        )?;
        self.namespace.exec("ip", &["link", "set", &port, "master", BRIDGE])?;
        Ok(())
    }

    /// Drops what parties send each other by UDP to this port, until it is lifted; the servers are still reached.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn block_udp(&self, port: u16) -> Result<Blocked> {
        self.namespace.exec("nft", &["add", "table", "bridge", "block"])?;
        let blocked = Blocked { namespace: self.namespace.clone() };
        let chain = "{ type filter hook forward priority 0; }";
        self.namespace.exec("nft", &["add", "chain", "bridge", "block", "parties", chain])?;
        let port = port.to_string();
        self.namespace.exec("nft", &["add", "rule", "bridge", "block", "parties", "udp", "dport", &port, "drop"])?;
        Ok(blocked)
    }

    /// Opens a listening socket here, again and again if need be.
    pub fn listener(&self, port: u16) -> impl Fn() -> io::Result<TcpListener> + Send + Sync + 'static {
        let namespace = self.namespace.clone();
        move || bind_again(&namespace, || TcpListener::bind(SocketAddr::new(SERVERS, port)))
    }

    /// As [`Self::listener`], for both families.
    pub fn dual_listener(&self, port: u16) -> impl Fn() -> io::Result<TcpListener> + Send + Sync + 'static {
        let namespace = self.namespace.clone();
        move || bind_again(&namespace, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
    }

    /// Starts a STUN server at one of the servers' addresses.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn stun_server(&self, at: SocketAddr) -> Result<StunServer> {
        let namespace = self.namespace.clone();
        StunServer::start(move || bind_again(&namespace, || UdpSocket::bind(at)))
    }

    /// Starts a TURN server at one of the servers' addresses, whose relayed addresses are on `relays`, at most one for
    /// each family.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn turn_server(&self, at: SocketAddr, relays: &[IpAddr], secret: &str) -> Result<TurnServer> {
        let namespace = self.namespace.clone();
        TurnServer::start(at, relays, secret, move |at| bind_again(&namespace, || UdpSocket::bind(at)))
    }
}

/// Datagrams that are dropped on the way.
pub struct Blocked {
    namespace: Namespace,
}

impl Blocked {
    /// Lets them pass again.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn lift(self) -> Result<()> {
        self.namespace.exec("nft", &["delete", "table", "bridge", "block"])?;
        Ok(())
    }
}

fn bind_again<T: Send>(namespace: &Namespace, bind: impl Fn() -> io::Result<T> + Send + Sync) -> io::Result<T> {
    let mut bound = Err(ErrorKind::AddrInUse.into());
    // The one before is closed, and lives on in children of other threads until they are other programs.
    wait_for(Duration::from_secs(5), || {
        bound = namespace.enter(&bind);
        !bound.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
    });
    bound
}
