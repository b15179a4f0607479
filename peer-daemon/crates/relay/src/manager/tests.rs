use peer_core::path::RelayId;
use rand::SeedableRng as _;

use super::*;
use crate::error::ConnectError;

const TOKEN: &str = "1cJa2rHq05vm3M/R9PejKM+tVwk2N+4CFDyGtHL/+Sw=";

/// A manager with its clock, and what it asked for.
struct Lab {
    now: Instant,
    manager: Manager,
    dialled: Vec<(LinkId, RelayUrl, Option<IpAddr>)>,
    told: Vec<(LinkId, LinkCommand)>,
    cancelled: Vec<LinkId>,
    events: Vec<Event>,
}

fn url(text: &str) -> RelayUrl {
    text.parse().expect("a URL")
}

fn peer(seed: u8) -> PublicKey {
    PublicKey([seed; 32])
}

impl Lab {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            manager: Manager::new(StdRng::seed_from_u64(1)),
            dialled: Vec::new(),
            told: Vec::new(),
            cancelled: Vec::new(),
            events: Vec::new(),
        }
    }

    /// One whose home relay is `rel://home`.
    fn at_home() -> Self {
        let mut lab = Self::new();
        lab.servers(&["rel://home"]);
        let link = lab.dial("rel://home");
        lab.up(link, "rel://home");
        lab.events.clear();
        lab
    }

    fn act(&mut self) {
        while let Some(action) = self.manager.poll_action() {
            match action {
                Action::Dial { link, url, fallback, .. } => self.dialled.push((link, url, fallback)),
                Action::Tell { link, command } => self.told.push((link, command)),
                Action::Cancel { link } => self.cancelled.push(link),
                Action::Emit(event) => self.events.push(event),
            }
        }
    }

    fn servers(&mut self, urls: &[&str]) {
        let token = Token::new("1893456000", TOKEN).expect("valid");
        self.manager.set_servers(self.now, urls.iter().map(|text| url(text)).collect(), Some(token));
        self.act();
    }

    fn open(&mut self, seed: u8, attempt: u32, server: &str) {
        self.manager.open(self.now, peer(seed), attempt, url(server), None);
        self.act();
    }

    fn close(&mut self, seed: u8, attempt: u32) {
        self.manager.close(self.now, &peer(seed), attempt);
        self.act();
    }

    /// The only attempt that was started since the last look, which is to this URL.
    fn dial(&mut self, text: &str) -> LinkId {
        let [(link, dialled, _)] = &self.dialled[..] else { panic!("{:?}", self.dialled) };
        assert_eq!(dialled, &url(text));
        let link = *link;
        self.dialled.clear();
        link
    }

    fn up(&mut self, link: LinkId, instance: &str) {
        self.link(link, LinkEvent::Up { instance: url(instance), address: Some([192, 0, 2, 1].into()) });
    }

    fn down(&mut self, link: LinkId) {
        self.link(link, LinkEvent::Down(ConnectError::Closed));
    }

    fn link(&mut self, link: LinkId, event: LinkEvent) {
        self.manager.handle_link(self.now, link, event);
        self.act();
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.manager.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.manager.handle_timeout(self.now);
            self.act();
        }
        self.now = end;
    }

    /// The number under which the way to a peer was opened last, on that connection.
    fn opened(&mut self, link: LinkId, seed: u8) -> u32 {
        let wanted = PeerId::from(&peer(seed));
        let number = self.told.iter().rev().find_map(|(on, command)| match command {
            LinkCommand::Open { peer, number } if *on == link && *peer == wanted => Some(*number),
            _ => None,
        });
        self.told.clear();
        number.expect("opened")
    }
}

fn down(seed: u8, attempt: u32) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Down { peer: who, attempt: what, .. } if *who == peer(seed) && *what == attempt)
}

