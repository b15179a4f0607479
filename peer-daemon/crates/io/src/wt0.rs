//! The mesh device: a persistent TUN with vnet headers and several queues.
//!
//! It outlives the daemon on purpose: a killed daemon leaves device, addresses, routes and whatever hangs on the device
//! in place, and the next one adopts it within milliseconds. Only [`Wt0::remove`] takes it away. Nothing here writes a
//! sysctl, and no device, address or route of anybody else is changed.

mod device;
mod network;
mod notices;
mod read;
mod state;
mod stats;

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use self::device::Device;
use self::network::Network;
pub use self::notices::Notices;
pub use self::state::{Change, Deviation};
use self::state::{Seen, Wanted};
pub use self::stats::{RepairCollector, RepairStats};
use crate::tun::{Offloads, TunQueue};
use crate::udp::{MAX_SEGMENTS, MESSAGES};
use crate::{Error, sys};

/// What the device shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wt0Config {
    /// Interface name.
    pub name: String,
    /// Bytes of the largest packet, from its IP header: 576 to 65535, and 1280 at least with IPv6 addresses.
    pub mtu: u16,
    /// Our own addresses, each with its network.
    pub addresses: Vec<IpNet>,
    /// Networks behind the device, beyond those of the addresses. No default routes.
    pub routes: Vec<IpNet>,
    /// Queues, one for each shard: 1 to 256.
    pub queues: usize,
    /// A device that an earlier life has left is taken over. Otherwise it is made anew, so that nothing hangs on it.
    pub adopt: bool,
}

/// A route that was not set, because the node already sends that network elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkippedRoute {
    /// The network.
    pub destination: IpNet,
    /// Index of the interface that has it; `None`: a blackhole, or several.
    pub interface: Option<u32>,
}

/// A device that is made or adopted and not set up yet: it has no address, and nobody else can have its name.
#[derive(Debug)]
pub struct Reserved {
    name: String,
    device: Device,
    network: Network,
}

impl Reserved {
    /// Makes the device, or adopts the one of that name that an earlier life left, unless it shall be made anew. In the network
    /// namespace of the calling thread; needs CAP_NET_ADMIN, /dev/net/tun and a tokio runtime.
    ///
    /// # Errors
    /// When the name belongs to a device that cannot be ours or is in use, or the kernel refuses something. A device that
    /// was made by this call is gone then.
    pub async fn open(name: &str, queues: usize, adopt: bool) -> Result<Self, Error> {
        check_name(name)?;
        in_range("the number of queues", queues, 1, MAX_QUEUES)?;
        let network = Network::connect()?;
        let device = Device::open(&network, name, queues, adopt).await?;
        Ok(Self { name: name.to_owned(), device, network })
    }

    /// Whether an earlier life made the device.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.device.adopted
    }

    /// Brings it in line with `config`, as [`Wt0::open`] does.
    ///
    /// # Errors
    /// As there, and when the configuration is for another device.
    pub async fn set_up(self, config: &Wt0Config) -> Result<Wt0, Error> {
        let Self { name, device, network } = self;
        let checked = if name == config.name { check(config) } else { Err(Error::Name { name: config.name.clone() }) };
        let set_up = match checked {
            Ok(()) => Wt0::set_up(config, &network, &device).await,
            Err(error) => Err(error),
        };
        match set_up {
            Ok(networks) => Wt0::assemble(config, device, network, networks),
            Err(error) => {
                device.abandon();
                Err(error)
            }
        }
    }

    /// Takes a device away that was made by [`Self::open`]; an adopted one stays.
    pub fn abandon(self) {
        self.device.abandon();
    }
}

/// An address that the kernel does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAddress {
    /// With its network.
    pub address: IpNet,
    /// The kernel's answer.
    pub why: String,
}

/// The open device. Dropping it leaves the device in place.
#[derive(Debug)]
pub struct Wt0 {
    name: String,
    index: u32,
    adopted: bool,
    offloads: Offloads,
    mtu: u16,
    networks: Networks,
    repairs: Arc<RepairStats>,
    queues: Vec<TunQueue>,
    /// Another descriptor of the first queue: for what is asked of the device after its queues went to their shards.
    control: OwnedFd,
    network: Network,
}

/// Addresses and routes that are wanted, and what the kernel does not take of them.
#[derive(Debug, Default)]
struct Networks {
    addresses: Vec<IpNet>,
    routes: Vec<IpNet>,
    refused: Vec<RefusedAddress>,
    skipped: Vec<SkippedRoute>,
}

