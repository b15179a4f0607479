use peer_core::path::{Path, RelayId};
use rand::rngs::StdRng;

use super::*;
use crate::message::{Credentials, Message, Offer};
use crate::types::{PathKind, State};

mod direct;
mod exchange;
mod figures;
mod idle;
mod random;

/// As text this one is the greater, although its bytes are the smaller.
const GREATER: PublicKey = PublicKey([0; 32]);
const SMALLER: PublicKey = PublicKey([0xff; 32]);

const HOME: &str = "rel://home:1";
const REMOTE: &str = "rel://remote:2";

/// One mesh, one peer, and a clock.
struct Lab {
    mesh: Mesh,
    peer: PublicKey,
    now: Instant,
}

impl Lab {
    /// Everything is reached, and the peer was in the first map.
    fn new(own: PublicKey, lazy: bool) -> Self {
        let mut lab = Self::unreached(own);
        lab.mesh.set_signal(true, lab.now);
        lab.mesh.set_home_relay(Some(server(HOME)), lab.now);
        lab.set_peers(lazy);
        lab
    }

    fn controller() -> Self {
        Self::new(GREATER, false)
    }

    fn follower() -> Self {
        Self::new(SMALLER, false)
    }

    fn unreached(own: PublicKey) -> Self {
        Self::of(own, false)
    }

    /// Nothing is reached yet. `ice`: direct paths are sought.
    fn of(own: PublicKey, ice: bool) -> Self {
        let settings = Settings {
            own_key: own,
            wireguard_port: 51820,
            version: "0.1.0".into(),
            greetings: 8,
            inactivity: Duration::from_secs(900),
            ice,
        };
        let peer = if own == GREATER { SMALLER } else { GREATER };
        Self { mesh: Mesh::new(settings, StdRng::seed_from_u64(7)), peer, now: Instant::now() }
    }

    fn set_peers(&mut self, lazy: bool) {
        self.mesh.set_peers([Remote { key: self.peer, can_be_lazy: true }], lazy, self.now);
    }

    fn input(&mut self, input: Input) -> Vec<Action> {
        self.mesh.handle(self.peer, input, self.now);
        self.actions()
    }

    fn offer(&mut self) -> Vec<Action> {
        self.input(Input::Message(Message::Offer(remote_offer(Some(REMOTE)))))
    }

    fn answer(&mut self) -> Vec<Action> {
        self.input(Input::Message(Message::Answer(remote_offer(Some(REMOTE)))))
    }

    fn up(&mut self, attempt: u32) -> Vec<Action> {
        self.input(Input::PathUp { kind: PathKind::Relay, attempt, path: path(attempt) })
    }

    fn down(&mut self, attempt: u32) -> Vec<Action> {
        self.input(Input::PathDown { kind: PathKind::Relay, attempt })
    }

    fn handshake(&mut self) -> Vec<Action> {
        self.input(Input::Handshake(self.now))
    }

    /// Everything that becomes due within `time`, and when it did, in milliseconds from now.
    fn pass(&mut self, time: Duration) -> Vec<(u128, Action)> {
        let (start, end) = (self.now, self.now + time);
        let mut done = Vec::new();
        while let Some(at) = self.mesh.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= self.now || done.is_empty(), "time does not go back");
            self.now = self.now.max(at);
            self.mesh.handle_timeout(self.now);
            let passed = (self.now - start).as_millis();
            done.extend(self.actions().into_iter().map(|action| (passed, action)));
        }
        self.now = end;
        done
    }

    fn passed(&mut self, millis: u64) -> Vec<Action> {
        self.pass(Duration::from_millis(millis)).into_iter().map(|(_, action)| action).collect()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.mesh.poll_action()).map(|(_, action)| action).collect()
    }

    fn state(&self) -> State {
        self.mesh.status(&self.peer).expect("in the map").state
    }

    /// Connected by the relay, with a session.
    fn connect(&mut self) {
        self.passed(10);
        self.answer();
        self.up(1);
        self.handshake();
        assert_eq!(self.state(), State::Connected);
    }
}

fn server(url: &str) -> RelayServer {
    RelayServer { url: url.into(), address: None }
}

fn remote_offer(relay: Option<&str>) -> Offer {
    Offer { relay: relay.map(server), ..Offer::default() }
}

fn own_offer() -> Offer {
    Offer { wireguard_port: 51820, version: "0.1.0".into(), relay: Some(server(HOME)), ..Offer::default() }
}

fn send_offer() -> Action {
    Action::Send(Message::Offer(own_offer()))
}

fn send_answer() -> Action {
    Action::Send(Message::Answer(own_offer()))
}

fn open(attempt: u32, url: &str) -> Action {
    Action::OpenRelay { attempt, server: server(url) }
}

fn close(attempt: u32) -> Action {
    Action::CloseRelay { attempt }
}

fn remote_credentials() -> Credentials {
    Credentials { ufrag: "remote".into(), pwd: "secret".to_owned().into() }
}

fn path(attempt: u32) -> Path {
    path_of(PathKind::Relay, attempt)
}

/// A path that an attempt might find.
fn path_of(kind: PathKind, attempt: u32) -> Path {
    match kind {
        PathKind::Relay => Path::Relay(RelayId { connection: 1, peer: attempt }),
        PathKind::Turn => Path::Relay(RelayId { connection: 2, peer: attempt }),
        PathKind::Direct => Path::Udp { remote: ([192, 0, 2, 1], attempt as u16).into(), local: None },
    }
}
