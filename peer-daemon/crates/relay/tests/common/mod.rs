//! A small relay server, written from the protocol's description, and clients with the shard's end in hand.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use peer_connect::Connector;
use peer_core::batch::DatagramBatch;
use peer_core::key::PublicKey;
use peer_core::path::Path;
use peer_io::relay::{RelayEnd, RelayPort};
use peer_io::stats::ShardStats;
use peer_relay::{Config, Event, RelayStats, Relays, Token};
use tokio::sync::mpsc;

pub(crate) use server::Server;

pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// A client and the shard's end of it.
pub(crate) struct Client {
    pub(crate) key: PublicKey,
    pub(crate) relays: Relays,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) end: RelayEnd,
    pub(crate) shard: ShardStats,
    pub(crate) stats: Arc<RelayStats>,
}

pub(crate) fn token() -> Token {
    Token::new("1893456000", "1cJa2rHq05vm3M/R9PejKM+tVwk2N+4CFDyGtHL/+Sw=").expect("valid")
}

impl Client {
    pub(crate) fn new(seed: u8) -> Self {
        let (port, end) = RelayPort::detached().expect("a descriptor");
        let connector = Connector::new(&peer_connect::Config::default()).expect("settings");
        let (key, stats) = (PublicKey([seed; 32]), Arc::<RelayStats>::default());
        let (relays, events) = Relays::start(Config { connector, port, own: key, stats: Arc::clone(&stats) });
        Self { key, relays, events, end, shard: ShardStats::default(), stats }
    }

    /// One that is connected to `server` as its home.
    pub(crate) async fn at(seed: u8, server: &Server) -> Self {
        let mut client = Self::new(seed);
        client.relays.set_servers(vec![server.url()], Some(token()));
        assert!(matches!(client.event().await, Event::Home(Some(home)) if home.url == server.url()));
        client
    }

    /// Drives the shard's end until there is an event.
    pub(crate) async fn event(&mut self) -> Event {
        let until = Instant::now() + WAIT;
        loop {
            assert!(Instant::now() < until, "no event");
            self.idle();
            match tokio::time::timeout(Duration::from_millis(1), self.events.recv()).await {
                Ok(event) => return event.expect("the task lives"),
                Err(_) => {}
            }
        }
    }

    /// A turn in which nothing arrives.
    pub(crate) fn idle(&mut self) {
        let mut batch = DatagramBatch::with_capacity(1 << 17, 1024);
        self.turn(&mut batch, |batch| assert!(batch.is_empty(), "datagrams that nobody waits for"));
    }

    /// Opens a way and waits for it.
    pub(crate) async fn open(&mut self, peer: PublicKey, server: &Server) -> Path {
        self.relays.open(peer, 1, server.url(), None);
        match self.event().await {
            Event::Up { peer: who, attempt: 1, path } if who == peer => path,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn send(&mut self, path: Path, datagrams: &[&[u8]]) {
        let mut batch = DatagramBatch::with_capacity(1 << 17, 1024);
        for datagram in datagrams {
            assert!(batch.push(datagram, path));
        }
        self.end.send(Instant::now(), &batch, &self.shard);
    }

    /// What a shard's thread does in a turn: batches that have arrived go to `take`.
    pub(crate) fn turn(&mut self, batch: &mut DatagramBatch, mut take: impl FnMut(&DatagramBatch)) {
        self.end.look(Instant::now());
        self.end.handle_timeout(Instant::now());
        for index in 0..self.end.len() {
            batch.clear();
            // Not to be waited for: nothing is there if it is not ready.
            self.end.receive(index, true, Instant::now(), batch, &self.shard);
            self.end.flush(index, Instant::now());
            take(batch);
        }
        self.end.tidy();
    }

    /// Waits for so many datagrams.
    pub(crate) async fn receive(&mut self, count: usize) -> Vec<(Vec<u8>, Path)> {
        let (mut found, until) = (Vec::new(), Instant::now() + WAIT);
        let mut batch = DatagramBatch::with_capacity(1 << 18, 1024);
        while found.len() < count {
            assert!(Instant::now() < until, "{} of {count} datagrams", found.len());
            self.turn(&mut batch, |batch| found.extend(batch.iter().map(|(bytes, path)| (bytes.to_vec(), *path))));
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        found
    }
}
