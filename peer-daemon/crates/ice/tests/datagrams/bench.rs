//! One instance, and messages made by hand.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::stun::{StunMessage, TransId};
use peer_core::key::PublicKey;
use peer_ice::{Credentials, Event, Ice, Session, Settings, Transmit};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use ring::hmac::{Context, HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key};

pub(crate) const PEER: PublicKey = PublicKey([7; 32]);
pub(crate) const LOCAL: &str = "10.0.0.1:51820";
pub(crate) const REMOTE: &str = "192.0.2.1:51820";

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) struct Bench {
    pub(crate) ice: Ice,
    pub(crate) local: Credentials,
    pub(crate) remote: Credentials,
    pub(crate) now: Instant,
}

impl Bench {
    /// With an open session, controlled.
    pub(crate) fn new() -> Self {
        let mut bench = Self::closed();
        bench.open(1);
        bench
    }

    pub(crate) fn closed() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let (local, remote, now) = (Credentials::generate(&mut rng), Credentials::generate(&mut rng), Instant::now());
        let mut ice = Ice::new(Settings::default(), rng);
        ice.set_local([address(LOCAL)], now);
        Self { ice, local, remote, now }
    }

    pub(crate) fn open(&mut self, attempt: u32) {
        let (local, remote) = (self.local.clone(), self.remote.clone());
        self.ice.open(&Session { peer: PEER, attempt, local, remote, controlling: false }, self.now);
    }

    /// A check of the peer, with this password.
    pub(crate) fn check(&self, pwd: &str) -> Vec<u8> {
        let username = format!("{}:{}", self.local.ufrag, self.remote.ufrag);
        encode(StunMessage::binding_request(&username, TransId::new(), true, 9, 1_862_270_975, true), pwd)
    }

    /// The peer's response to a request of ours that saw us at `mapped`.
    pub(crate) fn respond(&self, request: &[u8], mapped: &str) -> Vec<u8> {
        let id = StunMessage::parse(request).expect("a check").trans_id();
        encode(StunMessage::binding_reply(id, address(mapped)), &self.remote.pwd)
    }

    pub(crate) fn receive(&mut self, source: &str, bytes: &[u8]) {
        self.ice.handle_datagram(self.now, address(source), Some(address(LOCAL).ip()), bytes);
    }

    pub(crate) fn after(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.ice.handle_timeout(self.now);
    }

    pub(crate) fn transmits(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.ice.poll_transmit()).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.ice.poll_event()).collect()
    }

    /// The peer checks, we answer and check, it answers: a selected pair.
    pub(crate) fn connect(&mut self) {
        let check = self.check(&self.local.pwd);
        self.receive(REMOTE, &check);
        let sent = self.transmits();
        let request = sent.iter().find(|transmit| is_request(&transmit.bytes)).expect("a triggered check");
        let response = self.respond(&request.bytes, LOCAL);
        self.receive(REMOTE, &response);
        let up = Event::Up { peer: PEER, attempt: 1, remote: address(REMOTE), local: Some(address(LOCAL).ip()) };
        assert_eq!(self.events().last(), Some(&up));
        self.transmits();
    }
}

pub(crate) fn is_request(bytes: &[u8]) -> bool {
    bytes[..2] == [0, 1]
}

fn encode(message: StunMessage<'_>, pwd: &str) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    let length = message.to_bytes(Some(pwd.as_bytes()), &mut bytes, hmac).expect("room");
    bytes.truncate(length);
    bytes
}

fn hmac(key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
    let mut context = Context::with_key(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    payloads.iter().for_each(|payload| context.update(payload));
    context.sign().as_ref().try_into().expect("20 bytes")
}

/// Appends attribute 0x8100 behind FINGERPRINT, as the official client does.
pub(crate) fn with_candidate_ids(mut bytes: Vec<u8>) -> Vec<u8> {
    let value = [[b'a'; 32].as_slice(), b":", &[b'b'; 32]].concat();
    bytes.extend([0x81, 0x00, 0, 65]);
    bytes.extend(value);
    bytes.extend([0; 3]);
    let length = u16::try_from(bytes.len() - 20).expect("short");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes
}