impl Wt0 {
    /// Makes the device, or adopts the one of that name that an earlier life left; then brings its MTU, addresses, routes
    /// and IPv4 forwarding in line with `config`. What is right already is not touched, so that traffic on an adopted
    /// device goes on; addresses and routes of ours that are not wanted any more are removed. An address that the kernel
    /// does not take is left out ([`Wt0::refused_addresses`]). In the network namespace of the calling thread; needs
    /// CAP_NET_ADMIN, /dev/net/tun and a tokio runtime.
    ///
    /// # Errors
    /// When the name belongs to a device that cannot be ours or is in use, or the kernel refuses something. A device that
    /// was made by this call is gone then, an adopted one stays as it is.
    pub async fn open(config: &Wt0Config) -> Result<Self, Error> {
        check(config)?;
        Reserved::open(&config.name, config.queues, config.adopt).await?.set_up(config).await
    }

    /// Interface name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Interface index.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether an earlier life made the device.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// What the kernel leaves to us.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Routes that are not set, because the node sends those networks elsewhere.
    #[must_use]
    pub fn skipped_routes(&self) -> &[SkippedRoute] {
        &self.networks.skipped
    }

    /// Addresses that were asked for, taken or not.
    #[must_use]
    pub fn wanted_addresses(&self) -> &[IpNet] {
        &self.networks.addresses
    }

    /// Addresses that are not set, because the kernel does not take them. They are tried again by [`Wt0::put_back`] and
    /// [`Wt0::set_networks`].
    #[must_use]
    pub fn refused_addresses(&self) -> &[RefusedAddress] {
        &self.networks.refused
    }

    /// Counts what [`Wt0::put_back`] has put right.
    #[must_use]
    pub fn repairs(&self) -> &Arc<RepairStats> {
        &self.repairs
    }

    /// Hears of changes to the device.
    ///
    /// # Errors
    /// When there is no netlink socket.
    pub fn notices(&self) -> Result<Notices, Error> {
        Notices::listen(self.index)
    }

