//! What a dataplane says about whether packets can flow, part by part.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use peer_core::readiness::{Latch, Readiness};

use crate::traffic::{Counts, Crossing, TrafficWatch};
use crate::{Attachment, Error, RouteStats, Stats};

/// Unserved routes that a reason names; more would make an unreadable line.
const NAMED: usize = 4;

/// The parts that a dataplane answers for.
#[derive(Debug)]
pub struct Latches {
    /// The tables hold what they should.
    pub dataplane: Latch,
    /// Every program is in its place, first, and the only one of ours there.
    pub links: Latch,
    /// Enough routes are served.
    pub routes: Latch,
    /// What the programs redirect leaves the devices.
    pub traffic: Latch,
}

impl Latches {
    /// Latches for all of them, "starting".
    #[must_use]
    pub fn of(readiness: &Readiness) -> Self {
        let latch = |name| readiness.latch(name);
        Self {
            dataplane: latch("dataplane"),
            links: latch("links"),
            routes: latch("routes"),
            traffic: latch("traffic"),
        }
    }

    pub(crate) fn not_ready(&self, reason: &str) {
        for latch in [&self.dataplane, &self.links, &self.routes, &self.traffic] {
            latch.not_ready(reason);
        }
    }
}

/// Sets the latches by what was found, and logs what changes.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) latches: Latches,
    pub(crate) traffic: TrafficWatch,
    ready_routes: ReadyRoutes,
    /// Why parts are not ready, as the log has it.
    logged: BTreeMap<&'static str, String>,
}

impl Parts {
    pub(crate) fn new(latches: Latches, ready_routes: ReadyRoutes) -> Self {
        Self { latches, traffic: TrafficWatch::default(), ready_routes, logged: BTreeMap::new() }
    }

    /// `result` is what came of putting things in force, `refused` why nothing is served, `stats` how it stands.
    pub(crate) fn report(&mut self, result: &Result<(), Error>, refused: Option<&str>, stats: &Result<Stats, Error>) {
        let in_force = match (result, stats, refused) {
            // That is the links' to say.
            (Err(error), ..) if !matches!(error, Error::Unreached { .. }) => Err(error.to_string()),
            (_, Err(error), _) => Err(error.to_string()),
            (.., Some(why)) => Err(format!("nothing is served: {why}")),
            _ => Ok(()),
        };
        self.set("dataplane", in_force);
        if let Ok(stats) = stats {
            self.set("links", reached(stats).map_err(|error| error.to_string()));
            self.set("routes", self.ready_routes.judge(&stats.routes));
        }
    }

    /// Takes a look at what programs and devices have counted.
    pub(crate) fn watch_traffic(&mut self, now: Instant, counts: BTreeMap<Crossing, Counts>) {
        self.traffic.look(now, counts);
        self.set("traffic", self.traffic.judge());
    }

    fn set(&mut self, part: &'static str, found: Result<(), String>) {
        let latch = match part {
            "links" => &self.latches.links,
            "routes" => &self.latches.routes,
            "traffic" => &self.latches.traffic,
            _ => &self.latches.dataplane,
        };
        match found {
            Ok(()) => {
                latch.ready();
                if self.logged.remove(part).is_some() {
                    tracing::info!(part, "ready again");
                }
            }
            Err(reason) => {
                latch.not_ready(reason.clone());
                if self.logged.get(part) != Some(&reason) {
                    tracing::warn!(part, reason, "not ready");
                    self.logged.insert(part, reason);
                }
            }
        }
    }
}

/// Why packets do not reach a program, if so.
pub(crate) fn reached(stats: &Stats) -> Result<(), Error> {
    let unreached = stats.attachments.iter().find_map(Attachment::unreached);
    unreached.map_or(Ok(()), |why| Err(Error::Unreached { why }))
}

/// How many of its routes a node must serve to be ready. Whatever the rule, one that has routes and serves none is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyRoutes {
    /// Every one.
    All,
    /// At least one.
    Any,
    /// At least this share, 1 to 100.
    Percent(u8),
}

impl Default for ReadyRoutes {
    /// Half. Out of service, a node also loses the routes that it serves: below half more is won by that than lost.
    fn default() -> Self {
        Self::Percent(50)
    }
}

