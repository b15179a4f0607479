//! The member as a whole: one loop, fed by a task for each server and one for each peer's packets.

mod tasks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use ipnet::IpNet;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::interval;

use super::link::{Due, Link};
use crate::keys::KeyPair;
use crate::proto::management::{NetbirdConfig, NetworkMap, PeerConfig, RemotePeerConfig};
use crate::proto::signal::Body;
use crate::proto::signal::body::Type;
use crate::relay::token::Token;
use crate::relay::{Frame, PeerId};
use tasks::{Event, Outgoing};

/// How often links are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Events that wait.
const QUEUE: usize = 1024;

/// The `WireGuard` that a member uses, and the interface it is behind.
pub trait Device: Send + 'static {
    /// Puts the member's addresses on the interface.
    ///
    /// # Errors
    /// It cannot be done.
    fn configure(&mut self, own: &PeerConfig) -> Result<()>;

    /// Adds or changes a peer.
    ///
    /// # Errors
    /// It cannot be done.
    fn set_peer(&mut self, peer: &PeerSettings) -> Result<()>;

    /// Removes a peer.
    ///
    /// # Errors
    /// It cannot be done.
    fn remove_peer(&mut self, key: &str) -> Result<()>;

    /// Leads these prefixes into the tunnel, and no others.
    ///
    /// # Errors
    /// It cannot be done.
    fn set_routes(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<()>;
}

/// A peer as `WireGuard` knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// Public key.
    pub key: String,
    /// What is behind it.
    pub allowed_ips: Vec<IpNet>,
    /// Where it is; `None`: left as it is.
    pub endpoint: Option<SocketAddr>,
    /// Whether the path is kept alive, which begins with a handshake.
    pub keepalive: bool,
}

/// Who joins what, and how.
#[derive(Clone)]
pub struct Membership {
    /// Management.
    pub url: String,
    /// Lets it in.
    pub setup_key: String,
    /// Its name.
    pub hostname: String,
    /// Its identity.
    pub keys: KeyPair,
    /// Where its `WireGuard` listens.
    pub wireguard: SocketAddr,
    /// What it does differently.
    pub habits: Habits,
}

/// What official clients do, too, some of them or sometimes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Offers nothing until there is traffic for the peer.
    pub lazy: bool,
    /// Sends each offer twice, and after an answer another offer of the same session.
    pub repeats: bool,
}

/// What a member has heard and done.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The latest map.
    pub map: Option<NetworkMap>,
    /// Maps so far.
    pub maps: u32,
    /// Messages of signal by sender, types as numbers.
    pub signal: Vec<(String, i32)>,
    /// Offers sent.
    pub offers: u32,
    /// Peers whose path stands.
    pub connected: BTreeSet<String>,
    /// What went wrong last.
    pub trouble: Option<String>,
}

/// A member that runs as long as the future of [`Self::run`] is polled.
pub struct Agent {
    membership: Membership,
    device: Box<dyn Device>,
    heard: Arc<Mutex<Heard>>,
    events: mpsc::Sender<Event>,
    signal: mpsc::Sender<Outgoing>,
    config: watch::Sender<Option<NetbirdConfig>>,
    own: Option<PeerConfig>,
    routes: BTreeSet<IpNet>,
    home: Option<String>,
    relays: HashMap<String, mpsc::Sender<Frame>>,
    peers: BTreeMap<String, Remote>,
}

/// A peer of the map.
struct Remote {
    id: PeerId,
    link: Link,
    settings: PeerSettings,
    /// Known to `WireGuard`: from when there is a path on, or something that waits for packets.
    known: bool,
    /// The latest packet for which there was no path.
    waiting: Option<Bytes>,
    bridge: Arc<UdpSocket>,
    reader: tokio::task::AbortHandle,
}

impl Agent {
    /// Makes one, and what others may look at.
    #[must_use]
    pub fn new(membership: Membership, device: Box<dyn Device>) -> (Self, Arc<Mutex<Heard>>) {
        let heard: Arc<Mutex<Heard>> = Arc::default();
        // Replaced by the ends that `run` listens at.
        let (events, _) = mpsc::channel(1);
        let (signal, _) = mpsc::channel(1);
        let this = Self {
            membership,
            device,
            heard: Arc::clone(&heard),
            events,
            signal,
            config: watch::Sender::new(None),
            own: None,
            routes: BTreeSet::new(),
            home: None,
            relays: HashMap::new(),
            peers: BTreeMap::new(),
        };
        (this, heard)
    }

