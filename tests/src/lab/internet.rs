//! What lies between the parties of a mesh: one wire, with the servers at it.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Result;

use super::addresses::{SERVERS, at_servers};
use super::link::{End, add_address, wire};
use super::namespace::Namespace;
use super::traffic::wait_for;

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
        namespace.exec("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
        add_address(&namespace, BRIDGE, SERVERS, 24)?;
        namespace.exec("ip", &["link", "set", BRIDGE, "up"])?;
        Ok(Self { namespace })
    }

    /// Wires a party to it.
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
        move || {
            let mut bound = Err(ErrorKind::AddrInUse.into());
            // The one before is closed, and lives on in children of other threads until they are other programs.
            wait_for(Duration::from_secs(5), || {
                bound = namespace.enter(|| TcpListener::bind(SocketAddr::new(SERVERS, port)));
                !bound.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
            });
            bound
        }
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
