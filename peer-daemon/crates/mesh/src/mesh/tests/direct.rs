//! Direct paths beside the relay.

use super::*;

/// A session of the peer's.
const FIRST: [u8; 5] = [1; 5];
const SECOND: [u8; 5] = [2; 5];

fn lab(own: PublicKey) -> Lab {
    let mut lab = Lab::of(own, true);
    lab.mesh.set_signal(true, lab.now);
    lab.mesh.set_home_relay(Some(server(HOME)), lab.now);
    lab.set_peers(false);
    lab
}

/// The controller, with a session through the relay; a direct path is sought.
fn seeking() -> Lab {
    let mut lab = lab(GREATER);
    lab.passed(10);
    lab.answered(with_ice(FIRST));
    lab.up(1);
    lab.handshake();
    lab
}

fn with_ice(session: [u8; 5]) -> Offer {
    Offer { credentials: Some(remote_credentials()), session: Some(session), ..remote_offer(Some(REMOTE)) }
}

impl Lab {
    fn offered(&mut self, offer: Offer) -> Vec<Action> {
        self.input(Input::Message(Message::Offer(offer)))
    }

    fn answered(&mut self, offer: Offer) -> Vec<Action> {
        self.input(Input::Message(Message::Answer(offer)))
    }

    fn direct_up(&mut self, attempt: u32) -> Vec<Action> {
        self.input(Input::PathUp { kind: PathKind::Direct, attempt, path: path_of(PathKind::Direct, attempt) })
    }

    fn direct_down(&mut self, attempt: u32) -> Vec<Action> {
        self.input(Input::PathDown { kind: PathKind::Direct, attempt })
    }

    fn kind(&self) -> Option<PathKind> {
        self.mesh.status(&self.peer).expect("in the map").kind
    }
}

/// What an offer or an answer of ours says of ICE.
fn said(action: &Action) -> (Credentials, [u8; 5]) {
    let (Action::Send(Message::Offer(offer)) | Action::Send(Message::Answer(offer))) = action else {
        panic!("{action:?} is no offer")
    };
    (offer.credentials.clone().expect("credentials"), offer.session.expect("a session"))
}

fn direct(attempt: u32) -> Action {
    Action::SetPath(path_of(PathKind::Direct, attempt))
}

#[test]
fn the_answer_goes_before_the_search_and_says_what_the_search_uses() {
    let mut lab = lab(SMALLER);
    lab.passed(10);
    let done = lab.offered(with_ice(FIRST));
    let [answer, Action::OpenIce { attempt: 1, local, remote, controlling: false }, relay] = &done[..] else {
        panic!("{done:?}")
    };
    assert_eq!((said(answer).0, remote), (local.clone(), &remote_credentials()));
    assert_eq!(*relay, open(1, REMOTE));
    assert_eq!((local.ufrag.len(), local.pwd.len()), (16, 32));
}

#[test]
fn the_relay_carries_until_a_direct_path_is_there_and_again_when_it_ends() {
    let mut lab = lab(GREATER);
    lab.passed(10);
    lab.answered(with_ice(FIRST));
    assert_eq!(lab.up(1), [Action::SetPath(path(1)), Action::Handshake]);
    lab.handshake();
    assert_eq!(lab.kind(), Some(PathKind::Relay));
    assert_eq!(lab.direct_up(1), [direct(1)], "the session goes on as it is");
    assert_eq!(lab.kind(), Some(PathKind::Direct));
    assert_eq!(lab.passed(60_000), [], "no offer, no handshake");
    lab.handshake();
    assert_eq!(lab.direct_down(1), [Action::SetPath(path(1))]);
    assert_eq!((lab.kind(), lab.state()), (Some(PathKind::Relay), State::Connected));
    let offers = lab.passed(1);
    assert_eq!(offers.len(), 1, "at once, so that the peer leaves the dead path, too: {offers:?}");
}

#[test]
fn a_lost_relay_costs_a_direct_path_nothing() {
    let mut lab = seeking();
    lab.direct_up(1);
    assert_eq!(lab.down(1), [], "no other path is set");
    lab.mesh.set_home_relay(None, lab.now);
    assert_eq!(lab.actions(), []);
    assert_eq!(lab.kind(), Some(PathKind::Direct));
    lab.mesh.set_signal(false, lab.now);
    assert_eq!(lab.passed(60_000), []);
    assert_eq!(lab.state(), State::Connected);
}

