//! Peers: how they come, what they are, how they go.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use super::{Account, Routers, SetupKey};
use crate::proto::management::{PeerCapability, PeerSystemMeta};

/// A registered peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Public key: its id.
    pub key: String,
    /// Host name at registration.
    pub name: String,
    /// First label of its DNS name.
    pub label: String,
    /// On the overlay.
    pub address: Ipv4Addr,
    /// On the overlay; `None`: the account has no IPv6, or the peer cannot use it.
    pub address6: Option<Ipv6Addr>,
    /// What it says of itself.
    pub meta: PeerSystemMeta,
    /// Public SSH key, as text.
    pub ssh_key: Vec<u8>,
    /// Goes when it has been away for a while.
    pub ephemeral: bool,
    /// [`SetupKey::lookup`] of the key that let it in; none: made by a test.
    pub setup_key: Option<String>,
    /// Its login has ended; it must log in again.
    pub login_expired: bool,
    /// Has an open Sync stream.
    pub connected: bool,
    /// Number of the stream after whose end it has been away.
    pub(crate) away_since: Option<u64>,
    /// Successful logins, registration included.
    pub logins: u32,
    /// Relays it is told to use, if not those of everybody.
    pub relays: Option<Vec<String>>,
}

/// Why a peer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// Unknown, expired, revoked or used up.
    #[error("couldn't add peer: setup key is invalid")]
    SetupKey,
    /// It wants DNS labels that its key does not allow.
    #[error("couldn't add peer: setup key doesn't allow extra DNS labels")]
    DnsLabels,
    /// Every address is taken.
    #[error("failed handling request")]
    NoAddress,
}

/// Why a peer cannot be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovalError {
    /// No such peer.
    #[error("peer not found")]
    Unknown,
    /// A network names it as its router.
    #[error("peer is linked to a network router")]
    Router,
}

impl Peer {
    /// Whether it has announced a capability.
    #[must_use]
    pub fn can(&self, capability: PeerCapability) -> bool {
        self.meta.capabilities.contains(&capability.into())
    }
}

impl Account {
    /// Registers a peer by setup key.
    ///
    /// # Errors
    /// See [`RegistrationError`].
    pub fn register(
        &mut self,
        key: &str,
        setup_key: &str,
        meta: &PeerSystemMeta,
        labels: &[String],
    ) -> Result<(), RegistrationError> {
        let lookup = SetupKey::lookup(setup_key);
        let found = self.setup_keys.get_mut(&lookup).filter(|key| key.is_valid(SystemTime::now()));
        let found = found.ok_or(RegistrationError::SetupKey)?;
        if !labels.is_empty() && !found.extra_dns_labels {
            return Err(RegistrationError::DnsLabels);
        }
        found.used += 1;
        let (ephemeral, groups) = (found.ephemeral, found.auto_groups.clone());
        self.add_peer(key, meta, ephemeral, Some(lookup))?;
        for group in groups {
            self.groups.entry(group).or_default().insert(key.to_owned());
        }
        self.serial += 1;
        Ok(())
    }

    /// Adds a peer without asking for a key.
    ///
    /// # Errors
    /// Every address is taken.
    pub fn add_peer(
        &mut self,
        key: &str,
        meta: &PeerSystemMeta,
        ephemeral: bool,
        setup_key: Option<String>,
    ) -> Result<(), RegistrationError> {
        let address = self.free_address().ok_or(RegistrationError::NoAddress)?;
        let mut peer = Peer {
            key: key.to_owned(),
            name: meta.hostname.clone(),
            label: self.free_label(&meta.hostname, address, ephemeral),
            address,
            address6: None,
            meta: meta.clone(),
            ssh_key: Vec::new(),
            ephemeral,
            setup_key,
            login_expired: false,
            connected: false,
            away_since: None,
            logins: 0,
            relays: None,
        };
        peer.address6 = self.address6(&peer);
        self.peers.insert(key.to_owned(), peer);
        Ok(())
    }

    /// What a peer says of itself now; its IPv6 address comes and goes with the capability. An empty meta says nothing.
    /// Returns whether others must be told.
    pub fn update_meta(&mut self, key: &str, meta: &PeerSystemMeta) -> bool {
        let Some(peer) = self.peers.get(key) else { return false };
        if *meta == PeerSystemMeta::default() || peer.meta == *meta {
            return false;
        }
        let mut peer = peer.clone();
        let version_changed = peer.meta.netbird_version != meta.netbird_version;
        peer.meta = meta.clone();
        let address6 = self.address6(&peer);
        let told = version_changed || address6 != peer.address6;
        peer.address6 = address6;
        self.peers.insert(key.to_owned(), peer);
        self.serial += u64::from(told);
        told
    }

    /// Deletes a peer.
    ///
    /// # Errors
    /// See [`RemovalError`].
    pub fn remove_peer(&mut self, key: &str) -> Result<(), RemovalError> {
        let mut routers = self.networks.iter().flat_map(|network| &network.routers);
        if routers.any(|router| router.routers == Routers::Peer(key.to_owned())) {
            return Err(RemovalError::Router);
        }
        self.peers.remove(key).ok_or(RemovalError::Unknown)?;
        for group in self.groups.values_mut() {
            group.remove(key);
        }
        self.serial += 1;
        Ok(())
    }

