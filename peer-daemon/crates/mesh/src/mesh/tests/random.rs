//! Whatever happens, some things hold.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Signal(bool),
    Home(Option<&'static str>),
    Peers(u8, bool, bool),
    Message(u8, Message),
    /// Of the attempt so many before the last.
    Up(u8, PathKind, u32),
    Down(u8, PathKind, u32),
    Candidates,
    Handshake(u8),
    Traffic(u8),
    Wanted(u8),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let url = || select(vec![None, Some(HOME), Some(REMOTE)]);
    let offer = (url(), any::<bool>(), prop::option::of(0..3_u8)).prop_map(|(url, ice, session)| Offer {
        credentials: ice.then(remote_credentials),
        session: session.map(|number| [number; 5]),
        ..remote_offer(url)
    });
    let kind = || select(vec![PathKind::Relay, PathKind::Turn, PathKind::Direct]);
    let message = prop_oneof![
        4 => offer.clone().prop_map(Message::Offer),
        4 => offer.prop_map(Message::Answer),
        1 => Just(Message::GoIdle),
        1 => Just(Message::Candidate("x".into())),
    ];
    let peer = 0..3_u8;
    prop_oneof![
        1 => any::<bool>().prop_map(Event::Signal),
        2 => url().prop_map(Event::Home),
        1 => (0..4_u8, any::<bool>(), any::<bool>()).prop_map(|(count, lazy, able)| Event::Peers(count, lazy, able)),
        6 => (peer.clone(), message).prop_map(|(peer, message)| Event::Message(peer, message)),
        6 => (peer.clone(), kind(), 0..2_u32).prop_map(|(peer, kind, back)| Event::Up(peer, kind, back)),
        2 => (peer.clone(), kind(), 0..2_u32).prop_map(|(peer, kind, back)| Event::Down(peer, kind, back)),
        1 => Just(Event::Candidates),
        2 => peer.clone().prop_map(Event::Handshake),
        1 => peer.clone().prop_map(Event::Traffic),
        1 => peer.prop_map(Event::Wanted),
        6 => select(vec![1, 100, 1000, 5000, 40_000, 300_000, 1_000_000]).prop_map(Event::Pass),
    ]
}

/// What a driver knows of a peer.
#[derive(Default)]
struct Driver {
    relay: Opened,
    ice: Opened,
    path: Option<Path>,
}

/// What was asked for of one kind.
#[derive(Default)]
struct Opened {
    /// Attempt that was not closed, and its path once it is up.
    open: Option<(u32, Option<(PathKind, Path)>)>,
    last: u32,
}

impl Opened {
    fn open(&mut self, attempt: u32) -> Result<(), TestCaseError> {
        prop_assert!(self.open.is_none_or(|(_, path)| path.is_none()) && attempt != self.last, "opened over another");
        (self.open, self.last) = (Some((attempt, None)), attempt);
        Ok(())
    }

    fn close(&mut self, attempt: u32) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.open.take().map(|(open, _)| open), Some(attempt));
        Ok(())
    }

    fn path(&self) -> Option<(PathKind, Path)> {
        self.open?.1
    }
}

impl Driver {
    fn carry_out(&mut self, action: &Action) -> Result<(), TestCaseError> {
        match *action {
            Action::OpenRelay { attempt, .. } => self.relay.open(attempt)?,
            Action::CloseRelay { attempt } => self.relay.close(attempt)?,
            Action::OpenIce { attempt, .. } => self.ice.open(attempt)?,
            Action::CloseIce { attempt } => self.ice.close(attempt)?,
            Action::SetPath(path) => {
                prop_assert_eq!(Some(path), self.best().map(|(_, path)| path), "the best that is up");
                self.path = Some(path);
            }
            Action::ClearPath => self.path = None,
            Action::Handshake => prop_assert!(self.path.is_some(), "there must be a way for it"),
            Action::Send(_) | Action::RemoteCandidate(_) => {}
        }
        Ok(())
    }

    fn best(&self) -> Option<(PathKind, Path)> {
        self.relay.path().into_iter().chain(self.ice.path()).max_by_key(|(kind, _)| *kind)
    }

    fn opened(&mut self, kind: PathKind) -> &mut Opened {
        if kind == PathKind::Relay { &mut self.relay } else { &mut self.ice }
    }
}

