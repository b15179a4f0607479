//! Offers, answers, and where both meet.

use super::*;

#[test]
fn offers_are_repeated_after_a_second_and_then_less_and_less() {
    let mut lab = Lab::controller();
    let offers = lab.pass(Duration::from_secs(20));
    let times: Vec<u128> = offers.iter().map(|(at, _)| *at).collect();
    assert!(offers.iter().all(|(_, action)| *action == send_offer()), "{offers:?}");
    assert!(times[0] <= 1, "the first goes out at once: {times:?}");
    let gaps: Vec<u128> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, expected) in gaps.iter().zip([1000, 2000, 4000, 8000]) {
        assert!((expected * 9 / 10..=expected * 11 / 10).contains(gap), "{gaps:?}");
    }
    assert_eq!(gaps.len(), 4);
    let late = lab.pass(Duration::from_secs(600)).len();
    assert!((600 / 50..=600 / 25).contains(&late), "then every 30 to 45 s: {late}");
}

#[test]
fn without_signal_or_home_relay_there_is_nothing_to_offer() {
    let mut lab = Lab::unreached(GREATER);
    lab.set_peers(false);
    assert_eq!(lab.passed(5000), []);
    lab.mesh.set_signal(true, lab.now);
    assert_eq!(lab.passed(5000), []);
    assert_eq!(lab.offer(), [], "an answer would say that we have no relay");
    lab.mesh.set_home_relay(Some(server(HOME)), lab.now);
    assert_eq!(lab.passed(10), [send_offer()]);
    lab.mesh.set_signal(false, lab.now);
    assert_eq!(lab.passed(60_000), []);
}

#[test]
fn the_controller_meets_at_its_home_and_begins_the_handshake() {
    let mut lab = Lab::controller();
    lab.passed(10);
    assert_eq!(lab.answer(), [open(1, HOME)]);
    assert_eq!(lab.state(), State::Connecting);
    assert_eq!(lab.up(1), [Action::SetPath(path(1)), Action::Handshake]);
    let status = lab.mesh.status(&lab.peer).expect("in the map");
    assert_eq!(
        (status.state, status.kind, status.relay),
        (State::Connected, Some(PathKind::Relay), Some(server(HOME)))
    );
    assert!(lab.handshake().is_empty());
    assert_eq!(lab.passed(20_000), [], "and no more offers");
}

#[test]
fn a_first_handshake_that_the_peer_is_not_ready_for_is_begun_again_soon() {
    let mut lab = Lab::controller();
    lab.passed(10);
    lab.answer();
    lab.up(1);
    assert_eq!(lab.pass(Duration::from_secs(4)), [(400, Action::Handshake), (1500, Action::Handshake)]);
    lab.offer();
    assert_eq!(lab.passed(399), []);
    lab.handshake();
    assert_eq!(lab.passed(4000), [], "one that was answered is not");
    lab.passed(3000);
    lab.offer();
    assert_eq!(lab.down(1), [Action::ClearPath]);
    assert!(!lab.passed(4000).contains(&Action::Handshake), "nor one that has no way any more");
}

#[test]
fn the_other_side_meets_at_the_controllers_home_and_waits_for_its_handshake() {
    let mut lab = Lab::follower();
    lab.passed(10);
    assert_eq!(lab.offer(), [send_answer(), open(1, REMOTE)]);
    assert_eq!(lab.up(1), []);
    assert_eq!(lab.passed(4000), []);
    assert_eq!(lab.handshake(), [Action::SetPath(path(1))]);
    assert_eq!(lab.passed(20_000), []);
}

#[test]
fn the_other_side_begins_itself_after_five_seconds() {
    let mut lab = Lab::follower();
    lab.passed(10);
    lab.offer();
    lab.up(1);
    let expected = [(5000, Action::SetPath(path(1))), (5000, Action::Handshake), (5400, Action::Handshake)];
    assert_eq!(lab.pass(Duration::from_secs(6)), expected);
}

#[test]
fn what_says_the_same_again_changes_nothing() {
    let mut lab = Lab::follower();
    lab.passed(10);
    assert_eq!(lab.offer(), [send_answer(), open(1, REMOTE)]);
    assert_eq!(lab.answer(), [], "the official client sends both");
    assert_eq!(lab.offer(), [send_answer()]);
    lab.up(1);
    assert_eq!(lab.answer(), []);
    assert_eq!(lab.offer(), [send_answer()]);
    lab.handshake();
    assert_eq!(lab.offer(), [send_answer()]);
    assert_eq!(lab.up(1), []);
}

#[test]
fn an_offer_over_a_working_path_makes_the_controller_begin_a_handshake_but_not_each_time() {
    let mut lab = Lab::controller();
    lab.connect();
    assert_eq!(lab.offer(), [send_answer()], "there was one just now");
    lab.passed(3000);
    assert_eq!(lab.offer(), [send_answer(), Action::Handshake]);
    lab.handshake();
    assert_eq!(lab.offer(), [send_answer()]);
    lab.passed(2000);
    assert_eq!(lab.offer(), [send_answer()]);
    lab.passed(1000);
    assert_eq!(lab.offer(), [send_answer(), Action::Handshake]);
}

