//! The home relay: the one of ours that answers first. Others are told of it and come there.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use super::links::Link;
use super::{Action, Event, LinkId, Manager, RelayStatus};
use crate::url::RelayUrl;

/// Attempts at the same time.
const PARALLEL: usize = 7;
/// Before the same relay is tried once more after a break.
const QUICK_RETRY: Duration = Duration::from_millis(1500);
/// A connection that lived shorter than this is not tried quickly: two processes with one key would throw each other out
/// for ever.
const STABLE: Duration = Duration::from_secs(30);
/// Pauses between rounds.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Home {
    urls: Vec<RelayUrl>,
    /// The connection, once there is one.
    pub(super) link: Option<LinkId>,
    /// Attempts of this round, and who is next.
    racing: Vec<LinkId>,
    queue: Vec<RelayUrl>,
    /// The relay's own address when it was last connected.
    last_instance: Option<RelayUrl>,
    retry: Option<Retry>,
    pause: Option<Duration>,
    /// Why what was tried last did not work.
    errors: Vec<(RelayUrl, String)>,
}

#[derive(Debug)]
struct Retry {
    at: Instant,
    /// Only this one, the first time after a break.
    only: Option<RelayUrl>,
}

impl Home {
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry.as_ref().map(|retry| retry.at)
    }

    /// Whether the home relay, which is not connected, may turn out to be this one.
    pub(super) fn is_sought_at(&self, server: &RelayUrl) -> bool {
        let known = self.urls.contains(server) || self.last_instance.as_ref() == Some(server);
        self.link.is_none() && !self.urls.is_empty() && known
    }

    fn note(&mut self, url: &RelayUrl, error: String) {
        self.errors.retain(|(known, _)| known != url && self.urls.contains(known));
        self.errors.push((url.clone(), error));
    }
}

impl Manager {
    pub(super) fn home_urls_changed(&mut self, now: Instant, urls: Vec<RelayUrl>) {
        let changed = self.home.urls != urls;
        if changed {
            // What is not named any more is not waited for either.
            self.outages.retain(|url| urls.contains(url) || !self.home.urls.contains(url));
        }
        self.home.urls = urls;
        if self.home.link.is_some() {
            return;
        }
        if self.home.urls.is_empty() {
            (self.home.retry, self.home.pause) = (None, None);
            self.abandon_race();
        } else if changed || (self.home.racing.is_empty() && self.home.retry.is_none()) {
            self.abandon_race();
            self.start_round(now);
        }
    }

    /// A connection of the race is up. Whether it is the first.
    pub(super) fn home_won(&mut self, id: LinkId) -> bool {
        let Some(at) = self.home.racing.iter().position(|other| *other == id) else { return false };
        self.home.racing.swap_remove(at);
        self.home.link = Some(id);
        self.home.last_instance = self.links.get(&id).and_then(|link| link.up.as_ref()).map(|(url, ..)| url.clone());
        (self.home.retry, self.home.pause) = (None, None);
        self.home.errors.clear();
        self.abandon_race();
        true
    }

    /// An attempt failed, or the home relay is lost.
    pub(super) fn home_lost(&mut self, now: Instant, id: LinkId, link: &Link, reason: String) {
        self.home.note(&link.url, reason);
        if self.home.link == Some(id) {
            self.home.link = None;
            self.actions.push_back(Action::Emit(Event::Home(None)));
            let stable = link.up.as_ref().is_some_and(|(_, since, _)| now.saturating_duration_since(*since) >= STABLE);
            if stable && self.home.urls.contains(&link.url) {
                self.home.retry = Some(Retry { at: now + QUICK_RETRY, only: Some(link.url.clone()) });
            } else {
                self.pause(now);
            }
            return;
        }
        self.home.racing.retain(|other| *other != id);
        self.race_on(now);
        if self.home.racing.is_empty() && self.home.link.is_none() {
            self.pause(now);
        }
    }

    pub(super) fn home_timeout(&mut self, now: Instant) {
        let due = self.home.retry.take_if(|retry| retry.at <= now);
        match due {
            Some(Retry { only: Some(url), .. }) => {
                self.home.queue = vec![url];
                self.race_on(now);
            }
            Some(Retry { only: None, .. }) => self.start_round(now),
            None => {}
        }
    }

    /// Ends the wait before the next round.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.home.pause = None;
        if self.home.link.is_none() && self.home.racing.is_empty() && self.home.retry.is_some() {
            self.start_round(now);
        }
    }

    pub(super) fn home_status(&self) -> Vec<RelayStatus> {
        if let Some(link) = self.home.link.and_then(|id| self.links.get(&id)) {
            return vec![link.status()];
        }
        let status = |url: &RelayUrl| RelayStatus {
            url: url.clone(),
            home: true,
            connected: false,
            error: self.home.errors.iter().find(|(known, _)| known == url).map(|(_, error)| error.clone()),
            ways: 0,
        };
        self.home.urls.iter().map(status).collect()
    }

    fn start_round(&mut self, now: Instant) {
        self.home.retry = None;
        self.home.queue = self.home.urls.clone();
        self.home.queue.shuffle(&mut self.rng);
        self.race_on(now);
    }

    /// Starts as many attempts as may run.
    fn race_on(&mut self, now: Instant) {
        let Some(token) = self.token.clone() else { return };
        while self.home.racing.len() < PARALLEL
            && let Some(url) = self.home.queue.pop()
        {
            let id = self.dial(now, url, None, token.clone(), true);
            self.home.racing.push(id);
        }
    }

    fn abandon_race(&mut self) {
        self.home.queue.clear();
        for id in std::mem::take(&mut self.home.racing) {
            self.hang_up(id);
        }
    }

    /// Waits before the next round, longer each time, and never as long as others.
    fn pause(&mut self, now: Instant) {
        if self.home.urls.is_empty() {
            return;
        }
        let pause = self.home.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.home.pause = Some(pause);
        let pause = pause.mul_f64(self.rng.random_range(0.5..1.5));
        self.home.retry = Some(Retry { at: now + pause, only: None });
    }
}
