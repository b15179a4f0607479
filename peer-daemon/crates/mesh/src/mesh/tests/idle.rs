//! Lazy peers.

use super::*;

const INACTIVITY: Duration = Duration::from_secs(900);

/// A lazy peer that has gone idle.
fn idle(own: PublicKey) -> Lab {
    let mut lab = Lab::new(own, true);
    lab.pass(Duration::from_secs(61));
    assert_eq!((lab.state(), lab.mesh.poll_timeout()), (State::Idle, None));
    lab
}

#[test]
fn a_new_lazy_peer_is_greeted_for_a_minute() {
    let mut lab = Lab::new(GREATER, true);
    let offers = lab.pass(Duration::from_secs(61));
    assert!(offers[0].0 <= 1 && offers.len() >= 5, "{offers:?}");
    assert_eq!(lab.state(), State::Idle);
    assert_eq!(lab.passed(3_600_000), []);
}

#[test]
fn many_new_lazy_peers_are_left_alone() {
    let mut lab = Lab::unreached(GREATER);
    lab.mesh.set_signal(true, lab.now);
    lab.mesh.set_home_relay(Some(server(HOME)), lab.now);
    let remotes = |count| (1..=count).map(|n| Remote { key: PublicKey([n; 32]), can_be_lazy: true });
    lab.mesh.set_peers(remotes(9), true, lab.now);
    assert_eq!(lab.mesh.poll_timeout(), None, "nine are more than eight");
    lab.mesh.set_peers(remotes(10), true, lab.now);
    assert_eq!(lab.passed(20), [send_offer()], "the tenth came alone");
}

#[test]
fn an_answer_to_the_greeting_keeps_it_until_nothing_flows() {
    let mut lab = Lab::new(GREATER, true);
    lab.connect();
    for _ in 0..2 {
        // Sessions go on, but they are no data.
        for _ in 0..8 {
            assert_eq!(lab.passed(100_000), []);
            lab.handshake();
        }
        assert_eq!(lab.state(), State::Connected);
        assert_eq!(lab.input(Input::Traffic(lab.now)), []);
    }
    assert_eq!(lab.passed(200_000), []);
    lab.handshake();
    for _ in 0..6 {
        assert_eq!(lab.passed(100_000), []);
        lab.handshake();
    }
    let actions = lab.passed(101_000);
    assert_eq!(actions, [Action::Send(Message::GoIdle), close(1), Action::ClearPath]);
    assert_eq!((lab.state(), lab.mesh.poll_timeout()), (State::Idle, None));
}

#[test]
fn data_or_a_message_wakes_it() {
    let wakes = [
        Input::Wanted,
        Input::Message(Message::Offer(remote_offer(None))),
        Input::Message(Message::Answer(remote_offer(None))),
        Input::Message(Message::Candidate(String::new())),
    ];
    for wake in wakes {
        let mut lab = idle(GREATER);
        lab.input(wake.clone());
        assert_eq!(lab.state(), State::Connecting, "{wake:?}");
        assert_eq!(lab.passed(10), [send_offer()], "{wake:?}");
    }
    let mut lab = idle(GREATER);
    lab.input(Input::Traffic(lab.now));
    lab.input(Input::Message(Message::GoIdle));
    lab.handshake();
    assert_eq!((lab.state(), lab.passed(10)), (State::Idle, vec![]), "these do not");
}

#[test]
fn an_offer_that_wakes_it_connects_without_another_offer() {
    let mut lab = idle(SMALLER);
    assert_eq!(lab.offer(), [send_answer(), open(1, REMOTE)]);
    lab.up(1);
    assert_eq!(lab.handshake(), [Action::SetPath(path(1))]);
    assert_eq!(lab.passed(10_000), []);
}

#[test]
fn the_peers_going_idle_is_followed() {
    let mut lab = Lab::new(GREATER, true);
    lab.connect();
    let actions = lab.input(Input::Message(Message::GoIdle));
    assert_eq!(actions, [close(1), Action::ClearPath], "and not answered");
    assert_eq!((lab.state(), lab.mesh.poll_timeout()), (State::Idle, None));
    assert_eq!((lab.down(1), lab.mesh.poll_timeout()), (vec![], None), "the end of a way that was closed is no loss");
}

#[test]
fn one_that_waits_for_its_handshake_goes_idle_cleanly() {
    let mut lab = Lab::new(SMALLER, true);
    lab.passed(10);
    lab.offer();
    lab.up(1);
    let actions = lab.input(Input::Message(Message::GoIdle));
    assert_eq!(actions, [close(1), Action::ClearPath], "the engine may have learnt the path");
    assert_eq!(lab.passed(10_000), []);
}

#[test]
fn going_idle_is_not_for_those_who_must_stay() {
    let mut lab = Lab::controller();
    lab.connect();
    assert_eq!(lab.input(Input::Message(Message::GoIdle)), []);
    assert_eq!(lab.state(), State::Connected);
}

#[test]
fn laziness_is_switched_on_and_off() {
    let mut lab = idle(GREATER);
    lab.set_peers(false);
    assert_eq!(lab.state(), State::Connecting);
    assert!(lab.passed(3_600_000).len() > 60, "offered to for ever");
    lab.set_peers(true);
    assert_eq!(lab.state(), State::Connecting, "not at once");
    lab.pass(INACTIVITY);
    assert_eq!((lab.state(), lab.mesh.poll_timeout()), (State::Idle, None));
}

#[test]
fn an_old_peer_is_never_idle() {
    let mut lab = Lab::unreached(GREATER);
    lab.mesh.set_signal(true, lab.now);
    lab.mesh.set_home_relay(Some(server(HOME)), lab.now);
    lab.mesh.set_peers([Remote { key: lab.peer, can_be_lazy: false }], true, lab.now);
    lab.pass(INACTIVITY * 2);
    assert_eq!(lab.state(), State::Connecting);
}

#[test]
fn waiting_data_keeps_offers_going() {
    let mut lab = idle(GREATER);
    for _ in 0..30 {
        lab.input(Input::Wanted);
        assert_eq!(lab.state(), State::Connecting);
        lab.pass(Duration::from_secs(60));
    }
    lab.pass(INACTIVITY);
    assert_eq!(lab.state(), State::Idle);
}
