//! What has become of flows between two looks. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::{Flow, Listing, Place};

const SECOND: f64 = 1e9;

/// An event of one flow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Event<'a> {
    pub(super) event: Kind,
    /// Of a closed one: `closing` and `reset` are what TCP says; `removed`: it is not held any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    /// Both directions; absent: there is no look to compare with.
    pub(super) packets_per_second: Option<f64>,
    /// As above.
    pub(super) bytes_per_second: Option<f64>,
    #[serde(flatten)]
    pub(super) flow: &'a Flow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Opened,
    Active,
    Closed,
}

/// What the last look has shown.
#[derive(Debug, Default)]
pub(super) struct Watched {
    known: BTreeMap<Name, Flow>,
    /// When it was; `None`: there was none.
    last_ns: Option<u64>,
}

/// Protocol, ends, when it was opened, and why it was not.
type Name = (String, Place, Place, u64, Option<String>);

impl Watched {
    /// Compares with the last look, calls `tell` for each event, and remembers this look. At the first, all open flows
    /// are told as active; a flow whose counters stand still is not told.
    pub(super) fn look<E>(
        &mut self,
        listing: Listing,
        mut tell: impl FnMut(&Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let seconds = self.last_ns.map(|last| listing.now_ns.saturating_sub(last).max(1) as f64 / SECOND);
        // A flow less active than these may only have been displaced.
        let displaced_up_to = if listing.more > 0 { listing.flows.last().map(|flow| flow.active_ns) } else { None };
        let mut known = std::mem::take(&mut self.known);
        for flow in listing.flows {
            let name = name(&flow);
            let before = known.remove(&name);
            if let Some(event) = self.compare(before.as_ref(), &flow, seconds) {
                tell(&event)?;
            }
            self.known.insert(name, flow);
        }
        for flow in known.values().filter(|flow| ended(flow).is_none()) {
            if displaced_up_to.is_none_or(|limit| flow.active_ns > limit) {
                tell(&Event { reason: Some("removed"), ..event(Kind::Closed, flow) })?;
            }
        }
        self.last_ns = Some(listing.now_ns);
        Ok(())
    }

    fn compare<'a>(&self, before: Option<&Flow>, flow: &'a Flow, seconds: Option<f64>) -> Option<Event<'a>> {
        let (was_open, reason) = (before.is_some_and(|flow| ended(flow).is_none()), ended(flow));
        // The clock ticks every few milliseconds: what the last look did not show may have opened in its own tick.
        let new = self.last_ns.is_some_and(|last| flow.created_ns >= last);
        let kind = match (before, reason) {
            (None, Some(_)) if !new => return None,
            (Some(_), Some(_)) if !was_open => return None,
            (_, Some(_)) => Kind::Closed,
            (None, None) if new => Kind::Opened,
            // The same ports serve another connection.
            (Some(_), None) if !was_open => Kind::Opened,
            (_, None) => Kind::Active,
        };
        // What it had before it came into view is not of this second.
        let counted = before.map(total).or_else(|| new.then_some((0, 0)));
        let rates = counted.zip(seconds).map(|((packets, bytes), seconds)| {
            let now = total(flow);
            let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds * 10.0).round() / 10.0;
            (rate(now.0, packets), rate(now.1, bytes))
        });
        if kind == Kind::Active && rates.is_some_and(|(packets, _)| packets == 0.0) {
            return None;
        }
        let (packets_per_second, bytes_per_second) = rates.unzip();
        Some(Event { reason, packets_per_second, bytes_per_second, ..event(kind, flow) })
    }
}

fn event(event: Kind, flow: &Flow) -> Event<'_> {
    Event { event, reason: None, packets_per_second: None, bytes_per_second: None, flow }
}

/// How the connection has ended, although the flow is still held.
fn ended(flow: &Flow) -> Option<&'static str> {
    ["closing", "reset"].into_iter().find(|state| flow.state.as_deref() == Some(state))
}

fn name(flow: &Flow) -> Name {
    (flow.protocol.clone(), flow.peer, flow.destination, flow.created_ns, flow.drop_reason.clone())
}

