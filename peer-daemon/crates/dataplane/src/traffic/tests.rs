use super::*;

const ROUND: Duration = Duration::from_secs(10);

fn uplink() -> Crossing {
    Crossing::OutOfUplinks { uplinks: vec!["eth0".into()] }
}

fn mesh() -> Crossing {
    Crossing::IntoMesh { mesh: "wt0".into() }
}

/// A watch that is fed window by window.
struct Feed {
    watch: TrafficWatch,
    crossing: Crossing,
    now: Instant,
    counts: Counts,
}

impl Feed {
    fn new(crossing: Crossing) -> Self {
        let mut feed =
            Self { watch: TrafficWatch::default(), crossing, now: Instant::now(), counts: Counts::default() };
        feed.look();
        feed
    }

    fn look(&mut self) {
        self.watch.look(self.now, [(self.crossing.clone(), self.counts)].into());
    }

    /// A window with so many packets of 100 bytes, and bytes that were taken.
    fn window(&mut self, packets: u64, taken: u64) -> &mut Self {
        self.counts.packets += packets;
        self.counts.given += packets * 100;
        self.counts.taken += taken;
        self.now += ROUND;
        self.look();
        self
    }

    fn severity(&self) -> Option<Severity> {
        self.watch.findings().first().map(|finding| finding.severity)
    }
}

#[test]
fn what_the_device_does_not_send_in_two_windows_is_not_ready_with_both_figures() {
    let mut feed = Feed::new(uplink());
    feed.window(1000, 200);
    assert_eq!((feed.watch.judge(), feed.severity()), (Ok(()), None), "one window may be a burst in a queue");
    feed.window(1000, 100);
    let why = feed.watch.judge().expect_err("not ready");
    for part in ["2000 packets (200000 bytes) to eth0 in 20 s", "it sent 300 bytes", "egress", "tc -s qdisc"] {
        assert!(why.contains(part), "no {part:?} in {why}");
    }
    assert_eq!(feed.severity(), Some(Severity::Problem));
    feed.window(1000, 110_000);
    assert_eq!((feed.watch.judge(), feed.severity()), (Ok(()), None), "one good window ends it");
}

#[test]
fn a_device_that_sends_a_part_is_a_finding_and_stays_ready() {
    let mut feed = Feed::new(uplink());
    feed.window(1000, 30_000).window(1000, 30_000);
    assert_eq!(feed.watch.judge(), Ok(()));
    assert_eq!(feed.severity(), Some(Severity::Warning));
}

#[test]
fn noise_raises_no_alarm() {
    let mut feed = Feed::new(uplink());
    // Other traffic on the device, packets still in a queue at the time of the look, few packets, a good one in between.
    feed.window(1000, 9_000_000).window(1000, 51_000).window(LEAST - 1, 0).window(1000, 0).window(1000, 100_000);
    feed.window(1000, 0).window(20, 2000).window(1000, 0);
    assert_eq!((feed.watch.judge(), feed.severity()), (Ok(()), None));
}

#[test]
fn a_gap_is_kept_while_too_little_comes_to_tell_and_forgotten_after_a_minute_of_silence() {
    let mut feed = Feed::new(uplink());
    feed.window(1000, 0).window(1000, 0);
    assert!(feed.window(0, 0).watch.judge().is_err(), "traffic that went elsewhere proves nothing");
    assert!(feed.window(10, 0).watch.judge().is_err());
    for _ in 1..FORGOTTEN {
        assert!(feed.window(0, 500).watch.judge().is_err());
    }
    assert_eq!(feed.window(0, 500).watch.judge(), Ok(()));
}

#[test]
fn packets_that_wait_for_neighbours_without_an_answer_are_excused() {
    let mut feed = Feed::new(uplink());
    feed.counts.excused = 95_000;
    feed.window(1000, 5000).window(1000, 5000);
    assert_eq!((feed.watch.judge(), feed.severity()), (Ok(()), None));
    feed.counts.excused = 10_000;
    feed.window(1000, 5000).window(1000, 5000);
    assert!(feed.watch.judge().is_err(), "the rest is missing");
    feed.counts.excused = u64::MAX;
    assert!(feed.window(1000, 5000).watch.judge().is_err(), "an excuse ends nothing");
    assert_eq!(feed.window(1000, 110_000).watch.judge(), Ok(()));
}

#[test]
fn a_mesh_device_that_is_not_read_fast_enough_is_a_finding_only() {
    let mut feed = Feed::new(mesh());
    feed.counts.dropped += 990;
    feed.window(1000, 1000);
    feed.counts.dropped += 990;
    feed.window(1000, 1000);
    assert_eq!(feed.watch.judge(), Ok(()));
    let finding = feed.watch.findings().remove(0);
    assert!(finding.severity == Severity::Warning && finding.what.contains("dropped 1980 packets"), "{finding}");
    feed.window(1000, 1000).window(1000, 1000);
    assert!(feed.watch.judge().is_err(), "nobody has dropped them, and they are gone");
}

#[test]
fn what_counts_anew_and_looks_that_follow_too_soon_say_nothing() {
    let mut feed = Feed::new(uplink());
    feed.window(1000, 0);
    feed.counts.taken = 0;
    feed.counts.packets = 5;
    feed.window(0, 0).window(1000, 0);
    assert_eq!(feed.severity(), None, "the device was made anew in between");
    feed.counts.packets += 1000;
    feed.counts.given += 100_000;
    feed.now += WINDOW / 2;
    feed.look();
    assert_eq!(feed.severity(), None, "half a window");
    feed.now += WINDOW / 2;
    feed.look();
    assert_eq!(feed.severity(), Some(Severity::Problem));
}

#[test]
fn a_crossing_that_is_no_more_is_forgotten() {
    let mut feed = Feed::new(uplink());
    feed.window(1000, 0).window(1000, 0);
    feed.watch.look(feed.now + ROUND, BTreeMap::new());
    assert_eq!(feed.watch.judge(), Ok(()));
}
