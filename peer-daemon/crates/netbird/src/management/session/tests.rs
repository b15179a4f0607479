use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tonic::Code;

use super::*;
use crate::call::CallError;
use crate::management::error::REGISTER;

fn error(call: &'static str, code: Code) -> Error {
    CallError::Status { call, code, message: String::new() }.into()
}

fn ended() -> Error {
    CallError::Ended { call: "Sync" }.into()
}

fn key() -> SetupKey {
    "A2C8E62B-38F5-4553-B31E-DD66C696CEBB".parse().expect("a key")
}

fn refusal(call: &'static str, setup_key: Option<SetupKey>) -> Input {
    Input::LoginFailed { error: error(call, Code::PermissionDenied), setup_key }
}

struct Driver {
    session: Session<StdRng>,
    now: Instant,
}

impl Driver {
    fn new() -> Self {
        let now = Instant::now();
        Self { session: Session::new(now, StdRng::seed_from_u64(7)), now }
    }

    /// A session whose stream is open.
    fn streaming() -> Self {
        let mut driver = Self::new();
        driver.tick();
        assert_eq!(driver.action(), "Login");
        driver.input(Input::LoggedIn(Box::default()));
        assert_eq!((driver.event(), driver.action()), ("LoggedIn".to_owned(), "OpenStream"));
        driver.input(Input::StreamOpened);
        assert_eq!(driver.event(), "Connected");
        driver
    }

    fn input(&mut self, input: Input) {
        self.session.handle_input(self.now, input);
    }

    fn tick(&mut self) {
        self.session.handle_timeout(self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.tick();
    }

    /// Lets the time of the wait pass; its length.
    fn wait(&mut self) -> Duration {
        let wait = self.session.poll_timeout().expect("a wait").saturating_duration_since(self.now);
        self.pass(wait);
        wait
    }

    fn action(&mut self) -> &'static str {
        match self.session.poll_action() {
            None => "",
            Some(Action::Login) => "Login",
            Some(Action::Register(_)) => "Register",
            Some(Action::OpenStream) => "OpenStream",
        }
    }

    fn event(&mut self) -> String {
        match self.session.poll_event() {
            None => String::new(),
            Some(Event::LoggedIn { by_setup_key: false, .. }) => "LoggedIn".to_owned(),
            Some(Event::LoggedIn { by_setup_key: true, .. }) => "Registered".to_owned(),
            Some(Event::Connected) => "Connected".to_owned(),
            Some(Event::Update(_)) => "Update".to_owned(),
            Some(Event::Disconnected { error, .. }) => format!("Disconnected {:?}", error.class()),
            Some(Event::NeedsSetupKey { .. }) => "NeedsSetupKey".to_owned(),
            Some(Event::Refused { .. }) => "Refused".to_owned(),
        }
    }
}

#[test]
fn a_known_peer_never_shows_its_key() {
    let mut driver = Driver::streaming();
    driver.input(Input::Message(Arc::default()));
    assert_eq!((driver.event(), driver.action()), ("Update".to_owned(), ""));
}

#[test]
fn an_unknown_one_registers() {
    let mut driver = Driver::new();
    driver.tick();
    assert_eq!(driver.action(), "Login");
    driver.input(refusal("Login", Some(key())));
    assert_eq!((driver.event(), driver.action()), (String::new(), "Register"));
    driver.input(Input::LoggedIn(Box::default()));
    assert_eq!((driver.event(), driver.action()), ("Registered".to_owned(), "OpenStream"));
}

#[test]
fn without_a_key_it_waits_for_one() {
    let mut driver = Driver::new();
    driver.tick();
    for _ in 0..10 {
        assert_eq!(driver.action(), "Login");
        driver.input(refusal("Login", None));
        assert_eq!((driver.event(), driver.action()), ("NeedsSetupKey".to_owned(), ""));
        assert!((4..=72).contains(&driver.wait().as_secs()));
    }
    driver.action();
    driver.input(refusal("Login", None));
    driver.event();
    driver.input(Input::Retry);
    assert_eq!(driver.wait(), Duration::ZERO);
    assert_eq!(driver.action(), "Login");
}

#[test]
fn a_refused_key_is_not_tried_in_a_loop() {
    let mut driver = Driver::new();
    driver.tick();
    for code in [Code::NotFound, Code::PermissionDenied] {
        assert_eq!(driver.action(), "Login");
        driver.input(refusal("Login", Some(key())));
        assert_eq!(driver.action(), "Register");
        driver.input(Input::LoginFailed { error: error(REGISTER, code), setup_key: Some(key()) });
        assert_eq!((driver.event(), driver.action()), ("Refused".to_owned(), ""));
        assert!(driver.wait() >= Duration::from_secs(4));
    }
}

