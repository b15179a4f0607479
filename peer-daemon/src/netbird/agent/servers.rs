//! What the servers say of themselves.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use peer_core::reach::{Failure, Step};
use peer_identity::Registration;
use peer_mesh::Input;
use peer_netbird::management::{Class, Error, Event};
use peer_netbird::server::ServerUrl;
use peer_netbird::signal;

use super::super::dial::Dialer;
use super::super::messages;
use super::super::view::{Link, Login};
use super::{Agent, Server};

impl Agent<'_> {
    pub(super) async fn on_management(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::LoggedIn { response, by_setup_key } => {
                if by_setup_key {
                    self.registered();
                }
                self.facts.keep_identity();
                tracing::info!(by_setup_key, server = self.view.management_url, "logged in");
                self.view.board().login = Login::In;
                self.logged_in(*response, by_setup_key);
            }
            Event::Connected => {
                self.outages.reached(&Server::Management);
                tracing::info!("management is connected");
                let mut board = self.view.board();
                board.management = Link { connected: true, error: String::new() };
                board.event("INFO", "NETWORK", "Management connected", &[("url", &self.view.management_url)]);
            }
            Event::Update(message) => self.updated(message).await?,
            Event::Disconnected { error, retry_in } => {
                let was = self.management_lost(&error);
                let what = if was {
                    "management is away: what it said last stays in force"
                } else {
                    "management cannot be reached"
                };
                self.unreached(Server::Management, &error.failure(), retry_in, what);
                if was {
                    // From now on it grows old.
                    self.keeper.write(false, Instant::now()).await;
                }
                if error.class() == Class::Refused {
                    self.latch.not_ready("the server no longer takes this peer; it logs in again");
                }
            }
            Event::NeedsSetupKey { error, retry_in } => {
                let expired = error.to_string().contains("login has expired");
                let login = if expired { Login::Expired } else { Login::NeedsSetupKey };
                let remedy = "give it a setup key by NB_SETUP_KEY or --setup-key-file";
                self.turned_away(login, &error, retry_in, remedy);
            }
            Event::Refused { error, retry_in } => {
                let remedy = "give it a setup key that is valid, not used up and of this account";
                self.turned_away(Login::Refused, &error, retry_in, remedy);
            }
        }
        Ok(())
    }

    pub(super) fn on_signal(&mut self, event: signal::Event) {
        let now = Instant::now();
        match event {
            signal::Event::Connected => {
                self.outages.reached(&Server::Signal);
                tracing::info!("signal is connected");
                self.view.board().signal = Link { connected: true, error: String::new() };
                self.view.mesh().set_signal(true, now);
            }
            signal::Event::Disconnected { error, retry_in } => {
                let link = Link { connected: false, error: error.to_string() };
                let was = std::mem::replace(&mut self.view.board().signal, link).connected;
                let what = if was { "signal is away" } else { "signal cannot be reached" };
                self.unreached(Server::Signal, &error.failure(), retry_in, what);
                self.view.mesh().set_signal(false, now);
            }
            signal::Event::Message { from, message } => {
                if let Some(message) = messages::received(message) {
                    self.view.mesh().handle(from, Input::Message(message), now);
                }
            }
        }
    }

    /// Goes by what the session says of signal and relays.
    pub(super) fn connect_servers(&mut self) {
        self.connect_signal();
        self.set_relays();
        self.set_stun_servers();
    }

    fn connect_signal(&mut self) {
        let Some(wanted) = &self.session.servers().signal else { return };
        let scheme = if wanted.tls { "https" } else { "http" };
        // Old servers put a scheme in front.
        let authority = wanted.authority.rsplit("://").next().unwrap_or_default();
        let server: ServerUrl = match format!("{scheme}://{authority}").parse() {
            Ok(server) => server,
            Err(error) => {
                let error = format!("management names no usable signal server: {error}");
                let remedy = Some("correct the signal server's address in the configuration of management");
                let failure = Failure { step: Step::Name, error, remedy };
                if self.outages.failed(Server::Signal, &failure) {
                    tracing::warn!(server = authority, step = failure.step.name(), remedy, "{failure}");
                }
                self.view.board().signal.error = failure.error;
                return;
            }
        };
        if self.signal.as_ref().is_some_and(|(current, _)| *current == server) {
            return;
        }
        let mut board = self.view.board();
        board.signal = Link::default();
        board.signal_url = server.to_string();
        drop(board);
        self.view.mesh().set_signal(false, Instant::now());
        // The outage of another server is not this one's.
        self.outages.retain(|outage| *outage != Server::Signal);
        let options = signal::Options { server: server.clone(), identity: self.settings.private_key.clone() };
        let dialer = Dialer(self.connector.clone());
        self.signal = Some((server, signal::spawn(options, dialer, Arc::clone(&self.view.signal))));
    }

    /// Whether it was there until now.
    fn management_lost(&self, error: &Error) -> bool {
        let mut board = self.view.board();
        let link = Link { connected: false, error: error.to_string() };
        let was = std::mem::replace(&mut board.management, link).connected;
        if was {
            let metadata = [("url", self.view.management_url.as_str()), ("error", &error.to_string())];
            board.event("WARNING", "NETWORK", "Management disconnected", &metadata);
        }
        was
    }

    fn turned_away(&mut self, login: Login, error: &Error, retry_in: Duration, remedy: &'static str) {
        self.management_lost(error);
        self.latch.not_ready(format!("the server does not take this peer: {error}"));
        let failure = Failure { step: Step::Login, error: error.to_string(), remedy: Some(remedy) };
        self.unreached(Server::Management, &failure, retry_in, "the server does not take this peer");
        let mut board = self.view.board();
        if std::mem::replace(&mut board.login, login) != login {
            let metadata = [("url", self.view.management_url.as_str()), ("error", &error.to_string())];
            board.event("ERROR", "AUTHENTICATION", format!("Login refused: {error}"), &metadata);
        }
    }

    /// Logs a failure; at the level of warnings only what is new in it.
    fn unreached(&mut self, server: Server, failure: &Failure, retry_in: Duration, what: &str) {
        let url = match server {
            Server::Management => self.view.management_url.clone(),
            Server::Signal => self.view.board().signal_url.clone(),
        };
        let (step, error, remedy) = (failure.step.name(), &failure.error, failure.remedy);
        if self.outages.failed(server, failure) {
            tracing::warn!(server = url, step, error, remedy, ?retry_in, "{what}");
        } else {
            tracing::debug!(server = url, step, error, ?retry_in, "{what}");
        }
    }

    fn registered(&self) {
        let registration = Registration {
            public_key: self.own,
            management_url: self.view.management_url.clone(),
            by_setup_key: true,
            at: SystemTime::now(),
        };
        if let Err(error) = registration.write(&self.dir) {
            tracing::warn!(%error, "how this peer was registered is not kept");
        }
    }
}