#[test]
fn the_first_relay_to_answer_is_home() {
    let mut lab = Lab::new();
    let urls: Vec<_> = (0..9).map(|n| format!("rel://relay{n}")).collect();
    lab.servers(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(lab.dialled.len(), 7, "not all at once");
    let (first, second) = (lab.dialled[2].0, lab.dialled[4].0);
    lab.down(lab.dialled[0].0);
    assert_eq!(lab.dialled.len(), 8, "one failed, the next is tried");
    lab.up(first, "rel://instance");
    let home = HomeRelay { url: url("rel://instance"), address: Some([192, 0, 2, 1].into()) };
    assert_eq!(lab.events, [Event::Home(Some(home))]);
    assert_eq!(lab.cancelled.len(), 6, "the others are abandoned");
    lab.up(second, "rel://late");
    assert_eq!(lab.events.len(), 1);
    let status = lab.manager.status();
    assert_eq!((status.len(), status[0].url.as_str(), status[0].connected), (1, "rel://instance", true));
}

#[test]
fn a_home_relay_that_breaks_is_tried_quickly_then_all_with_growing_pauses() {
    let mut lab = Lab::new();
    lab.servers(&["rel://a", "rel://b"]);
    let (link, home, _) = lab.dialled[0].clone();
    lab.dialled.clear();
    lab.up(link, "rel://instance");
    lab.pass(Duration::from_secs(60));
    lab.down(link);
    assert_eq!(lab.events.last(), Some(&Event::Home(None)));
    lab.pass(QUICK);
    let quick = lab.dial(home.as_str());
    lab.down(quick);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let before = lab.now;
        let at = lab.manager.poll_timeout().expect("a retry");
        lab.pass(at - before);
        pauses.push((at - before).as_secs_f64());
        assert_eq!(lab.dialled.len(), 2, "all are tried");
        for (link, ..) in std::mem::take(&mut lab.dialled) {
            lab.down(link);
        }
    }
    for (pause, expected) in pauses.iter().zip([2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
        assert!((expected * 0.5..expected * 1.5).contains(pause), "{pauses:?}");
    }
    let status = lab.manager.status();
    assert!(status.len() == 2 && status.iter().all(|relay| !relay.connected && relay.error.is_some()), "{status:?}");
}

const QUICK: Duration = Duration::from_millis(1500);

#[test]
fn a_relay_that_throws_us_out_at_once_is_not_tried_quickly() {
    let mut lab = Lab::new();
    lab.servers(&["rel://home"]);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let link = lab.dial("rel://home");
        lab.up(link, "rel://home");
        lab.down(link);
        let before = lab.now;
        let at = lab.manager.poll_timeout().expect("a retry");
        pauses.push(at - before);
        lab.pass(at - before);
    }
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_secs(1)), "{pauses:?}");
}

#[test]
fn ways_go_by_the_home_relay_where_the_other_side_is_there() {
    let mut lab = Lab::new();
    lab.servers(&["rel://home"]);
    let link = lab.dial("rel://home");
    lab.open(1, 5, "rel://home:80");
    lab.open(2, 6, "rel://instance");
    assert_eq!(lab.dial("rel://instance"), LinkId(2), "nobody knows yet that it is the same");
    lab.up(link, "rel://instance");
    assert_eq!(lab.cancelled, [LinkId(2)], "now it is known");
    let (first, second) = {
        let opened: Vec<_> = lab.told.iter().map(|(link, _)| *link).collect();
        assert_eq!(opened, [link, link]);
        (PeerId::from(&peer(1)), PeerId::from(&peer(2)))
    };
    for (_, command) in &lab.told {
        assert!(matches!(command, LinkCommand::Open { peer, .. } if *peer == first || *peer == second));
    }
    let number = lab.opened(link, 1);
    let path = Path::Relay(RelayId { connection: 1, peer: number });
    lab.link(link, LinkEvent::WayUp { number, path });
    assert_eq!(lab.events.last(), Some(&Event::Up { peer: peer(1), attempt: 5, path }));
    assert_eq!(lab.manager.status()[0].ways, 2);
}

