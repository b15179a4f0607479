//! What tests share.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::TcpListener;
use std::time::Duration;

use peer_test_control::account::SetupKey;
use peer_test_control::member::{Management, Syncs, meta};
use peer_test_control::proto::management::{NetworkMap, SyncResponse};
use peer_test_control::{Account, KeyPair, Options, Server};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A server on loopback and a key that lets in.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) setup_key: String,
    pub(crate) runtime: Runtime,
}

impl Bench {
    pub(crate) fn start(change: impl FnOnce(&mut Options, &mut Account)) -> Self {
        // The port stays the same over restarts, so it must be known before the first start.
        let probe = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = probe.local_addr().expect("an address");
        drop(probe);
        let mut options = Options::new(&address.to_string());
        options.push_interval = Duration::from_millis(100);
        let mut account = Account::default();
        let setup_key = account.add_setup_key(SetupKey::reusable());
        change(&mut options, &mut account);
        let server = Server::start(options, account, move || TcpListener::bind(address)).expect("a server");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { server, setup_key, runtime }
    }

    /// A member that has registered.
    pub(crate) async fn member(&self, hostname: &str) -> (Management, KeyPair) {
        let keys = KeyPair::generate();
        let mut management = self.management(&keys).await;
        management.login(&meta(hostname), &self.setup_key).await.expect("registered");
        (management, keys)
    }

    pub(crate) async fn management(&self, keys: &KeyPair) -> Management {
        Management::connect(&self.server.url(), keys.clone()).await.expect("a connection")
    }
}

/// The next message of a stream.
pub(crate) async fn next(syncs: &mut Syncs) -> SyncResponse {
    timeout(SECOND * 5, syncs.next()).await.expect("in time").expect("no error").expect("not the end")
}

/// The next map of a stream.
pub(crate) async fn next_map(syncs: &mut Syncs) -> NetworkMap {
    next(syncs).await.network_map.expect("a map")
}