/// Number of a peer by its key.
fn key(peer: u8) -> PublicKey {
    PublicKey([1 + peer * 60; 32])
}

struct Run {
    lab: Lab,
    drivers: HashMap<PublicKey, Driver>,
    signal: bool,
}

impl Run {
    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        let now = self.lab.now;
        let mesh = &mut self.lab.mesh;
        match event {
            Event::Signal(up) => {
                self.signal = up;
                mesh.set_signal(up, now);
            }
            Event::Home(url) => mesh.set_home_relay(url.map(server), now),
            Event::Peers(count, lazy, able) => {
                let remotes = (0..count).map(|peer| Remote { key: key(peer), can_be_lazy: able });
                mesh.set_peers(remotes, lazy, now);
                self.settle()?;
                self.drivers.retain(|peer, _| (0..count).any(|number| key(number) == *peer));
            }
            Event::Message(peer, message) => mesh.handle(key(peer), Input::Message(message), now),
            Event::Up(peer, kind, back) => {
                let opened = self.drivers.entry(key(peer)).or_default().opened(kind);
                let attempt = opened.last.wrapping_sub(back);
                let path = path_of(kind, attempt);
                if let Some((open, is)) = &mut opened.open
                    && *open == attempt
                {
                    *is = Some((kind, path));
                }
                mesh.handle(key(peer), Input::PathUp { kind, attempt, path }, now);
            }
            Event::Down(peer, kind, back) => {
                let opened = self.drivers.entry(key(peer)).or_default().opened(kind);
                let attempt = opened.last.wrapping_sub(back);
                opened.open = opened.open.filter(|(open, _)| *open != attempt);
                mesh.handle(key(peer), Input::PathDown { kind, attempt }, now);
            }
            Event::Candidates => mesh.candidates_changed(now),
            Event::Handshake(peer) => mesh.handle(key(peer), Input::Handshake(now), now),
            Event::Traffic(peer) => mesh.handle(key(peer), Input::Traffic(now), now),
            Event::Wanted(peer) => mesh.handle(key(peer), Input::Wanted, now),
            Event::Pass(millis) => return self.pass(Duration::from_millis(millis)),
        }
        self.settle()
    }

    fn pass(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let end = self.lab.now + time;
        let mut rounds = 0_u64;
        while let Some(at) = self.lab.mesh.poll_timeout().filter(|at| *at <= end) {
            self.lab.now = self.lab.now.max(at);
            self.lab.mesh.handle_timeout(self.lab.now);
            let next = self.lab.mesh.poll_timeout();
            prop_assert!(next.is_none_or(|next| next > self.lab.now), "what was due is done");
            rounds += 1;
            self.settle()?;
        }
        // Offers of three peers, and what else they wait for.
        prop_assert!(rounds <= 60 + 3 * time.as_secs() / 10, "{rounds} timeouts in {time:?}");
        self.lab.now = end;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        let mut count = 0;
        while let Some((peer, action)) = self.lab.mesh.poll_action() {
            count += 1;
            prop_assert!(self.signal || !matches!(action, Action::Send(_)), "nobody to send by: {action:?}");
            self.drivers.entry(peer).or_default().carry_out(&action)?;
        }
        prop_assert!(count <= 3 * 8, "{count} actions at once");
        for (peer, status) in self.lab.mesh.statuses() {
            let driver = self.drivers.entry(peer).or_default();
            prop_assert_eq!(status.state == State::Connected, driver.best().is_some(), "{:?}", peer);
            prop_assert_eq!(status.kind, driver.best().map(|(kind, _)| kind));
            let used = driver.path.is_none_or(|path| driver.best().is_some_and(|(_, best)| best == path));
            prop_assert!(used, "{:?} is used, {:?} is the best", driver.path, driver.best());
            prop_assert!(driver.path.is_none() || status.state == State::Connected, "a path that is gone is left");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_driver_is_never_told_nonsense(ice: bool, events in prop::collection::vec(event(), 0..120)) {
        let mut lab = Lab::of(PublicKey([100; 32]), ice);
        lab.mesh.set_signal(true, lab.now);
        lab.mesh.set_home_relay(Some(server(HOME)), lab.now);
        let mut run = Run { lab, drivers: HashMap::new(), signal: true };
        run.step(Event::Peers(3, false, true))?;
        for event in events {
            run.step(event)?;
        }
    }
}