#[test]
fn another_relay_is_dialled_once_and_left_when_unused() {
    let mut lab = Lab::at_home();
    lab.manager.open(lab.now, peer(1), 1, url("rels://other"), Some([198, 51, 100, 1].into()));
    lab.act();
    assert_eq!(lab.dialled[0].2, Some([198, 51, 100, 1].into()), "the hint goes along");
    let link = lab.dial("rels://other");
    lab.open(2, 1, "rels://other:443");
    assert!(lab.dialled.is_empty());
    lab.up(link, "rels://other:443");
    assert_eq!(lab.told.len(), 2);
    lab.close(1, 1);
    lab.pass(Duration::from_secs(120));
    assert_eq!(lab.manager.status().len(), 2, "still used by one");
    lab.close(2, 1);
    lab.told.clear();
    lab.pass(Duration::from_secs(4));
    lab.pass(Duration::from_secs(61));
    assert!(matches!(lab.told[..], [(on, LinkCommand::Goodbye)] if on == link), "{:?}", lab.told);
    assert!(lab.events.is_empty());
    assert_eq!((lab.manager.status().len(), lab.manager.poll_timeout()), (1, None));
}

#[test]
fn ways_end_with_their_connection() {
    let mut lab = Lab::at_home();
    lab.open(1, 1, "rel://home");
    lab.open(2, 2, "rel://other");
    let other = lab.dial("rel://other");
    lab.open(3, 3, "rel://other");
    lab.down(other);
    lab.events.sort_by_key(|event| matches!(event, Event::Down { attempt: 3, .. }));
    assert!(down(2, 2)(&lab.events[0]) && down(3, 3)(&lab.events[1]), "{:?}", lab.events);
    lab.events.clear();
    lab.down(LinkId(1));
    assert!(down(1, 1)(&lab.events[0]) && lab.events[1] == Event::Home(None), "{:?}", lab.events);
    assert_eq!(lab.manager.ways.len(), 0);
}

#[test]
fn a_way_is_told_of_once_and_under_its_own_attempt() {
    let mut lab = Lab::at_home();
    let home = LinkId(1);
    lab.open(1, 1, "rel://home");
    let old = lab.opened(home, 1);
    lab.open(1, 2, "rel://home");
    assert!(matches!(lab.told[0], (_, LinkCommand::Close { number, .. }) if number == old));
    let new = lab.opened(home, 1);
    assert_ne!(old, new);
    // What is late from the old one.
    lab.link(home, LinkEvent::WayDown { number: old, reason: WayEvent::Offline });
    lab.close(1, 1);
    assert!(lab.events.is_empty() && lab.told.is_empty());
    lab.link(home, LinkEvent::WayDown { number: new, reason: WayEvent::Absent });
    assert!(down(1, 2)(&lab.events[0]), "{:?}", lab.events);
    lab.link(home, LinkEvent::WayDown { number: new, reason: WayEvent::Offline });
    assert_eq!(lab.events.len(), 1);
    assert!(lab.told.is_empty(), "the connection has forgotten it already");
}

#[test]
fn a_way_waits_for_the_home_relay_but_not_for_ever() {
    let mut lab = Lab::at_home();
    lab.pass(Duration::from_secs(60));
    lab.down(LinkId(1));
    lab.events.clear();
    lab.open(1, 1, "rel://home");
    lab.pass(QUICK);
    let link = lab.dial("rel://home");
    lab.pass(Duration::from_secs(30));
    assert!(down(1, 1)(&lab.events[0]), "{:?}", lab.events);
    lab.open(1, 2, "rel://home");
    lab.up(link, "rel://home");
    lab.opened(link, 1);
}