    fn free_address(&self) -> Option<Ipv4Addr> {
        let (first, size) = (u32::from(self.network.network()), 1_u32 << (32 - self.network.prefix_len()));
        let start = rand::random::<u32>() % size;
        let candidates = (0..size).map(|offset| (start + offset) % size);
        // Neither the network's own address nor the broadcast address, nor what looks like one of a /24.
        let mut candidates = candidates.filter(|&host| host % 256 != 0 && host % 256 != 255);
        candidates.find_map(|host| {
            let address = Ipv4Addr::from(first + host);
            (!self.peers.values().any(|peer| peer.address == address)).then_some(address)
        })
    }

    /// Follows from the IPv4 address, which is unique.
    fn address6(&self, peer: &Peer) -> Option<Ipv6Addr> {
        let network = self.network6.filter(|_| peer.can(PeerCapability::IPv6Overlay))?;
        Some(Ipv6Addr::from(u128::from(network.network()) | u128::from(u32::from(peer.address))))
    }

    fn free_label(&self, hostname: &str, address: Ipv4Addr, ephemeral: bool) -> String {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        let host = hostname.split('.').next().unwrap_or_default().to_lowercase();
        let mut label: String = host.chars().map(|letter| if allowed(letter) { letter } else { '-' }).collect();
        if label.is_empty() {
            "peer".clone_into(&mut label);
        }
        if ephemeral || self.peers.values().any(|peer| peer.label == label) {
            let [_, _, third, fourth] = address.octets();
            label = format!("{label}-{third}-{fourth}");
        }
        label
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{RegistrationError, RemovalError};
    use crate::account::{Account, Network, Routers, SetupKey};
    use crate::proto::management::{PeerCapability, PeerSystemMeta};

    fn meta(hostname: &str) -> PeerSystemMeta {
        let capabilities = vec![PeerCapability::SourcePrefixes.into(), PeerCapability::IPv6Overlay.into()];
        PeerSystemMeta { hostname: hostname.to_owned(), capabilities, ..PeerSystemMeta::default() }
    }

    #[test]
    fn a_key_lets_in_as_many_as_it_says() {
        let mut account = Account::default();
        let key = account.add_setup_key(SetupKey {
            usage_limit: Some(1),
            auto_groups: vec!["routers".to_owned()],
            ..SetupKey::reusable()
        });
        let serial = account.serial;
        assert_eq!(account.register("a", &key.to_lowercase(), &meta("Node.Example"), &[]), Ok(()));
        assert!(account.serial > serial);
        assert_eq!(account.peers["a"].label, "node");
        assert!(account.groups["routers"].contains("a"));
        assert_eq!(account.register("b", &key, &meta("b"), &[]), Err(RegistrationError::SetupKey), "used up");
    }

    #[test]
    fn revoked_expired_and_unknown_keys_let_nobody_in() {
        let mut account = Account::default();
        let revoked = account.add_setup_key(SetupKey { revoked: true, ..SetupKey::reusable() });
        let past = SystemTime::now() - Duration::from_secs(1);
        let expired = account.add_setup_key(SetupKey { expires: Some(past), ..SetupKey::reusable() });
        for key in [revoked.as_str(), &expired, "nonsense"] {
            assert_eq!(account.register("a", key, &meta("a"), &[]), Err(RegistrationError::SetupKey), "{key}");
        }
        let key = account.add_setup_key(SetupKey::reusable());
        let labels = ["extra".to_owned()];
        assert_eq!(account.register("a", &key, &meta("a"), &labels), Err(RegistrationError::DnsLabels));
        assert!(account.peers.is_empty());
    }

    #[test]
    fn addresses_and_labels_are_unique() {
        let mut account = Account { network: "100.90.0.0/28".parse().expect("valid"), ..Account::default() };
        // Without .0; a /28 has no .255.
        for index in 0..15 {
            account.add_peer(&index.to_string(), &meta("same"), false, None).expect("an address");
        }
        assert_eq!(account.add_peer("late", &meta("same"), false, None), Err(RegistrationError::NoAddress));
        let unique = |values: Vec<String>| values.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!(unique(account.peers.values().map(|peer| peer.address.to_string()).collect()), 15);
        assert_eq!(unique(account.peers.values().map(|peer| format!("{:?}", peer.address6)).collect()), 15);
        assert_eq!(unique(account.peers.values().map(|peer| peer.label.clone()).collect()), 15);
    }

    #[test]
    fn a_router_that_is_named_cannot_be_deleted() {
        let mut account = Account::default();
        account.add_peer("a", &meta("a"), true, None).expect("an address");
        let prefix = "198.51.100.0/24".parse().expect("valid");
        account.networks.push(Network::of_prefix("lan", prefix, Routers::Peer("a".to_owned())));
        assert_eq!(account.remove_peer("a"), Err(RemovalError::Router));
        account.networks[0].routers[0].routers = Routers::Groups(vec!["All".to_owned()]);
        assert_eq!(account.remove_peer("a"), Ok(()));
        assert_eq!(account.remove_peer("a"), Err(RemovalError::Unknown));
    }

    #[test]
    fn the_ipv6_address_comes_and_goes_with_the_capability() {
        let mut account = Account::default();
        account.add_peer("a", &meta("a"), false, None).expect("an address");
        let address = account.peers["a"].address6;
        assert!(address.is_some());
        let without = PeerSystemMeta { capabilities: vec![1], ..meta("a") };
        assert!(account.update_meta("a", &without));
        assert_eq!(account.peers["a"].address6, None);
        assert!(!account.update_meta("a", &PeerSystemMeta::default()), "an empty meta says nothing");
        assert!(account.update_meta("a", &meta("a")));
        assert_eq!(account.peers["a"].address6, address);
    }
}
