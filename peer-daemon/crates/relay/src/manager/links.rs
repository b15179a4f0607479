//! Connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use peer_core::key::PublicKey;

use super::{Action, Event, HomeRelay, LinkId, Manager, Place, RelayStatus, SWEEP, UNUSED};
use crate::connection::LinkCommand;
use crate::error::ConnectError;
use crate::token::Token;
use crate::url::RelayUrl;

/// A connection, made or being made.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) url: RelayUrl,
    /// Whether it is, or may become, the one to the home relay.
    pub(super) home: bool,
    /// Once it is up: the relay's own address, since when it is, and where it was reached.
    pub(super) up: Option<(RelayUrl, Instant, Option<IpAddr>)>,
    /// Ways by number.
    pub(super) peers: HashMap<u32, PublicKey>,
    next_number: u32,
    unused_since: Instant,
}

impl Link {
    /// The peer's number.
    pub(super) fn add(&mut self, peer: PublicKey) -> u32 {
        self.next_number += 1;
        self.peers.insert(self.next_number, peer);
        self.next_number
    }

    pub(super) fn remove(&mut self, number: u32, now: Instant) {
        self.peers.remove(&number);
        self.unused_since = now;
    }

    pub(super) fn status(&self) -> RelayStatus {
        let url = self.up.as_ref().map_or(&self.url, |(instance, ..)| instance);
        RelayStatus {
            url: url.clone(),
            home: self.home,
            connected: self.up.is_some(),
            error: None,
            ways: self.peers.len(),
        }
    }

    /// What ends it.
    pub(super) fn end(&self, id: LinkId) -> Action {
        match self.up {
            Some(_) => Action::Tell { link: id, command: LinkCommand::Goodbye },
            None => Action::Cancel { link: id },
        }
    }

    fn leads_to(&self, server: &RelayUrl) -> bool {
        self.url == *server || self.up.as_ref().is_some_and(|(instance, ..)| instance == server)
    }
}

impl Manager {
    pub(super) fn dial(
        &mut self,
        now: Instant,
        url: RelayUrl,
        fallback: Option<IpAddr>,
        token: Token,
        home: bool,
    ) -> LinkId {
        self.next_link += 1;
        let id = LinkId(self.next_link);
        let link = Link { url: url.clone(), home, up: None, peers: HashMap::new(), next_number: 0, unused_since: now };
        self.links.insert(id, link);
        self.actions.push_back(Action::Dial { link: id, url, fallback, token });
        id
    }

    /// The connection by which that relay is reached, or will be. While the race for the home relay is on, nobody knows
    /// which of its connections will stay.
    pub(super) fn link_to(&self, server: &RelayUrl) -> Option<LinkId> {
        let leads = |link: &&Link| link.leads_to(server);
        if let Some(id) = self.home.link
            && self.links.get(&id).as_ref().is_some_and(leads)
        {
            return Some(id);
        }
        self.links.iter().find(|(_, link)| !link.home && link.leads_to(server)).map(|(id, _)| *id)
    }

    pub(super) fn is_up(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.up.is_some())
    }

    pub(super) fn link_up(&mut self, now: Instant, id: LinkId, instance: RelayUrl, address: Option<IpAddr>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.up = Some((instance.clone(), now, address));
        link.unused_since = now;
        let recovered = self.outages.reached(&link.url);
        if link.home {
            if !self.home_won(id) {
                return self.hang_up(id);
            }
            tracing::info!(relay = %instance, "home relay is connected");
            // The relay closes an older connection of ours when a new one comes.
            let others = self.links.iter().filter(|(other, link)| **other != id && link.leads_to(&instance));
            for other in others.map(|(other, _)| *other).collect::<Vec<_>>() {
                self.hang_up(other);
            }
            let home = HomeRelay { url: instance, address };
            self.actions.push_back(Action::Emit(Event::Home(Some(home))));
        } else {
            if recovered {
                tracing::info!(relay = %instance, "a peer's relay is reached again");
            } else {
                tracing::debug!(relay = %instance, "a peer's relay is connected");
            }
            self.sweep_at.get_or_insert(now + SWEEP);
        }
        self.find_links(now);
    }

    pub(super) fn link_down(&mut self, now: Instant, id: LinkId, error: &ConnectError) {
        let Some(link) = self.links.remove(&id) else { return };
        let failure = error.failure();
        let what = match (link.up.is_some(), link.home) {
            (true, true) => "the connection to the home relay has ended",
            (true, false) => "the connection to a peer's relay has ended",
            (false, true) => "cannot connect to the home relay",
            (false, false) => "cannot connect to a peer's relay",
        };
        let (server, step, remedy) = (link.url.as_str(), failure.step.name(), failure.remedy);
        if self.outages.failed(link.url.clone(), &failure) {
            tracing::warn!(server, step, error = failure.error, remedy, "{what}");
        } else {
            tracing::debug!(server, step, error = failure.error, "{what}");
        }
        let reason = failure.error;
        for peer in link.peers.values() {
            self.fail_way(now, peer, reason.clone());
        }
        if link.home {
            self.home_lost(now, id, &link, reason);
        } else {
            let waits = |way: &super::Way| matches!(way.place, Place::Waiting { .. }) && link.leads_to(&way.server);
            let peers: Vec<_> = self.ways.iter().filter(|(_, way)| waits(way)).map(|(peer, _)| *peer).collect();
            for peer in peers {
                self.fail_way(now, &peer, reason.clone());
            }
        }
    }

    /// Ends a connection, with its ways.
    pub(super) fn hang_up(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        self.actions.push_back(link.end(id));
        for peer in link.peers.values() {
            if let Some(way) = self.ways.remove(peer) {
                self.emit_down(*peer, way.attempt, "another connection to its relay takes over".into());
            }
        }
    }

    /// Ends connections that have been without ways for a while.
    pub(super) fn sweep(&mut self, now: Instant) {
        let unused = |link: &Link| {
            !link.home
                && link.up.is_some()
                && link.peers.is_empty()
                && now.saturating_duration_since(link.unused_since) > UNUSED
        };
        let ids: Vec<_> = self.links.iter().filter(|(_, link)| unused(link)).map(|(id, _)| *id).collect();
        for id in ids {
            self.hang_up(id);
        }
        let foreign = self.links.values().any(|link| !link.home && link.up.is_some());
        self.sweep_at = foreign.then_some(now + SWEEP);
    }
}