#[test]
fn a_registration_lost_on_the_way_starts_with_a_login() {
    let mut driver = Driver::new();
    driver.tick();
    driver.action();
    driver.input(refusal("Login", Some(key())));
    assert_eq!(driver.action(), "Register");
    driver.input(Input::LoginFailed { error: error(REGISTER, Code::Unavailable), setup_key: Some(key()) });
    assert_eq!(driver.event(), "Disconnected Transient");
    driver.wait();
    assert_eq!(driver.action(), "Login");
}

#[test]
fn a_lost_stream_is_opened_again_without_a_login() {
    let mut driver = Driver::streaming();
    for failure in [ended(), error("Sync", Code::Unavailable), error("Sync", Code::InvalidArgument)] {
        driver.input(Input::StreamFailed(failure));
        assert_eq!((driver.event(), driver.action()), ("Disconnected Transient".to_owned(), ""));
        driver.wait();
        assert_eq!(driver.action(), "OpenStream");
    }
    driver.input(Input::StreamOpened);
    assert_eq!(driver.event(), "Connected");
}

#[test]
fn a_stream_that_is_refused_means_a_login() {
    let mut driver = Driver::streaming();
    driver.input(Input::StreamFailed(error("Sync", Code::PermissionDenied)));
    assert_eq!(driver.event(), "Disconnected Refused");
    driver.wait();
    assert_eq!(driver.action(), "Login");
}

#[test]
fn waits_grow_unless_the_stream_was_a_good_one() {
    let mut driver = Driver::streaming();
    let mut last = Duration::ZERO;
    for _ in 0..20 {
        driver.input(Input::StreamFailed(ended()));
        last = driver.wait();
        driver.input(Input::StreamOpened);
    }
    // With the time of an attempt itself: back within 10 s of the server's return.
    assert!((2000..=6000).contains(&last.as_millis()), "{last:?}");
    driver.pass(STABLE);
    driver.input(Input::StreamFailed(ended()));
    assert!(driver.wait() <= Duration::from_millis(1200));
}

#[test]
fn what_comes_late_is_ignored() {
    let mut driver = Driver::streaming();
    driver.input(Input::StreamFailed(ended()));
    driver.event();
    for input in [
        Input::Message(Arc::default()),
        Input::StreamOpened,
        Input::LoggedIn(Box::default()),
        Input::StreamFailed(ended()),
        Input::LoginFailed { error: ended(), setup_key: None },
    ] {
        driver.input(input);
        assert_eq!((driver.event(), driver.action()), (String::new(), ""));
    }
}

proptest! {
    /// Whatever comes: there is a timer, or exactly one action is out, or the stream is open; and the key is shown after a
    /// refused login only.
    #[test]
    fn it_never_gets_stuck_and_never_shows_the_key_unasked(steps in prop::collection::vec(0..9_u8, 0..200)) {
        let mut driver = Driver::new();
        driver.tick();
        let (mut out, mut open) = (driver.action() == "Login", false);
        for step in steps {
            let refused = step == 1;
            match step {
                0 => driver.input(Input::LoggedIn(Box::default())),
                1 => driver.input(refusal("Login", Some(key()))),
                2 => driver.input(refusal("Login", None)),
                3 => driver
                    .input(Input::LoginFailed { error: error(REGISTER, Code::NotFound), setup_key: Some(key()) }),
                4 => driver.input(Input::StreamOpened),
                5 => driver.input(Input::StreamFailed(ended())),
                6 => driver.input(Input::StreamFailed(error("Sync", Code::PermissionDenied))),
                7 => driver.input(Input::Retry),
                _ => driver.pass(Duration::from_secs(100)),
            }
            match driver.action() {
                "" => {}
                action => {
                    prop_assert!(action != "Register" || refused);
                    out = true;
                    open = false;
                }
            }
            prop_assert_eq!(driver.action(), "", "one at a time");
            while let Some(event) = driver.session.poll_event() {
                match event {
                    Event::Connected => (out, open) = (false, true),
                    Event::LoggedIn { .. } => {}
                    _ => (out, open) = (false, false),
                }
            }
            prop_assert!(u8::from(out) + u8::from(open) + u8::from(driver.session.poll_timeout().is_some()) == 1);
        }
    }
}
