//! One peer: configuration, path, tunnel, waiting packets and its own timers.

mod handshake;
mod timers;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use peer_core::desired;
use peer_core::key::PublicKey;
use peer_core::path::Path;

use crate::context::Context;
use crate::engine::Roaming;
use crate::error::{DatagramError, PacketError};
use crate::event::Event;
use crate::inner;
use crate::limits::{PATH_REPORT_PAUSE, STAGED_PER_PEER};
use crate::message::{DATA_OVERHEAD, INITIATION};
use crate::traffic::ActivePeer;
use crate::tunnel::{Opened, Tunnel};

/// What is known of a peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Identity.
    pub public_key: PublicKey,
    /// Where it is reached: learnt, else configured.
    pub path: Option<Path>,
    /// Time since the last handshake was completed.
    pub last_handshake: Option<Duration>,
    /// Time since a packet came from it or went to it, keepalives aside.
    pub last_data: Option<Duration>,
    /// Bytes of datagrams from it that were authentic.
    pub rx_bytes: u64,
    /// Bytes of datagrams to it.
    pub tx_bytes: u64,
    /// Packets from it.
    pub rx_packets: u64,
    /// Packets to it.
    pub tx_packets: u64,
    /// Its inner addresses.
    pub allowed_ips: Arc<[IpNet]>,
    /// Seconds between keepalives.
    pub persistent_keepalive: Option<std::num::NonZeroU16>,
    /// Whether there is a valid session.
    pub connected: bool,
}

impl PeerStatus {
    /// Its address, if it is reached by UDP.
    #[must_use]
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match self.path? {
            Path::Udp { remote, .. } => Some(remote),
            Path::Relay(_) => None,
        }
    }
}

/// A datagram that arrived.
#[derive(Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) now: Instant,
    pub(crate) path: Path,
    pub(crate) message: &'a [u8],
}

/// An initiation that waits.
struct Held {
    due: Instant,
    path: Path,
    message: [u8; INITIATION],
}

pub(crate) struct Peer {
    id: u32,
    config: desired::Peer,
    path: Option<Path>,
    /// The path that the control side knows of, and when it was told.
    reported: (Option<Path>, Option<Instant>),
    /// Made at first need, and kept: it remembers the newest initiation, which protects from replayed ones.
    tunnel: Option<(Box<Tunnel>, u32)>,
    /// As [`Tunnel::usable`] said after the last tick or handshake message.
    usable: bool,
    /// Indexes of the last two sessions that the peer initiated and has not used yet. Two, because the answer to a
    /// repeated initiation can be lost and the peer stay with the one before.
    unconfirmed: [Option<u32>; 2],
    last_handshake: Option<Instant>,
    staged: VecDeque<Vec<u8>>,
    /// Last inner source found to be the peer's own. Forgotten when allowed IPs change.
    last_source: Option<IpAddr>,
    rx: (u64, u64),
    tx: (u64, u64),
    ticked_at: Instant,
    /// When a message was last sent or received; persistent keepalives count from here.
    traffic_at: Instant,
    /// When to start a handshake that was ordered.
    handshake_at: Option<Instant>,
    /// While an initiation is unanswered: the core would repeat it from the start on, we let it do so at the end.
    retry: Option<Range<Instant>>,
    forced_at: Option<Instant>,
    /// When an initiation was last answered, unless the peer has no use for the answer.
    answered_at: Option<Instant>,
    /// When an initiation was last accepted, and by which path.
    accepted: Option<(Instant, Path)>,
    /// An initiation that crossed one of ours.
    held: Option<Box<Held>>,
    /// When the control side was told that a packet waits for a path.
    wanted_at: Option<Instant>,
    /// When a packet last came or went.
    data_at: Option<Instant>,
    /// Since when packets go to the peer and nothing comes from it.
    unanswered: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(id: u32, config: desired::Peer, now: Instant) -> Self {
        let path = config.endpoint.map(configured_path);
        Self {
            id,
            config,
            path,
            reported: (path, None),
            tunnel: None,
            usable: false,
            unconfirmed: [None; 2],
            last_handshake: None,
            staged: VecDeque::new(),
            last_source: None,
            rx: (0, 0),
            tx: (0, 0),
            ticked_at: now,
            traffic_at: now,
            handshake_at: None,
            retry: None,
            forced_at: None,
            answered_at: None,
            accepted: None,
            held: None,
            wanted_at: None,
            data_at: None,
            unanswered: None,
        }
    }