impl ReadyRoutes {
    /// Whether enough of `routes` are served; without any route there is nothing to wait for. What the kernel forwards counts.
    ///
    /// # Errors
    /// The reason, with the remedy.
    pub fn judge(self, routes: &[RouteStats]) -> Result<(), String> {
        let unserved: Vec<(&RouteStats, &str)> =
            routes.iter().filter_map(|route| Some((route, route.unserved.as_deref()?))).collect();
        let (all, served) = (routes.len(), routes.len() - unserved.len());
        let enough = match self {
            Self::All => served == all,
            Self::Any => served > 0,
            Self::Percent(share) => served > 0 && served * 100 >= all * usize::from(share),
        };
        if enough || all == 0 {
            return Ok(());
        }
        let mut named: Vec<String> =
            unserved.iter().take(NAMED).map(|(route, why)| format!("{}: {why}", route.destination)).collect();
        if unserved.len() > NAMED {
            named.push(format!("{} more", unserved.len() - NAMED));
        }
        Err(format!(
            "{served} of {all} routes served, --ready-routes (NB_READY_ROUTES) wants {self}: {}; bring their uplinks up, or see \
             `peer-daemon doctor`",
            named.join("; ")
        ))
    }
}

impl fmt::Display for ReadyRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Any => f.write_str("any"),
            Self::Percent(share) => write!(f, "{share}%"),
        }
    }
}

impl FromStr for ReadyRoutes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = || text.strip_suffix('%').unwrap_or(text).parse().ok().filter(|share| (1..=100).contains(share));
        match text {
            "all" => Ok(Self::All),
            "any" => Ok(Self::Any),
            _ => share().map(Self::Percent).ok_or_else(|| "write all, any, or a share from 1% to 100%".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(served: usize, unserved: usize) -> Vec<RouteStats> {
        let route = |id: usize, why: Option<&str>| RouteStats {
            id: id as u32,
            destination: format!("10.{id}.0.0/16").parse().expect("a prefix"),
            masquerade: true,
            uplinks: Vec::new(),
            by_kernel: None,
            unserved: why.map(str::to_owned),
            out: Default::default(),
            back: Default::default(),
        };
        let served_ones = (0..served).map(|id| route(id, None));
        served_ones.chain((served..served + unserved).map(|id| route(id, Some("eth1 is down")))).collect()
    }

    #[test]
    fn a_node_that_has_routes_and_serves_none_is_never_ready() {
        for rule in [ReadyRoutes::All, ReadyRoutes::Any, ReadyRoutes::Percent(1), ReadyRoutes::default()] {
            assert!(rule.judge(&routes(0, 3)).is_err(), "{rule}");
            assert_eq!(rule.judge(&[]), Ok(()), "{rule}: nothing to serve");
            assert_eq!(rule.judge(&routes(3, 0)), Ok(()), "{rule}");
        }
    }

    #[test]
    fn three_of_four_unserved_is_not_ready_by_default_and_names_route_reason_rule_and_remedy() {
        let why = ReadyRoutes::default().judge(&routes(1, 3)).expect_err("not ready");
        for part in ["1 of 4 routes", "wants 50%", "10.1.0.0/16: eth1 is down", "bring their uplinks up"] {
            assert!(why.contains(part), "no {part:?} in {why}");
        }
        assert!(ReadyRoutes::default().judge(&routes(1, 9)).expect_err("not ready").contains("; 5 more; "));
    }

    #[test]
    fn each_rule_has_its_bound() {
        let cases = [
            (ReadyRoutes::All, 3, 1, false),
            (ReadyRoutes::Any, 1, 9, true),
            (ReadyRoutes::Percent(50), 2, 2, true),
            (ReadyRoutes::Percent(50), 2, 3, false),
            (ReadyRoutes::Percent(100), 99, 1, false),
            (ReadyRoutes::Percent(34), 1, 2, false),
            (ReadyRoutes::Percent(33), 1, 2, true),
        ];
        for (rule, served, unserved, ready) in cases {
            assert_eq!(rule.judge(&routes(served, unserved)).is_ok(), ready, "{rule}: {served} and {unserved}");
        }
    }

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for rule in [ReadyRoutes::All, ReadyRoutes::Any, ReadyRoutes::Percent(1), ReadyRoutes::Percent(100)] {
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
        assert_eq!("75".parse(), Ok(ReadyRoutes::Percent(75)));
        for bad in ["", "0", "0%", "101", "half", "-1", "50 %", "256"] {
            assert!(bad.parse::<ReadyRoutes>().is_err(), "{bad:?}");
        }
    }
}