    /// Joins and stays.
    pub async fn run(mut self) {
        let (events, mut incoming) = mpsc::channel(QUEUE);
        let (signal, outgoing) = mpsc::channel(QUEUE);
        (self.events, self.signal) = (events.clone(), signal);
        tokio::spawn(tasks::management(self.membership.clone(), events.clone()));
        tokio::spawn(tasks::signal(self.membership.keys.clone(), self.config.subscribe(), outgoing, events));
        let mut look = interval(LOOK);
        loop {
            let outcome = tokio::select! {
                event = incoming.recv() => match event {
                    Some(event) => self.handle(event).await,
                    None => return,
                },
                _ = look.tick() => self.look().await,
            };
            if let Err(error) = outcome {
                self.heard().trouble = Some(format!("{error:#}"));
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Result<()> {
        let now = Instant::now();
        match event {
            Event::Config(config) => self.configured(config),
            Event::Own(own) => self.own_changed(own)?,
            Event::Map(map) => self.mapped(*map).await?,
            Event::Signal(from, body) => self.signalled(&from, body).await?,
            Event::SignalUp => {
                for remote in self.peers.values_mut().filter(|remote| !remote.link.online && !remote.link.asleep) {
                    remote.link.ask(now);
                }
            }
            Event::RelayUp { asked, own } => self.relay_up(&asked, own).await,
            Event::RelayDown(url) => {
                for remote in self.peers.values_mut().filter(|remote| remote.link.relay.as_deref() == Some(&url)) {
                    remote.link.lost(now);
                }
            }
            Event::Online(ids) => self.online(&ids, now)?,
            Event::Offline(ids) => {
                for remote in self.peers.values_mut().filter(|remote| ids.contains(&remote.id)) {
                    remote.link.lost(now);
                }
            }
            Event::Frame(id, payload) => {
                if let Some(remote) = self.peers.values().find(|remote| remote.id == id) {
                    // A full socket loses packets, as any wire does.
                    let _ = remote.bridge.try_send(&payload);
                }
            }
            Event::Packet(key, payload) => self.packet(&key, payload, now),
            Event::Trouble(text) => self.heard().trouble = Some(text),
        }
        self.show();
        Ok(())
    }

    fn configured(&mut self, config: NetbirdConfig) {
        let merged = merged(self.config.borrow().as_ref(), config);
        let home = merged.relay.as_ref().and_then(|relay| relay.urls.first().cloned());
        self.config.send_replace(Some(merged));
        if let Some(home) = home {
            self.open_relay(&home);
            self.home.get_or_insert(home);
        }
    }

    fn own_changed(&mut self, own: PeerConfig) -> Result<()> {
        if self.own.as_ref() != Some(&own) {
            self.device.configure(&own)?;
            self.own = Some(own);
        }
        Ok(())
    }

    async fn mapped(&mut self, map: NetworkMap) -> Result<()> {
        if let Some(own) = &map.peer_config {
            self.own_changed(own.clone())?;
        }
        let named: BTreeSet<_> = map.remote_peers.iter().map(|peer| peer.wg_pub_key.as_str()).collect();
        let gone: Vec<_> = self.peers.keys().filter(|key| !named.contains(key.as_str())).cloned().collect();
        for key in gone {
            if let Some(remote) = self.peers.remove(&key) {
                remote.reader.abort();
                if remote.known {
                    self.device.remove_peer(&key)?;
                }
            }
        }
        let mut routes = BTreeSet::new();
        for peer in &map.remote_peers {
            let behind: Vec<IpNet> = behind(&map, &peer.wg_pub_key);
            routes.extend(behind.iter().copied());
            self.set_peer(peer, behind).await?;
        }
        if routes != self.routes {
            self.device.set_routes(&routes)?;
            self.routes = routes;
        }
        let mut heard = self.heard();
        heard.maps += 1;
        heard.map = Some(map);
        Ok(())
    }

    async fn set_peer(&mut self, peer: &RemotePeerConfig, behind: Vec<IpNet>) -> Result<()> {
        let mut allowed_ips = peer.allowed_ips.iter().map(|text| text.parse()).collect::<Result<Vec<IpNet>, _>>()?;
        allowed_ips.extend(behind);
        let key = &peer.wg_pub_key;
        if let Some(remote) = self.peers.get_mut(key) {
            if remote.settings.allowed_ips != allowed_ips {
                remote.settings.allowed_ips = allowed_ips;
            } else {
                return Ok(());
            }
            if remote.known {
                self.device.set_peer(&PeerSettings { endpoint: None, ..remote.settings.clone() })?;
            }
            return Ok(());
        }
        let bridge = UdpSocket::bind("127.0.0.1:0").await?;
        bridge.connect(self.membership.wireguard).await?;
        let bridge = Arc::new(bridge);
        let reader = tokio::spawn(tasks::packets(key.clone(), Arc::clone(&bridge), self.events.clone()));
        let lazy = self.membership.habits.lazy;
        // A sleeping link is woken by the first packet, which must come to us.
        let endpoint = if lazy { Some(bridge.local_addr()?) } else { None };
        let settings = PeerSettings { key: key.clone(), allowed_ips, endpoint, keepalive: false };
        if lazy {
            self.device.set_peer(&settings)?;
        }
        let link = Link::new(self.membership.keys.public(), key, lazy, Instant::now());
        let (id, reader) = (PeerId::of(key), reader.abort_handle());
        let remote = Remote { id, link, settings, known: lazy, waiting: None, bridge, reader };
        self.peers.insert(key.clone(), remote);
        Ok(())
    }

    async fn signalled(&mut self, from: &str, body: Body) -> Result<()> {
        self.heard().signal.push((from.to_owned(), body.r#type));
        let repeats = self.membership.habits.repeats;
        let Some(remote) = self.peers.get_mut(from) else { return Ok(()) };
        match Type::try_from(body.r#type) {
            Ok(Type::Offer) => {
                remote.link.wake(Instant::now());
                self.send(from, Type::Answer).await;
                if repeats {
                    self.send(from, Type::Offer).await;
                }
                self.meet(from, body.relay_server_address).await;
            }
            Ok(Type::Answer) => self.meet(from, body.relay_server_address).await,
            Ok(Type::GoIdle) => remote.link.sleep(),
            _ => {}
        }
        Ok(())
    }

    /// Goes where both meet: the controller's home relay.
    async fn meet(&mut self, key: &str, theirs: Option<String>) {
        let home = self.home.clone();
        let Some(remote) = self.peers.get_mut(key) else { return };
        let Some(url) = (if remote.link.controller { home } else { theirs }) else { return };
        if remote.link.online && remote.link.relay.as_ref() == Some(&url) {
            return;
        }
        remote.link.relay = Some(url.clone());
        let id = remote.id;
        self.open_relay(&url);
        if let Some(relay) = self.relays.get(&url) {
            // A relay that is not up yet is told when it comes up.
            let _ = relay.send(Frame::Subscribe(vec![id])).await;
        }
    }

    fn open_relay(&mut self, url: &str) {
        if self.relays.contains_key(url) {
            return;
        }
        let (sender, frames) = mpsc::channel(QUEUE);
        self.relays.insert(url.to_owned(), sender);
        let key = self.membership.keys.public().to_owned();
        tokio::spawn(tasks::relay(url.to_owned(), key, self.config.subscribe(), frames, self.events.clone()));
    }

    async fn relay_up(&mut self, asked: &str, own: String) {
        let first = self.config.borrow().as_ref().and_then(|config| config.relay.as_ref()?.urls.first().cloned());
        if first.as_deref() == Some(asked) {
            self.home = Some(own);
        }
        let here = self.peers.values().filter(|remote| remote.link.relay.as_deref() == Some(asked));
        let ids: Vec<_> = here.map(|remote| remote.id).collect();
        if let Some(relay) = self.relays.get(asked).filter(|_| !ids.is_empty()) {
            let _ = relay.send(Frame::Subscribe(ids)).await;
        }
    }

    fn online(&mut self, ids: &[PeerId], now: Instant) -> Result<()> {
        for remote in self.peers.values_mut().filter(|remote| ids.contains(&remote.id)) {
            if remote.link.came(now) {
                begin(remote, self.device.as_mut())?;
            } else if !remote.known {
                self.device.set_peer(&remote.settings)?;
            }
            remote.known = true;
            if let (Some(payload), Some(relay)) =
                (remote.waiting.take(), remote.link.relay.as_ref().and_then(|url| self.relays.get(url)))
            {
                // A full queue loses packets, as any wire does.
                let _ = relay.try_send(Frame::Transport(remote.id, payload));
            }
        }
        Ok(())
    }

    fn packet(&mut self, key: &str, payload: Bytes, now: Instant) {
        let Some(remote) = self.peers.get_mut(key) else { return };
        remote.link.wake(now);
        if !remote.link.online {
            remote.waiting = Some(payload);
        } else if let Some(relay) = remote.link.relay.as_ref().and_then(|url| self.relays.get(url)) {
            // A full queue loses packets, as any wire does.
            let _ = relay.try_send(Frame::Transport(remote.id, payload));
        }
    }

    async fn look(&mut self) -> Result<()> {
        let now = Instant::now();
        let due: Vec<_> =
            self.peers.iter_mut().filter_map(|(key, remote)| Some((key.clone(), remote.link.due(now)?))).collect();
        for (key, due) in due {
            match due {
                Due::Offer => {
                    self.send(&key, Type::Offer).await;
                    if self.membership.habits.repeats {
                        self.send(&key, Type::Offer).await;
                    }
                }
                Due::Begin => {
                    let remote = self.peers.get_mut(&key).context("a peer of the map")?;
                    begin(remote, self.device.as_mut())?;
                }
            }
        }
        self.show();
        Ok(())
    }

    async fn send(&mut self, to: &str, kind: Type) {
        if kind == Type::Offer {
            self.heard().offers += 1;
        }
        let body = Body {
            r#type: kind.into(),
            // No ICE.
            payload: ":".to_owned(),
            wg_listen_port: self.membership.wireguard.port().into(),
            net_bird_version: "0.77.1".to_owned(),
            relay_server_address: self.home.clone(),
            ..Body::default()
        };
        // Without a stream nothing is sent: the offer is repeated.
        let _ = self.signal.try_send(Outgoing { to: to.to_owned(), body });
    }

    fn show(&self) {
        let online = self.peers.iter().filter(|(_, remote)| remote.link.online);
        self.heard().connected = online.map(|(key, _)| key.clone()).collect();
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets `WireGuard` begin: its first packet goes out at once.
fn begin(remote: &mut Remote, device: &mut dyn Device) -> Result<()> {
    remote.settings.endpoint = Some(remote.bridge.local_addr()?);
    remote.settings.keepalive = true;
    device.set_peer(&remote.settings)
}

/// Prefixes for which this peer is the best router.
fn behind(map: &NetworkMap, key: &str) -> Vec<IpNet> {
    let prefixes = map.routes.iter().filter(|route| route.domains.is_empty());
    let best = prefixes.clone().filter(|route| route.peer == key).filter(|route| {
        let same = prefixes.clone().filter(|other| other.network == route.network);
        same.min_by_key(|other| (other.metric, other.peer.as_str())).is_some_and(|best| best.peer == key)
    });
    best.filter_map(|route| route.network.parse().ok()).collect()
}

/// What an update leaves out stays as it was.
fn merged(old: Option<&NetbirdConfig>, new: NetbirdConfig) -> NetbirdConfig {
    let old = old.cloned().unwrap_or_default();
    NetbirdConfig { signal: new.signal.or(old.signal), relay: new.relay.or(old.relay), ..new }
}

/// The token of a configuration.
fn token(config: &NetbirdConfig) -> Option<Token> {
    let relay = config.relay.as_ref()?;
    Some(Token { payload: relay.token_payload.clone(), signature: relay.token_signature.clone() })
}
