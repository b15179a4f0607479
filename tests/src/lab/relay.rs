//! A UDP relay between a client and the node: it sees the outer datagrams and can send them again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::namespace::Namespace;

const LOOK: Duration = Duration::from_millis(50);

/// Runs until dropped.
pub struct Relay {
    address: SocketAddr,
    node_side: UdpSocket,
    captured: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Starts one on the client's loopback.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub fn start(client: &Namespace, node: SocketAddr) -> Result<Self> {
        let any: IpAddr = if node.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let (client_side, node_side) = client
            .enter(|| {
                let client_side = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                let node_side = UdpSocket::bind((any, 0))?;
                node_side.connect(node)?;
                std::io::Result::Ok((client_side, node_side))
            })
            .context("relay")?;
        let mut relay = Self {
            address: client_side.local_addr()?,
            node_side,
            captured: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        relay.run(client_side)?;
        Ok(relay)
    }

    /// Where the client should send to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams from the client to the node, in order.
    #[must_use]
    pub fn captured(&self) -> Vec<Vec<u8>> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a datagram to the node as if it came from the client.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn send(&self, datagram: &[u8]) -> Result<()> {
        self.node_side.send(datagram)?;
        Ok(())
    }

    fn run(&mut self, client_side: UdpSocket) -> Result<()> {
        client_side.set_read_timeout(Some(LOOK))?;
        self.node_side.set_read_timeout(Some(LOOK))?;
        let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let (to_client, from_node) = (client_side.try_clone()?, self.node_side.try_clone()?);
        let (learned, stop) = (Arc::clone(&client), Arc::clone(&self.stop));
        self.threads.push(thread::spawn(move || {
            pump(&stop, |buffer| {
                let length = from_node.recv(buffer)?;
                let client = *learned.lock().unwrap_or_else(PoisonError::into_inner);
                client.map_or(Ok(0), |client| to_client.send_to(&buffer[..length], client))
            });
        }));
        let (to_node, captured, stop) =
            (self.node_side.try_clone()?, Arc::clone(&self.captured), Arc::clone(&self.stop));
        self.threads.push(thread::spawn(move || {
            pump(&stop, |buffer| {
                let (length, sender) = client_side.recv_from(buffer)?;
                *client.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
                captured.lock().unwrap_or_else(PoisonError::into_inner).push(buffer[..length].to_vec());
                to_node.send(&buffer[..length])
            });
        }));
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Calls `step` until told to stop. Timeouts end a step, and a datagram that cannot be sent on is lost, as on any wire.
fn pump(stop: &AtomicBool, mut step: impl FnMut(&mut [u8]) -> std::io::Result<usize>) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let _ = step(&mut buffer);
    }
}