    /// Where the device is not what it should be. Addresses that were refused and routes that were skipped are no
    /// deviations. `None`: the device is gone.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn look(&self) -> Result<Option<Vec<Deviation>>, Error> {
        let seen = self.see().await?;
        Ok(seen.map(|seen| self.wanted().deviations(&seen)))
    }

    /// Puts the device right, and counts `found`. Tries addresses that were refused before as well.
    ///
    /// # Errors
    /// When the kernel refuses; what was put right before that stays.
    pub async fn put_back(&mut self, found: &[Deviation]) -> Result<(), Error> {
        self.repairs.count(found);
        self.network.bring_up(self.index, self.mtu).await?;
        // With an MTU below 1280 the kernel had forgotten that there shall be none.
        if found.iter().any(|deviation| deviation.change == Change::Mtu) {
            self.network.remove_link_local(self.index).await?;
        }
        let Some(seen) = self.see().await? else { return Ok(()) };
        for net in self.wanted().addresses {
            if seen.addresses.contains(&net) && !seen.local.contains(&net.addr()) {
                self.network.remove_address(self.index, net).await?;
            }
        }
        self.retry_refused().await?;
        let Some(seen) = self.see().await? else { return Ok(()) };
        for net in self.wanted().connected() {
            if !seen.routes.contains(&net.trunc()) {
                self.network.connect_network(self.index, net).await?;
            }
        }
        self.networks.skipped = self.network.set_routes(self.index, &self.networks.routes).await?;
        Ok(())
    }

    /// Sets the addresses again that were refused: IPv6 may have been switched on.
    ///
    /// # Errors
    /// When the kernel refuses something else.
    pub async fn retry_refused(&mut self) -> Result<(), Error> {
        let addresses = self.networks.addresses.clone();
        self.set_addresses(&addresses).await
    }

    /// Brings addresses and routes in line with these, as [`Wt0::open`] does. What is right already is not touched.
    ///
    /// # Errors
    /// When the kernel refuses something; what was set before that stays.
    pub async fn set_networks(&mut self, addresses: &[IpNet], routes: &[IpNet]) -> Result<(), Error> {
        self.set_addresses(addresses).await?;
        self.networks.skipped = self.network.set_routes(self.index, routes).await?;
        self.networks.routes = routes.to_vec();
        Ok(())
    }

    /// The queues, once: a second call yields none.
    pub fn take_queues(&mut self) -> Vec<TunQueue> {
        std::mem::take(&mut self.queues)
    }

    /// Removes the device, and with it addresses, routes and programs on it, even while queues are open: their reads and
    /// writes fail from then on.
    ///
    /// # Errors
    /// When the kernel refuses. Then the device goes when its last queue is closed.
    pub async fn remove(&self) -> Result<(), Error> {
        sys::set_persistent(self.control.as_fd(), false)
            .map_err(Error::io(format!("ending the persistence of {}", self.name)))?;
        self.network.delete(self.index).await
    }

    async fn set_addresses(&mut self, addresses: &[IpNet]) -> Result<(), Error> {
        let refused = self.network.set_addresses(&self.name, self.index, addresses).await?;
        log_refused(&self.name, &self.networks.refused, &refused);
        (self.networks.refused, self.networks.addresses) = (refused, addresses.to_vec());
        Ok(())
    }

    /// The device as it is, when the kernel is done with what it was told before.
    async fn see(&self) -> Result<Option<Seen>, Error> {
        const TRIES: u32 = 20;
        const PAUSE: Duration = Duration::from_millis(10);
        let wanted = self.wanted();
        let mut seen = self.network.see(self.index).await?;
        for _ in 0..TRIES {
            if !seen.as_ref().is_some_and(|seen| wanted.may_be_on_its_way(seen)) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            seen = self.network.see(self.index).await?;
        }
        Ok(seen)
    }

    fn wanted(&self) -> Wanted {
        let Networks { addresses, routes, refused, skipped } = &self.networks;
        let taken = |net: &&IpNet| !refused.iter().any(|refused| refused.address == **net);
        let set = |net: &IpNet| !skipped.iter().any(|skipped| skipped.destination == *net);
        Wanted {
            mtu: self.mtu.into(),
            addresses: addresses.iter().filter(taken).copied().collect(),
            routes: routes.iter().map(IpNet::trunc).filter(set).collect(),
        }
    }

    async fn set_up(config: &Wt0Config, network: &Network, device: &Device) -> Result<Networks, Error> {
        network.bring_up(device.index, config.mtu).await?;
        let refused = network.set_addresses(&config.name, device.index, &config.addresses).await?;
        log_refused(&config.name, &[], &refused);
        let skipped = network.set_routes(device.index, &config.routes).await?;
        let (addresses, routes) = (config.addresses.clone(), config.routes.clone());
        Ok(Networks { addresses, routes, refused, skipped })
    }

    fn assemble(config: &Wt0Config, device: Device, network: Network, networks: Networks) -> Result<Self, Error> {
        let Device { index, adopted, offloads, queues } = device;
        let first = queues.first().ok_or(Error::Range { what: "the number of queues", value: 0, min: 1, max: 256 })?;
        let control = first.try_clone().map_err(Error::io("duplicating a descriptor"))?;
        let items = MESSAGES * MAX_SEGMENTS;
        let queues = queues.into_iter().map(|fd| TunQueue::new(fd, offloads, config.mtu, items)).collect();
        let (name, mtu, repairs) = (config.name.clone(), config.mtu, Arc::default());
        Ok(Self { name, index, adopted, offloads, mtu, networks, repairs, queues, control, network })
    }
}

/// Each change once. What it means is a finding of the doctor's, which warns.
fn log_refused(name: &str, before: &[RefusedAddress], now: &[RefusedAddress]) {
    for RefusedAddress { address, why } in now.iter().filter(|refused| !before.contains(refused)) {
        tracing::info!("{name}: the kernel does not take the address {address}: {why}; it is left out");
    }
    for RefusedAddress { address, .. } in before {
        if !now.iter().any(|refused| refused.address == *address) {
            tracing::info!("{name}: the address {address} was refused before and is no longer");
        }
    }
}

/// `MAX_TAP_QUEUES` of the kernel's driver.
const MAX_QUEUES: usize = 256;

fn check_name(name: &str) -> Result<(), Error> {
    let bad = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b':' | b'%' | 0 | 0x0b);
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.bytes().any(bad) {
        return Err(Error::Name { name: name.to_owned() });
    }
    Ok(())
}

fn check(config: &Wt0Config) -> Result<(), Error> {
    check_name(&config.name)?;
    let least = if config.addresses.iter().any(|net| matches!(net, IpNet::V6(_))) { 1280 } else { 576 };
    in_range("the MTU", config.mtu.into(), least, u16::MAX.into())?;
    in_range("the number of queues", config.queues, 1, MAX_QUEUES)
}

fn in_range(what: &'static str, value: usize, min: usize, max: usize) -> Result<(), Error> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(Error::Range { what, value, min, max }) }
}
