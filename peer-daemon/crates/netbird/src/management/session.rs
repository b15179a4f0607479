//! Which call comes when: no I/O in here, time and randomness are arguments.
//!
//! ```text
//! Login ──known──▶ OpenStream ──▶ messages … ──lost──▶ wait ──▶ OpenStream
//!   │ refused        │ refused: wait, Login
//!   ├─ setup key ──▶ Register ──▶ OpenStream
//!   │                  └─ refused: wait long, Login
//!   └─ none ───────▶ wait long, Login
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;

use super::error::Class;
use super::{Error, SetupKey, SyncMessage};
use crate::backoff::{Backoff, Schedule};
use crate::proto::management::LoginResponse;

/// A stream that lived this long was a good one: the next wait is short again.
const STABLE: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A login or registration succeeded.
    LoggedIn(Box<LoginResponse>),
    /// It failed.
    LoginFailed {
        /// Why.
        error: Error,
        /// The setup key to register with, if there is one.
        setup_key: Option<SetupKey>,
    },
    /// The stream is open.
    StreamOpened,
    /// A message came by it.
    Message(Arc<SyncMessage>),
    /// It could not be opened, or is over.
    StreamFailed(Error),
    /// Somebody changed something, e.g. the setup key: wait no longer.
    Retry,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Log in without a key.
    Login,
    /// Log in with this key.
    Register(SetupKey),
    /// Open the stream.
    OpenStream,
}

/// What the owner wants to know.
#[derive(Debug)]
pub enum Event {
    /// The server knows us.
    LoggedIn {
        /// Configuration: signal, relays, own address.
        response: Box<LoginResponse>,
        /// The setup key was needed for it.
        by_setup_key: bool,
    },
    /// The stream is open.
    Connected,
    /// A message of it: the map, or fresh credentials. The first after [`Event::Connected`] is complete.
    Update(Arc<SyncMessage>),
    /// The server is away or failed us; what it said last stays in force.
    Disconnected {
        /// Why.
        error: Error,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// The server does not know us (or no longer), and there is no setup key.
    NeedsSetupKey {
        /// The server's words.
        error: Error,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// The server takes neither us nor the setup key.
    Refused {
        /// The server's words.
        error: Error,
        /// When the next attempt is made.
        retry_in: Duration,
    },
}

#[derive(Debug)]
enum State {
    Waiting { until: Instant, login: bool },
    LoggingIn { register: bool },
    Opening,
    Streaming { since: Instant },
}

/// The machine. Drive it: [`Self::handle_input`] and [`Self::handle_timeout`], then drain [`Self::poll_action`] and
/// [`Self::poll_event`], then sleep until [`Self::poll_timeout`].
#[derive(Debug)]
pub struct Session<R> {
    state: State,
    away: Backoff,
    refused: Backoff,
    rng: R,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

impl<R: Rng> Session<R> {
    /// Wants to log in at `now`.
    #[must_use]
    pub fn new(now: Instant, rng: R) -> Self {
        Self {
            state: State::Waiting { until: now, login: true },
            away: Backoff::new(Schedule::RECONNECT),
            refused: Backoff::new(Schedule::REFUSED),
            rng,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes what happened. What does not fit the state comes late and is ignored.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match (input, &self.state) {
            (Input::LoggedIn(response), &State::LoggingIn { register }) => {
                self.refused.reset();
                self.events.push_back(Event::LoggedIn { response, by_setup_key: register });
                self.open();
            }
            (Input::LoginFailed { error, setup_key }, &State::LoggingIn { register }) => {
                self.login_failed(now, error, setup_key, register);
            }
            (Input::StreamOpened, State::Opening) => {
                self.state = State::Streaming { since: now };
                self.events.push_back(Event::Connected);
            }
            (Input::Message(message), State::Streaming { .. }) => self.events.push_back(Event::Update(message)),
            (Input::StreamFailed(error), &State::Streaming { since }) => {
                if now.saturating_duration_since(since) >= STABLE {
                    self.away.reset();
                }
                self.stream_failed(now, error);
            }
            (Input::StreamFailed(error), State::Opening) => self.stream_failed(now, error),
            (Input::Retry, &State::Waiting { login, .. }) => {
                self.away.reset();
                self.refused.reset();
                self.state = State::Waiting { until: now, login };
            }
            _ => {}
        }
    }

    /// Acts on time that has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Waiting { until, login } if until <= now => {
                if login {
                    self.state = State::LoggingIn { register: false };
                    self.actions.push_back(Action::Login);
                } else {
                    self.open();
                }
            }
            _ => {}
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    /// What to do next. Each action is answered by an input before there is another.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What to tell the owner next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn open(&mut self) {
        self.state = State::Opening;
        self.actions.push_back(Action::OpenStream);
    }

    fn login_failed(&mut self, now: Instant, error: Error, setup_key: Option<SetupKey>, register: bool) {
        match (error.class(), setup_key) {
            (Class::Refused, Some(key)) if !register => {
                self.state = State::LoggingIn { register: true };
                self.actions.push_back(Action::Register(key));
            }
            (Class::Refused, None) if !register => {
                let retry_in = self.wait_refused(now);
                self.events.push_back(Event::NeedsSetupKey { error, retry_in });
            }
            (Class::Refused | Class::SetupKey, _) => {
                let retry_in = self.wait_refused(now);
                self.events.push_back(Event::Refused { error, retry_in });
            }
            (Class::Transient | Class::Garbage, _) => self.wait_away(now, error, true),
        }
    }

    fn stream_failed(&mut self, now: Instant, error: Error) {
        let login = error.class() == Class::Refused;
        self.wait_away(now, error, login);
    }

    fn wait_refused(&mut self, now: Instant) -> Duration {
        let wait = self.refused.wait(&mut self.rng);
        self.state = State::Waiting { until: now + wait, login: true };
        wait
    }

    fn wait_away(&mut self, now: Instant, error: Error, login: bool) {
        let retry_in = self.away.wait(&mut self.rng);
        self.state = State::Waiting { until: now + retry_in, login };
        self.events.push_back(Event::Disconnected { error, retry_in });
    }
}

#[cfg(test)]
mod tests;