#[test]
fn a_lost_path_is_offered_for_soon() {
    let mut lab = Lab::controller();
    lab.connect();
    assert_eq!(lab.down(1), [Action::ClearPath]);
    assert_eq!(lab.state(), State::Connecting);
    let offers = lab.pass(Duration::from_secs(3));
    assert_eq!(offers[0], (800, send_offer()));
    assert_eq!(offers.len(), 2, "then after twice as long");
    assert_eq!(lab.answer(), [open(2, HOME)]);
    assert_eq!(lab.up(2), [Action::SetPath(path(2)), Action::Handshake]);
}

#[test]
fn a_relay_that_refuses_is_tried_again_with_the_next_answer() {
    let mut lab = Lab::controller();
    lab.passed(10);
    lab.answer();
    assert_eq!(lab.down(1), []);
    assert_eq!(lab.passed(900), [send_offer()]);
    assert_eq!(lab.answer(), [open(2, HOME)]);
}

#[test]
fn what_is_late_for_another_attempt_is_not_heard() {
    let mut lab = Lab::follower();
    lab.passed(10);
    lab.offer();
    let moved = remote_offer(Some("rel://elsewhere:3"));
    let actions = lab.input(Input::Message(Message::Answer(moved)));
    assert_eq!(actions, [close(1), open(2, "rel://elsewhere:3")]);
    assert_eq!(lab.up(1), []);
    assert_eq!(lab.down(1), []);
    assert_eq!(lab.state(), State::Connecting);
    lab.up(2);
    assert_eq!(lab.state(), State::Connected);
}

#[test]
fn the_controllers_new_home_is_the_new_meeting_point() {
    let mut lab = Lab::controller();
    lab.connect();
    let home = server("rel://other:9");
    lab.mesh.set_home_relay(None, lab.now);
    assert_eq!(lab.actions(), [], "what works is kept");
    lab.mesh.set_home_relay(Some(home.clone()), lab.now);
    assert_eq!(lab.actions(), [close(1), open(2, "rel://other:9"), Action::ClearPath]);
    let offer = Offer { relay: Some(home), ..own_offer() };
    assert_eq!(lab.passed(10), [Action::Send(Message::Offer(offer))]);
    assert_eq!(lab.up(2), [Action::SetPath(path(2)), Action::Handshake]);
}

#[test]
fn a_home_that_comes_back_changes_nothing_that_works() {
    for mut lab in [Lab::controller(), Lab::follower()] {
        lab.connect();
        lab.passed(10);
        lab.mesh.set_home_relay(None, lab.now);
        lab.mesh.set_signal(false, lab.now);
        lab.mesh.set_signal(true, lab.now);
        lab.mesh.set_home_relay(Some(server(HOME)), lab.now);
        assert_eq!(lab.passed(10_000), []);
        assert_eq!(lab.state(), State::Connected);
    }
}

#[test]
fn a_peer_without_a_relay_is_not_met() {
    let mut lab = Lab::controller();
    lab.passed(10);
    assert_eq!(lab.input(Input::Message(Message::Answer(remote_offer(None)))), []);
    assert_eq!(lab.state(), State::Connecting);
    assert_eq!(lab.passed(2000), [send_offer()], "it may get one");
}

#[test]
fn a_path_without_a_handshake_is_given_up() {
    let mut lab = Lab::controller();
    lab.passed(10);
    lab.answer();
    lab.up(1);
    let begun = lab.pass(Duration::from_secs(10));
    assert!(begun.iter().all(|(_, action)| *action == Action::Handshake), "{begun:?}");
    let done = lab.pass(Duration::from_secs(21));
    assert_eq!(done, [(20_000, close(1)), (20_000, Action::ClearPath), (20_800, send_offer())]);
}

#[test]
fn sessions_must_keep_coming() {
    let mut lab = Lab::controller();
    lab.connect();
    for _ in 0..5 {
        assert_eq!(lab.passed(120_000), []);
        lab.handshake();
    }
    let done = lab.pass(Duration::from_secs(215));
    assert_eq!(done[..2], [(210_000, close(1)), (210_000, Action::ClearPath)]);
}

#[test]
fn a_peer_that_leaves_the_map_is_left() {
    let mut lab = Lab::controller();
    lab.connect();
    lab.mesh.set_peers([], false, lab.now);
    assert_eq!(lab.actions(), [close(1)]);
    assert_eq!((lab.mesh.poll_timeout(), lab.mesh.statuses().count()), (None, 0));
    assert_eq!(lab.offer(), [], "and not heard");
}

#[test]
fn thousands_of_first_offers_are_spread() {
    let mut lab = Lab::unreached(GREATER);
    lab.mesh.set_signal(true, lab.now);
    lab.mesh.set_home_relay(Some(server(HOME)), lab.now);
    let key = |n: u16| PublicKey([&n.to_be_bytes()[..], &[1; 30]].concat().try_into().expect("32 bytes"));
    let remotes = |count| (0..count).map(move |n| Remote { key: key(n), can_be_lazy: false });
    lab.mesh.set_peers(remotes(4000), true, lab.now);
    let offers = lab.pass(Duration::from_millis(900)).len();
    assert!((700..1100).contains(&offers), "{offers} in 900 ms of 4 s");
    lab.mesh.set_peers(remotes(4001), true, lab.now);
    assert!(lab.mesh.poll_timeout().is_some_and(|at| at <= lab.now + Duration::from_millis(1)));
}