#[test]
fn a_home_relay_elsewhere_leaves_the_waiting_to_find_their_own() {
    let mut lab = Lab::new();
    lab.servers(&["rel://a", "rel://b"]);
    let (a, b) = {
        let at = |text: &str| lab.dialled.iter().find(|(_, dialled, _)| *dialled == url(text)).expect("dialled").0;
        (at("rel://a"), at("rel://b"))
    };
    lab.dialled.clear();
    lab.open(1, 1, "rel://b");
    assert!(lab.dialled.is_empty());
    lab.up(a, "rel://a");
    assert_eq!(lab.cancelled, [b]);
    let foreign = lab.dial("rel://b");
    lab.up(foreign, "rel://b");
    lab.opened(foreign, 1);
}

#[test]
fn without_urls_no_home_is_sought_and_without_a_token_nothing() {
    let mut lab = Lab::new();
    lab.manager.set_servers(lab.now, vec![url("rel://home")], None);
    lab.open(1, 1, "rel://other");
    assert!(lab.dialled.is_empty() && down(1, 1)(&lab.events[0]), "{:?}", lab.events);
    lab.servers(&["rel://home"]);
    let link = lab.dial("rel://home");
    lab.up(link, "rel://home");
    lab.servers(&[]);
    assert!(lab.manager.status()[0].connected, "what is connected stays");
    lab.pass(Duration::from_secs(60));
    lab.down(link);
    lab.pass(Duration::from_secs(600));
    assert!(lab.dialled.is_empty());
    lab.servers(&["rel://home"]);
    lab.dial("rel://home");
}

#[test]
fn the_same_servers_again_change_nothing() {
    let mut lab = Lab::new();
    lab.servers(&["rel://home"]);
    lab.dial("rel://home");
    lab.servers(&["rel://home"]);
    assert!(lab.dialled.is_empty(), "the attempt goes on");
    lab.down(LinkId(1));
    lab.servers(&["rel://home"]);
    assert!(lab.dialled.is_empty(), "and so does the pause");
    lab.servers(&["rel://new"]);
    lab.dial("rel://new");
}

#[test]
fn leaving_says_goodbye_where_somebody_listens() {
    let mut lab = Lab::at_home();
    lab.open(1, 1, "rel://other");
    let other = lab.dial("rel://other");
    lab.manager.leave();
    lab.act();
    assert!(matches!(lab.told[..], [(LinkId(1), LinkCommand::Goodbye)]), "{:?}", lab.told);
    assert_eq!((lab.cancelled.clone(), lab.manager.poll_timeout()), (vec![other], None));
}

/// What management signs ends by its own clock. Ours may be wrong, so that a token is used until there is another.
#[test]
fn a_token_is_not_judged_by_our_clock() {
    let mut lab = Lab::new();
    let long_over = Token::new("1", TOKEN).expect("valid");
    assert!(lab.manager.set_servers(lab.now, vec![url("rel://home")], Some(long_over)));
    lab.act();
    lab.dial("rel://home");
}

#[test]
fn a_new_token_ends_the_wait_that_an_old_one_has_caused() {
    let mut lab = Lab::new();
    lab.servers(&["rel://home"]);
    for _ in 0..8 {
        let link = lab.dial("rel://home");
        lab.link(link, LinkEvent::Down(ConnectError::Refused));
        lab.pass(Duration::from_secs(600));
    }
    let link = lab.dial("rel://home");
    lab.link(link, LinkEvent::Down(ConnectError::Refused));
    assert!(lab.dialled.is_empty(), "it waits");
    let renewed = Token::new("1893460000", TOKEN).expect("valid");
    assert!(lab.manager.set_servers(lab.now, vec![url("rel://home")], Some(renewed)));
    lab.act();
    lab.dial("rel://home");
}

#[test]
fn after_sleep_the_home_relay_is_dialled_at_once() {
    let mut lab = Lab::at_home();
    lab.pass(Duration::from_secs(60));
    lab.link(LinkId(1), LinkEvent::Down(ConnectError::Slept));
    assert!(lab.dialled.is_empty());
    lab.manager.hurry(lab.now);
    lab.act();
    lab.dial("rel://home");
}