fn total(flow: &Flow) -> (u64, u64) {
    let back = flow.to_peer.map_or((0, 0), |count| (count.packets, count.bytes));
    (flow.from_peer.packets + back.0, flow.from_peer.bytes + back.1)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::flows::record::tests::sample;

    const NS: u64 = 1_000_000_000;

    /// Looks at `flows`, `seconds` after the clock's start; what was told.
    fn look(watched: &mut Watched, seconds: u64, more: u64, flows: &[Flow]) -> Vec<(Kind, Option<&'static str>, u16)> {
        let listing = Listing { flows: flows.to_vec(), more, now_ns: seconds * NS };
        let mut told = Vec::new();
        let done: Result<(), Infallible> = watched.look(listing, |event| {
            told.push((event.event, event.reason, event.flow.peer.port));
            Ok(())
        });
        done.unwrap_or_else(|error| match error {});
        told
    }

    fn flow(port: u16, created: u64, active: u64, packets: u64, state: &str) -> Flow {
        let mut flow = sample();
        flow.peer.port = port;
        (flow.created_ns, flow.active_ns) = (created * NS, active * NS);
        flow.from_peer.packets = packets;
        flow.state = Some(state.to_owned());
        flow
    }

    #[test]
    fn flows_open_are_active_and_close() {
        let mut watched = Watched::default();
        let at = |created, active, packets, state| flow(1, created, active, packets, state);
        assert_eq!(look(&mut watched, 10, 0, &[at(1, 9, 5, "established")]), [(Kind::Active, None, 1)]);
        assert_eq!(look(&mut watched, 11, 0, &[at(1, 9, 5, "established")]), [], "nothing has moved");
        let opened = flow(2, 12, 12, 1, "half_open");
        let told = look(&mut watched, 12, 0, &[at(1, 12, 9, "established"), opened]);
        assert_eq!(told, [(Kind::Active, None, 1), (Kind::Opened, None, 2)]);
        let opened = flow(3, 13, 13, 1, "half_open");
        let told = look(&mut watched, 14, 0, &[at(1, 12, 9, "closing"), opened.clone()]);
        assert_eq!(
            told,
            [(Kind::Closed, Some("closing"), 1), (Kind::Opened, None, 3), (Kind::Closed, Some("removed"), 2)]
        );
        assert_eq!(look(&mut watched, 15, 0, &[at(1, 15, 10, "closing"), opened]), [], "a last ACK opens nothing");
        assert_eq!(
            look(&mut watched, 16, 0, &[]),
            [(Kind::Closed, Some("removed"), 3)],
            "what had closed is not told twice"
        );
    }

    #[test]
    fn what_opens_in_the_tick_of_the_last_look_opens() {
        let mut watched = Watched::default();
        let first = flow(1, 10, 10, 1, "half_open");
        assert_eq!(look(&mut watched, 10, 0, std::slice::from_ref(&first)), [(Kind::Active, None, 1)]);
        let second = flow(2, 10, 10, 1, "half_open");
        assert_eq!(look(&mut watched, 11, 0, &[first, second]), [(Kind::Opened, None, 2)]);
    }

    #[test]
    fn the_same_ports_may_serve_again() {
        let mut watched = Watched::default();
        assert_eq!(look(&mut watched, 10, 0, &[flow(1, 1, 9, 5, "reset")]), [], "over before anybody looked");
        assert_eq!(look(&mut watched, 11, 0, &[flow(1, 1, 11, 6, "half_open")]), [(Kind::Opened, None, 1)]);
    }

    #[test]
    fn what_the_limit_displaced_has_not_closed() {
        let mut watched = Watched::default();
        look(&mut watched, 10, 0, &[flow(1, 1, 9, 5, "established"), flow(2, 1, 7, 5, "established")]);
        let told = look(&mut watched, 11, 1, &[flow(3, 2, 8, 5, "established")]);
        assert_eq!(
            told,
            [(Kind::Active, None, 3), (Kind::Closed, Some("removed"), 1)],
            "2 may be the one that did not fit"
        );
    }

    #[test]
    fn rates_are_those_of_both_directions_per_second() {
        let mut watched = Watched::default();
        look(&mut watched, 10, 0, &[flow(1, 1, 9, 5, "established")]);
        let mut after = flow(1, 1, 12, 9, "established");
        after.from_peer.bytes += 100;
        after.to_peer = after.to_peer.map(|mut count| {
            (count.packets, count.bytes) = (count.packets + 6, count.bytes + 900);
            count
        });
        let listing = Listing { flows: vec![after], more: 0, now_ns: 12 * NS };
        let mut json = String::new();
        watched.look(listing, |event| serde_json::to_string(event).map(|text| json = text)).expect("JSON");
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&value["event"], &value["packets_per_second"]), (&"active".into(), &5.0.into()));
        assert_eq!((&value["bytes_per_second"], &value["kind"]), (&500.0.into(), &"masqueraded".into()));
    }
}