    pub(crate) fn config(&self) -> &desired::Peer {
        &self.config
    }

    pub(crate) fn path(&self) -> Option<Path> {
        self.path
    }

    pub(crate) fn usable(&self) -> bool {
        self.usable
    }

    pub(crate) fn status(&self, now: Instant) -> PeerStatus {
        PeerStatus {
            public_key: self.config.public_key,
            path: self.path,
            last_handshake: self.last_handshake.map(|at| now.saturating_duration_since(at)),
            last_data: self.data_at.map(|at| now.saturating_duration_since(at)),
            rx_bytes: self.rx.0,
            tx_bytes: self.tx.0,
            rx_packets: self.rx.1,
            tx_packets: self.tx.1,
            allowed_ips: self.config.allowed_ips.clone(),
            persistent_keepalive: self.config.persistent_keepalive,
            connected: self.usable,
        }
    }

    /// Whether packets have been going to it for `time` without anything coming back.
    pub(crate) fn is_silent(&self, time: Duration, now: Instant) -> bool {
        let goes_on = now.saturating_duration_since(self.traffic_at) < time;
        goes_on && self.unanswered.is_some_and(|since| now.saturating_duration_since(since) >= time)
    }

    /// What metrics tell of it.
    pub(crate) fn figures(&self, now: Instant) -> ActivePeer {
        ActivePeer {
            public_key: self.config.public_key,
            last_handshake: self.last_handshake.map(|at| now.saturating_duration_since(at)),
            packets: [self.rx.1, self.tx.1],
            bytes: [self.rx.0, self.tx.0],
        }
    }

    pub(crate) fn has_keepalive(&self) -> bool {
        self.config.persistent_keepalive.is_some()
    }

    /// Takes over a new configuration of the same public key. Returns whether allowed IPs changed.
    pub(crate) fn reconfigure(&mut self, cx: &mut Context, now: Instant, config: &desired::Peer) -> bool {
        let old = std::mem::replace(&mut self.config, config.clone());
        if old.endpoint != config.endpoint
            && let Some(endpoint) = config.endpoint
        {
            self.path = Some(configured_path(endpoint));
            self.report_path(cx, now);
        }
        let was_usable = self.usable;
        let rekey = old.preshared_key != config.preshared_key;
        if rekey {
            // The core cannot change the key of a tunnel: a new one, and at once a session if there was one.
            self.drop_tunnel(cx);
        }
        let news = rekey || old.endpoint != config.endpoint || old.persistent_keepalive != config.persistent_keepalive;
        if news && !self.usable && (was_usable || self.wants_session()) {
            self.handshake_at = Some(now);
        }
        old.allowed_ips != config.allowed_ips
    }

    /// Ends everything before the peer is dropped.
    pub(crate) fn remove(&mut self, cx: &mut Context) {
        self.drop_tunnel(cx);
        self.drop_staged(cx, PacketError::PeerRemoved);
    }

    /// Uses a restored endpoint unless one is known.
    pub(crate) fn suggest_endpoint(&mut self, now: Instant, endpoint: SocketAddr) {
        if self.path.is_none() {
            self.path = Some(configured_path(endpoint));
            self.reported.0 = self.path;
            if self.wants_session() {
                self.handshake_at = Some(now);
            }
        }
    }