#[test]
fn a_direct_path_needs_no_relay() {
    let mut lab = Lab::of(GREATER, true);
    lab.mesh.set_signal(true, lab.now);
    lab.set_peers(false);
    let offers = lab.passed(10);
    assert_eq!(offers.len(), 1, "{offers:?}");
    let done = lab.answered(Offer { relay: None, ..with_ice(FIRST) });
    assert!(matches!(done[..], [Action::OpenIce { controlling: true, .. }]), "{done:?}");
    assert_eq!(lab.direct_up(1), [direct(1), Action::Handshake]);
    lab.handshake();
    assert_eq!(lab.passed(20_000), []);
    // The relay is there now: the peer must hear of it.
    lab.mesh.set_home_relay(Some(server(HOME)), lab.now);
    let offers = lab.passed(10);
    assert!(matches!(&offers[..], [Action::Send(Message::Offer(offer))] if offer.relay.is_some()), "{offers:?}");
    assert_eq!(lab.answered(with_ice(FIRST)), [open(1, HOME)]);
    lab.up(1);
    assert_eq!(lab.kind(), Some(PathKind::Direct));
}

#[test]
fn one_session_is_searched_for_once_and_another_one_anew() {
    let mut lab = lab(SMALLER);
    lab.passed(10);
    let first = lab.offered(with_ice(FIRST));
    assert!(lab.answered(with_ice(FIRST)).is_empty(), "official clients send both");
    assert_eq!(lab.offered(with_ice(FIRST)).len(), 1, "an answer");
    let old = Offer { session: None, ..with_ice(FIRST) };
    assert_eq!(lab.offered(old).len(), 1, "one without a session is the same");
    lab.direct_up(1);
    let second = lab.offered(with_ice(SECOND));
    let (before, after) = (said(&first[0]), said(&second[1]));
    assert_eq!(second[0], Action::CloseIce { attempt: 1 });
    assert!(matches!(second[2], Action::OpenIce { attempt: 2, .. }), "{second:?}");
    assert_eq!(before.0, after.0, "credentials stay");
    assert_ne!(before.1, after.1, "our session is another one");
    assert_eq!(lab.direct_up(1), [], "what is late of the first attempt changes nothing");
}

#[test]
fn a_peer_without_ice_is_offered_none_and_is_complete_by_its_relay() {
    let mut lab = lab(GREATER);
    lab.passed(10);
    assert_eq!(lab.answered(remote_offer(Some(REMOTE))), [open(1, HOME)]);
    lab.up(1);
    lab.handshake();
    assert_eq!(lab.passed(20_000), []);
    let done = lab.offered(remote_offer(Some(REMOTE)));
    assert!(
        matches!(&done[0], Action::Send(Message::Answer(own)) if own.credentials.is_none() && own.session.is_none())
    );
    // After an update it has ICE.
    let done = lab.offered(with_ice(FIRST));
    said(&done[0]);
    assert!(matches!(done[1], Action::OpenIce { .. }), "{done:?}");
}

#[test]
fn without_ice_of_our_own_nothing_is_sought() {
    let mut lab = Lab::controller();
    lab.passed(10);
    assert_eq!(lab.answered(with_ice(FIRST)), [open(1, HOME)]);
    assert_eq!(lab.input(Input::Message(Message::Candidate("x".into()))), []);
}

#[test]
fn candidates_of_the_peer_go_to_the_search_early_ones_too() {
    let mut lab = lab(SMALLER);
    lab.passed(10);
    let candidate = || Input::Message(Message::Candidate("1 1 udp 1 192.0.2.1 1 typ host".into()));
    assert!(matches!(&lab.input(candidate())[..], [Action::RemoteCandidate(_)]));
    lab.offered(with_ice(FIRST));
    assert!(matches!(&lab.input(candidate())[..], [Action::RemoteCandidate(_)]));
}

#[test]
fn what_cannot_be_reached_directly_is_tried_three_times_and_then_each_hour() {
    let mut lab = seeking();
    for attempt in 1..=3_u8 {
        assert_eq!(lab.direct_down(attempt.into()), []);
        if attempt < 3 {
            let offers = lab.passed(1000);
            assert_eq!(offers.len(), 1, "attempt {attempt}: {offers:?}");
            lab.answered(with_ice([attempt + 1; 5]));
        }
    }
    assert_eq!(lab.passed(60_000), []);
    // Our addresses are others: it may work now.
    lab.mesh.candidates_changed(lab.now);
    assert_eq!(lab.passed(100).len(), 1);
}

#[test]
fn a_direct_path_by_which_no_session_is_made_is_given_up_and_the_relay_is_not() {
    let mut lab = seeking();
    lab.direct_up(1);
    let done = lab.passed(211_000);
    assert_eq!(done[..2], [Action::CloseIce { attempt: 1 }, Action::SetPath(path(1))], "{done:?}");
    assert_eq!(lab.state(), State::Connected);
}

#[test]
fn an_idle_peer_has_no_path_of_any_kind() {
    let mut lab = lab(GREATER);
    lab.set_peers(true);
    lab.passed(10);
    lab.answered(with_ice(FIRST));
    lab.up(1);
    lab.handshake();
    lab.direct_up(1);
    let done = lab.input(Input::Message(Message::GoIdle));
    assert_eq!(done, [close(1), Action::CloseIce { attempt: 1 }, Action::ClearPath]);
    assert_eq!(lab.state(), State::Idle);
}
