//! Addresses of the node itself: rules for traffic to the node speak of them.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _};
use peer_dataplane::kernel::{Change, Netlink, Questions, Snapshot, changes};

use super::super::direct::interfaces::{self, Candidates};
use super::Agent;

/// A node with pods changes all the time: what comes within this is one change.
const SETTLE: Duration = Duration::from_millis(500);

/// Servers that are remembered, the newest first.
const SERVERS: usize = 16;

/// Looks at the node's addresses and hears when to look again.
pub(super) struct Local {
    netlink: Netlink,
    changes: Pin<Box<dyn Stream<Item = Change> + Send>>,
    due: Option<Instant>,
    pub(super) addresses: Vec<IpAddr>,
    /// Those of them that peers may connect to.
    pub(super) candidates: Candidates,
    /// How those are chosen; `None`: there are none.
    choice: Option<interfaces::Choice>,
    servers: Vec<IpAddr>,
}

impl Local {
    /// Within a tokio runtime only.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub(super) fn open(choice: Option<interfaces::Choice>) -> anyhow::Result<Self> {
        let netlink = Netlink::connect().context("open a netlink socket")?;
        let changes = Box::pin(changes().context("listen to changes of the network")?);
        let (addresses, candidates, servers) = (Vec::new(), Candidates::default(), Vec::new());
        Ok(Self { netlink, changes, due: Some(Instant::now()), addresses, candidates, choice, servers })
    }

    /// One more of the servers that the daemon talks to: the device that leads to it may lead to peers.
    pub(super) fn add_server(&mut self, server: IpAddr) {
        let server = server.to_canonical();
        if !server.is_loopback() && !self.servers.contains(&server) {
            // Who knows so many servers knows their devices.
            self.servers.truncate(SERVERS - 1);
            self.servers.insert(0, server);
            self.due = Some(Instant::now());
        }
    }

    /// Waits until something has changed.
    pub(super) async fn changed(&mut self) {
        match self.changes.next().await {
            // Of a node's routes there are many, and only the default ones choose devices.
            Some(Change::Route(net)) if net.prefix_len() > 0 => {}
            Some(Change::Neighbour(_)) => {}
            Some(_) => self.due = self.due.or_else(|| Some(Instant::now() + SETTLE)),
            None => std::future::pending().await,
        }
    }

    /// When [`Self::look`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Looks, if it is due, and leaves out the device `except`.
    pub(super) async fn look(&mut self, now: Instant, except: &str) -> Looked {
        if self.due.is_none_or(|due| due > now) {
            return Looked::default();
        }
        self.due = None;
        let questions = self.choice.as_ref().map_or_else(Questions::default, |_| interfaces::questions(&self.servers));
        match self.netlink.snapshot(&questions).await {
            Ok(snapshot) => {
                let addresses = of(&snapshot, except);
                let choice = self.choice.as_ref();
                let candidates =
                    choice.map_or_else(Candidates::default, |choice| interfaces::candidates(&snapshot, choice, except));
                let addresses = std::mem::replace(&mut self.addresses, addresses) != self.addresses;
                let candidates = std::mem::replace(&mut self.candidates, candidates) != self.candidates;
                Looked { addresses, candidates }
            }
            Err(error) => {
                tracing::warn!(%error, "the node's addresses are not known");
                Looked::default()
            }
        }
    }
}

/// What is not as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) addresses: bool,
    pub(super) candidates: bool,
}

impl Agent<'_> {
    /// Goes by changes of the node's addresses.
    pub(super) async fn look_at_addresses(&mut self, now: Instant) -> anyhow::Result<()> {
        let looked = self.local.look(now, &self.settings.interface_name).await;
        if looked.candidates {
            self.set_local_candidates();
        }
        if looked.addresses && self.node.is_some() {
            self.put_in_force(None, now).await?;
        }
        Ok(())
    }
}

fn of(snapshot: &Snapshot, except: &str) -> Vec<IpAddr> {
    let links = snapshot.links.values().filter(|link| !link.loopback && link.name != except);
    let nets = links.flat_map(|link| &link.addresses).map(|address| address.net.addr());
    // Nobody in the mesh can name these.
    let named = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    };
    let mut addresses: Vec<_> = nets.filter(named).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use peer_dataplane::kernel::{Address, Link};

    use super::*;

    #[test]
    fn addresses_are_those_that_others_can_name() {
        let link = |name: &str, loopback: bool, nets: &[&str]| Link {
            name: name.to_owned(),
            mtu: 1500,
            ethernet: !loopback,
            loopback,
            addresses: nets.iter().map(|net| Address { net: net.parse().expect("a prefix"), usable: true }).collect(),
            ..Link::default()
        };
        let links = [
            (1, link("lo", true, &["127.0.0.1/8", "10.0.0.53/32"])),
            (2, link("eth0", false, &["192.0.2.7/24", "2001:db8::7/64", "fe80::1/64"])),
            (3, link("eth1", false, &["192.0.2.7/24", "169.254.1.1/16"])),
            (4, link("wt0", false, &["100.64.0.7/16"])),
        ];
        let snapshot = Snapshot { links: links.into(), ..Snapshot::default() };
        let addresses = of(&snapshot, "wt0").iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(addresses, ["192.0.2.7", "2001:db8::7"]);
    }
}