    /// Uses `path` from now on.
    pub(crate) fn set_path(&mut self, cx: &mut Context, now: Instant, path: Option<Path>) {
        let had_one = self.path.is_some();
        if self.path == path {
            return;
        }
        self.path = path;
        self.report_path(cx, now);
        if !had_one && !self.usable && self.wants_session() {
            self.handshake_at = Some(now);
        }
    }

    /// A packet waits for a path, which the control side may look for.
    pub(crate) fn want_path(&mut self, cx: &mut Context, now: Instant) {
        let soon = self.wanted_at.is_some_and(|at| now.saturating_duration_since(at) < PATH_REPORT_PAUSE);
        if !soon {
            self.wanted_at = Some(now);
            cx.report(Event::PathWanted { peer: self.config.public_key });
        }
    }

    /// Whether the peer needs a session without waiting for a packet.
    pub(crate) fn wants_session(&self) -> bool {
        self.path.is_some() && (self.config.persistent_keepalive.is_some() || !self.staged.is_empty())
    }

    pub(crate) fn order_handshake(&mut self, at: Instant) {
        self.handshake_at = Some(at);
    }

    pub(crate) fn forget_source(&mut self) {
        self.last_source = None;
    }

    /// Opens a data message into `out`. `owns` tells whether an inner source address is this peer's.
    pub(crate) fn open(
        &mut self,
        cx: &mut Context,
        arrival: &Arrival<'_>,
        receiver: u32,
        out: &mut [u8],
        owns: impl FnOnce(IpAddr) -> bool,
    ) -> Result<Option<usize>, DatagramError> {
        let Arrival { now, path, message } = *arrival;
        self.refresh(cx, now);
        let Some((tunnel, _)) = &mut self.tunnel else { return Err(DatagramError::NoSession) };
        let opened = tunnel.open(message, out);
        if !matches!(opened, Ok(_) | Err(DatagramError::MalformedPacket)) {
            return opened.map(|_| None);
        }
        // Authentic from here on, whatever is inside.
        self.rx.0 += message.len() as u64;
        self.traffic_at = now;
        self.unanswered = None;
        self.roam(cx, now, path);
        if self.unconfirmed.contains(&Some(receiver)) {
            self.confirmed(cx, now);
        }
        if !self.usable {
            self.sync(cx, now);
        }
        let Opened::Packet { len, source } = opened? else { return Ok(None) };
        if self.last_source != Some(source) {
            if !owns(source) {
                return Err(DatagramError::ForeignSource);
            }
            self.last_source = Some(source);
        }
        self.rx.1 += 1;
        self.data_at = Some(now);
        cx.stats.received.packet(len);
        Ok(Some(len))
    }

    /// Seals `packet` into `out`, which has room for padding and overhead. Only while [`Peer::usable`].
    pub(crate) fn seal(&mut self, cx: &mut Context, now: Instant, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        let (tunnel, _) = self.tunnel.as_mut()?;
        let len = seal_padded(tunnel, &mut cx.padding, cx.mtu, packet, out)?;
        (self.traffic_at, self.data_at) = (now, Some(now));
        self.unanswered.get_or_insert(now);
        self.tx.0 += len as u64;
        self.tx.1 += 1;
        cx.stats.sent.packet(packet.len());
        Some(len)
    }

    /// Keeps `packet` until there is a session. The oldest make room.
    pub(crate) fn stage(&mut self, cx: &mut Context, packet: &[u8]) {
        let mut buffer = Vec::new();
        while self.staged.len() >= STAGED_PER_PEER || !cx.may_stage(packet.len()) {
            cx.stats.drop_packets(PacketError::StagingFull, 1);
            let Some(oldest) = self.staged.pop_front() else { return };
            count_unstaged(cx, &oldest);
            buffer = oldest;
        }
        buffer.clear();
        buffer.extend_from_slice(packet);
        cx.stats.staged_packets.add(1);
        cx.stats.staged_bytes.add(packet.len() as u64);
        self.staged.push_back(buffer);
    }

