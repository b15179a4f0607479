//! What feeds the loop: each task reconnects by itself and ends with the loop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tonic::Code;

use super::{Membership, token};
use crate::keys::KeyPair;
use crate::member::{Management, Relay, Signal, meta};
use crate::proto::management::{NetbirdConfig, NetworkMap, PeerConfig, host_config};
use crate::proto::signal::Body;
use crate::relay::{Frame, PeerId};

/// Time between attempts.
const AGAIN: Duration = Duration::from_millis(300);
/// Frames sent with one system call.
const BATCH: usize = 64;

/// What the loop is told.
#[derive(Debug)]
pub(crate) enum Event {
    Config(NetbirdConfig),
    Own(PeerConfig),
    Map(Box<NetworkMap>),
    Signal(String, Body),
    SignalUp,
    RelayUp { asked: String, own: String },
    RelayDown(String),
    Online(Vec<PeerId>),
    Offline(Vec<PeerId>),
    Frame(PeerId, Bytes),
    Packet(String, Bytes),
    Trouble(String),
}

/// A message for signal.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: String,
    pub(crate) body: Body,
}

pub(crate) async fn management(membership: Membership, events: mpsc::Sender<Event>) {
    while !events.is_closed() {
        if let Err(error) = follow(&membership, &events).await {
            let _ = events.send(Event::Trouble(format!("management: {error:#}"))).await;
        }
        sleep(AGAIN).await;
    }
}

async fn follow(membership: &Membership, events: &mpsc::Sender<Event>) -> Result<()> {
    let mut management = Management::connect(&membership.url, membership.keys.clone()).await?;
    let meta = meta(&membership.hostname);
    let answer = match management.login(&meta, "").await {
        Err(refused) if refused.code() == Code::PermissionDenied => {
            management.login(&meta, &membership.setup_key).await?
        }
        answer => answer?,
    };
    if let Some(config) = answer.netbird_config {
        events.send(Event::Config(config)).await?;
    }
    if let Some(own) = answer.peer_config {
        events.send(Event::Own(own)).await?;
    }
    let mut syncs = management.sync(&meta).await?;
    while let Some(message) = syncs.next().await? {
        if let Some(config) = message.netbird_config {
            events.send(Event::Config(config)).await?;
        }
        if let Some(map) = message.network_map {
            events.send(Event::Map(Box::new(map))).await?;
        }
    }
    Ok(())
}

pub(crate) async fn signal(
    keys: KeyPair,
    mut config: watch::Receiver<Option<NetbirdConfig>>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<Event>,
) {
    while let Ok(url) = signal_url(&mut config).await {
        if let Err(error) = exchange(&keys, &url, &mut outgoing, &events).await {
            let _ = events.send(Event::Trouble(format!("signal: {error:#}"))).await;
        }
        sleep(AGAIN).await;
    }
}

async fn signal_url(config: &mut watch::Receiver<Option<NetbirdConfig>>) -> Result<String> {
    let known = config.wait_for(|config| config.as_ref().is_some_and(|config| config.signal.is_some())).await?;
    let signal = known.as_ref().and_then(|config| config.signal.as_ref()).context("known")?;
    let scheme = if signal.protocol() == host_config::Protocol::Https { "https" } else { "http" };
    Ok(format!("{scheme}://{}", signal.uri))
}

async fn exchange(
    keys: &KeyPair,
    url: &str,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    events: &mpsc::Sender<Event>,
) -> Result<()> {
    let (mut signal, mut incoming) = Signal::connect(url, keys.clone()).await?;
    events.send(Event::SignalUp).await?;
    loop {
        tokio::select! {
            message = incoming.next() => {
                let Some((from, body)) = message? else { return Ok(()) };
                events.send(Event::Signal(from, body)).await?;
            }
            message = outgoing.recv() => {
                let Outgoing { to, body } = message.context("the member has ended")?;
                signal.send(&to, &body).await?;
            }
        }
    }
}

pub(crate) async fn relay(
    url: String,
    key: String,
    mut config: watch::Receiver<Option<NetbirdConfig>>,
    mut frames: mpsc::Receiver<Frame>,
    events: mpsc::Sender<Event>,
) {
    while !events.is_closed() {
        if let Err(error) = carry(&url, &key, &mut config, &mut frames, &events).await {
            let _ = events.send(Event::Trouble(format!("relay {url}: {error:#}"))).await;
        }
        let _ = events.send(Event::RelayDown(url.clone())).await;
        sleep(AGAIN).await;
    }
}

async fn carry(
    url: &str,
    key: &str,
    config: &mut watch::Receiver<Option<NetbirdConfig>>,
    frames: &mut mpsc::Receiver<Frame>,
    events: &mpsc::Sender<Event>,
) -> Result<()> {
    let token = {
        let known = config.wait_for(|config| config.as_ref().is_some_and(|config| config.relay.is_some())).await?;
        known.as_ref().and_then(token).context("known")?
    };
    let Relay { url: own, mut sender, mut receiver } = Relay::connect(url, key, &token).await?;
    events.send(Event::RelayUp { asked: url.to_owned(), own }).await?;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            frame = receiver.next() => match frame.context("it has closed")? {
                Frame::Transport(from, payload) => events.send(Event::Frame(from, payload)).await?,
                Frame::Health => sender.send(&Frame::Health).await?,
                Frame::Online(ids) => events.send(Event::Online(ids)).await?,
                Frame::Offline(ids) => events.send(Event::Offline(ids)).await?,
                _ => {}
            },
            count = frames.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return sender.send(&Frame::Close).await;
                }
                for frame in batch.drain(..) {
                    sender.feed(&frame).await?;
                }
                sender.flush().await?;
            }
        }
    }
}

/// Packets of `WireGuard` for one peer.
pub(crate) async fn packets(key: String, bridge: Arc<UdpSocket>, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // An error tells of an earlier packet that nobody took: WireGuard is not up yet.
        let Ok(length) = bridge.recv(&mut buffer).await else { continue };
        if events.send(Event::Packet(key.clone(), Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
            return;
        }
    }
}
