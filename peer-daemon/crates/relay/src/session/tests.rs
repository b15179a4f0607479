use super::*;

fn session(now: Instant) -> Session {
    Session::new(now, Arc::default())
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 36])
}

fn told(kind: u8, peers: &[PeerId]) -> Vec<u8> {
    let mut bytes = vec![1, kind];
    bytes.extend(peers.iter().flat_map(|peer| peer.0));
    bytes
}

fn hear(session: &mut Session, bytes: &[u8]) -> Result<(), SessionEnd> {
    session.handle_message(Message::decode(bytes).expect("a message"))
}

fn sent(session: &mut Session) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| session.poll_transmit()).collect()
}

fn events(session: &mut Session) -> Vec<(u32, WayEvent)> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

#[test]
fn peers_are_asked_for_and_come_and_go() {
    let t0 = Instant::now();
    let mut session = session(t0);
    assert_eq!(session.open(t0, peer(1), 11), None);
    assert_eq!(session.open(t0, peer(2), 12), None);
    assert_eq!(sent(&mut session), [told(8, &[peer(1), peer(2)])], "one message for both");
    hear(&mut session, &told(10, &[peer(2), peer(9)])).expect("open");
    hear(&mut session, &told(10, &[peer(2)])).expect("open");
    assert_eq!(events(&mut session), [(12, WayEvent::Online)]);
    hear(&mut session, &told(11, &[peer(2), peer(9)])).expect("open");
    assert_eq!(events(&mut session), [(12, WayEvent::Offline)]);
    assert_eq!(sent(&mut session), [told(9, &[peer(2)])]);
    session.close(peer(1), 99);
    assert_eq!(sent(&mut session), [[0_u8; 0]; 0], "another way's number");
    session.close(peer(1), 11);
    assert_eq!(sent(&mut session), [told(9, &[peer(1)])]);
    assert_eq!((events(&mut session), session.stats.ways.get()), (Vec::new(), 0));
}

#[test]
fn a_way_that_is_opened_anew_is_asked_for_anew() {
    let t0 = Instant::now();
    let mut session = session(t0);
    session.open(t0, peer(1), 11);
    session.close(peer(1), 11);
    session.open(t0, peer(1), 12);
    assert_eq!(sent(&mut session), [told(8, &[peer(1)]), told(9, &[peer(1)]), told(8, &[peer(1)])]);
    session.handle_timeout(t0 + Duration::from_secs(29)).expect("alive");
    hear(&mut session, &told(10, &[peer(1)])).expect("open");
    assert_eq!(events(&mut session), [(12, WayEvent::Online)]);
}

#[test]
fn a_peer_that_does_not_come_is_given_up() {
    let t0 = Instant::now();
    let mut session = session(t0);
    session.open(t0, peer(1), 11);
    session.open(t0, peer(2), 12);
    hear(&mut session, &told(10, &[peer(2)])).expect("open");
    sent(&mut session);
    let due = session.poll_timeout();
    assert_eq!(due, t0 + ONLINE_TIMEOUT);
    session.handle_timeout(due).expect("alive");
    assert_eq!(events(&mut session), [(12, WayEvent::Online), (11, WayEvent::Absent)]);
    assert_eq!(sent(&mut session), [told(9, &[peer(1)])]);
    assert_eq!(session.poll_timeout(), t0 + HEALTH_INTERVAL);
}

#[test]
fn whoever_sends_is_there() {
    let t0 = Instant::now();
    let mut session = session(t0);
    session.open(t0, peer(1), 11);
    for _ in 0..2 {
        assert_eq!(session.source(t0, peer(1), b"data"), Some(11));
    }
    assert_eq!(events(&mut session), [(11, WayEvent::Online)]);
    session.close(peer(1), 11);
    assert_eq!(session.source(t0, peer(1), b"data"), None, "not from memory");
}

#[test]
fn what_comes_early_is_kept_until_the_way_is_opened() {
    let t0 = Instant::now();
    let mut session = session(t0);
    assert_eq!(session.source(t0, peer(1), b"first"), None);
    assert_eq!(session.source(t0, peer(1), b"second"), None);
    assert_eq!(session.source(t0, peer(2), b"other"), None);
    assert_eq!(session.open(t0, peer(1), 11), Some(b"second".to_vec()));
    assert_eq!(session.stats.early.get(), 1);
    session.handle_timeout(t0 + EARLY_SWEEP).expect("alive");
    assert_eq!(session.stats.early.get(), 0);
    assert_eq!(session.open(t0 + EARLY_SWEEP, peer(2), 12), None);
    assert_eq!(session.source(t0, peer(3), &[0; 1400]), None);
    assert_eq!(session.stats.early_dropped.get(), 1, "no handshake");
}

#[test]
fn health_checks_are_echoed_and_missed() {
    let t0 = Instant::now();
    let mut session = session(t0);
    let mut now = t0;
    for _ in 0..3 {
        hear(&mut session, &[1, 5]).expect("open");
        assert_eq!(sent(&mut session), [[1, 5]]);
        now += HEALTH_INTERVAL;
        assert_eq!(session.poll_timeout(), now);
        session.handle_timeout(now).expect("checked");
    }
    assert_eq!(session.handle_timeout(now + HEALTH_INTERVAL), Err(SessionEnd::Silent));
    assert_eq!(hear(&mut session, &[1, 4]), Err(SessionEnd::Closed));
}

#[test]
fn memory_of_awaited_peers_does_not_grow_with_their_comings_and_goings() {
    let t0 = Instant::now();
    let mut session = session(t0);
    for number in 0..10_000 {
        session.open(t0, peer(1), number);
        session.close(peer(1), number);
        while session.poll_transmit().is_some() {}
    }
    assert!(session.awaited.len() < 100, "{}", session.awaited.len());
}