    /// The peer was heard of by `path`.
    fn roam(&mut self, cx: &mut Context, now: Instant, path: Path) {
        if self.path == Some(path) {
            return;
        }
        let (old, from, new, to) = match (self.path, path) {
            (Some(Path::Udp { remote: old, local: from }), Path::Udp { remote: new, local: to }) => {
                (old, from, new, to)
            }
            (Some(Path::Udp { .. }), Path::Relay(_)) | (Some(Path::Relay(_)), Path::Udp { .. } | Path::Relay(_))
                if cx.roaming == Roaming::WithinUdp =>
            {
                return;
            }
            (None | Some(Path::Udp { .. } | Path::Relay(_)), Path::Udp { .. } | Path::Relay(_)) => {
                self.path = Some(path);
                return self.report_path(cx, now);
            }
        };
        if old == new && to.is_none() {
            // The driver could not tell where this one arrived: what was known stays.
            return;
        }
        self.path = Some(path);
        if old == new && from.is_none() {
            // Our own address was learnt; the peer is where it was.
            self.reported.0 = Some(path);
            return;
        }
        self.report_path(cx, now);
    }

    /// Tells the control side of the path in use, unless it was told of another a moment ago.
    fn report_path(&mut self, cx: &mut Context, now: Instant) {
        let (from, at) = self.reported;
        let soon = at.is_some_and(|at| now.saturating_duration_since(at) < PATH_REPORT_PAUSE);
        if let Some(to) = self.path
            && from != Some(to)
            && !soon
        {
            self.reported = (Some(to), Some(now));
            cx.report(Event::PathChanged { peer: self.config.public_key, from, to });
        }
    }

    /// Sends the first `len` bytes of the scratch buffer.
    fn send(&mut self, cx: &mut Context, now: Instant, path: Path, len: usize) -> bool {
        self.traffic_at = now;
        let queued = cx.transmit(path, len);
        if queued {
            self.tx.0 += len as u64;
        }
        queued
    }

    /// Sends what waited for the session.
    fn flush(&mut self, cx: &mut Context, now: Instant) {
        let Some(path) = self.path else { return };
        while let Some((tunnel, _)) = &mut self.tunnel
            && let Some(len) = tunnel.held_back(&mut cx.scratch)
        {
            self.send(cx, now, path, len);
        }
        while let Some(packet) = self.staged.pop_front() {
            count_unstaged(cx, &packet);
            let Some((tunnel, _)) = &mut self.tunnel else { return };
            let sealed = seal_padded(tunnel, &mut cx.padding, cx.mtu, &packet, &mut cx.scratch);
            if let Some(len) = sealed
                && self.send(cx, now, path, len)
            {
                self.tx.1 += 1;
                self.data_at = Some(now);
                cx.stats.sent.packet(packet.len());
            }
        }
        self.staged.shrink_to_fit();
    }

    fn drop_staged(&mut self, cx: &mut Context, reason: PacketError) {
        cx.stats.drop_packets(reason, self.staged.len() as u64);
        for packet in self.staged.drain(..) {
            count_unstaged(cx, &packet);
        }
        self.staged.shrink_to_fit();
    }
}

fn configured_path(endpoint: SocketAddr) -> Path {
    let remote = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
    Path::Udp { remote, local: None }
}

fn count_unstaged(cx: &Context, packet: &[u8]) {
    cx.stats.staged_packets.sub(1);
    cx.stats.staged_bytes.sub(packet.len() as u64);
}

/// Seals with zeros behind the packet, which receivers cut off by the length in its IP header.
fn seal_padded(tunnel: &mut Tunnel, padding: &mut [u8], mtu: usize, packet: &[u8], out: &mut [u8]) -> Option<usize> {
    let padded = inner::padded(packet.len(), mtu);
    if padded == packet.len() {
        return tunnel.seal(packet, out);
    }
    if padded > padding.len() || out.len() < padded + DATA_OVERHEAD {
        return None;
    }
    padding[..packet.len()].copy_from_slice(packet);
    padding[packet.len()..padded].fill(0);
    tunnel.seal(&padding[..padded], out)
}
