//! Keeps the mesh device as it should be: others set it down, flush its addresses, or change its settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peer_core::readiness::Latch;
use peer_io::wt0::{Deviation, Notices, Wt0};
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// At the latest the device is put right after so long.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Changes come in bursts.
const GATHER: Duration = Duration::from_millis(50);
/// Repairs that follow a change at once; after these, only the looks repair, so that two programs do not fight in a loop.
const AT_ONCE: u32 = 3;
/// After so long without a change, repairs follow at once again, and the log names the next change.
const QUIET: Duration = Duration::from_secs(600);

/// Looks at the device whenever it changes, and regularly. Ends when it is aborted.
pub(super) async fn keep(wt0: Arc<Mutex<Wt0>>, latch: Latch, mut notices: Notices) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut history = History::default();
    loop {
        let occasion = tokio::select! {
            _ = looks.tick() => Occasion::Look,
            () = notices.next() => {
                sleep(GATHER).await;
                Occasion::Change
            }
        };
        let mended = mend(&mut *wt0.lock().await, occasion, &mut history, &latch).await;
        if let Err(error) = mended {
            tracing::warn!(%error, "the mesh device could not be put right");
            latch.not_ready(error.to_string());
        }
    }
}

async fn mend(wt0: &mut Wt0, occasion: Occasion, history: &mut History, latch: &Latch) -> Result<(), peer_io::Error> {
    // Of a device that is gone the dataplane tells, and the daemon ends.
    let Some(found) = wt0.look().await? else {
        latch.not_ready(format!("the device {} was deleted", wt0.name()));
        return Ok(());
    };
    if !found.is_empty() {
        let what = describe(wt0.name(), &found);
        latch.not_ready(what.clone());
        let now = Instant::now();
        let new = history.is_new(&found, now);
        if !history.may_repair(occasion, now) {
            return Ok(());
        }
        if new {
            tracing::warn!("{what}: another program changed it; it is put right");
        } else {
            tracing::debug!("{what}: it is put right again");
        }
        wt0.put_back(&found).await?;
    } else if occasion == Occasion::Look && !wt0.refused_addresses().is_empty() {
        wt0.retry_refused().await?;
    }
    match wt0.look().await? {
        Some(left) if !left.is_empty() => latch.not_ready(describe(wt0.name(), &left)),
        _ if has_no_address(wt0) => latch.not_ready(format!("the kernel takes no address on {}", wt0.name())),
        Some(_) => latch.ready(),
        None => {}
    }
    Ok(())
}

/// Why the device is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// The kernel reports a change.
    Change,
    /// It is time to.
    Look,
}

/// What others have done to the device so far. Pure.
#[derive(Debug, Default)]
struct History {
    /// When each kind of change was last seen.
    seen: BTreeMap<&'static str, Instant>,
    at_once: u32,
    repaired: Option<Instant>,
}

impl History {
    /// Whether a kind of change among `found` has not been seen for long.
    fn is_new(&mut self, found: &[Deviation], now: Instant) -> bool {
        let mut new = false;
        for Deviation { change, .. } in found {
            let last = self.seen.insert(change.name(), now);
            new |= last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        }
        new
    }

    /// Whether to repair now; that counts as done then.
    fn may_repair(&mut self, occasion: Occasion, now: Instant) -> bool {
        if self.repaired.is_some_and(|last| now.saturating_duration_since(last) >= QUIET) {
            self.at_once = 0;
        }
        match occasion {
            Occasion::Look => {}
            Occasion::Change if self.at_once < AT_ONCE => self.at_once += 1,
            Occasion::Change => return false,
        }
        self.repaired = Some(now);
        true
    }
}

fn describe(name: &str, found: &[Deviation]) -> String {
    /// More would make an unreadable line.
    const NAMED: usize = 4;
    let mut named: Vec<&str> = found.iter().take(NAMED).map(|deviation| deviation.what.as_str()).collect();
    let more = format!("{} more", found.len().saturating_sub(NAMED));
    if found.len() > NAMED {
        named.push(&more);
    }
    format!("mesh device check failed: {name}: {}", named.join(", "))
}

fn has_no_address(wt0: &Wt0) -> bool {
    let refused = wt0.refused_addresses().len();
    refused > 0 && refused == wt0.wanted_addresses().len()
}

#[cfg(test)]
mod tests {
    use peer_io::wt0::Change;

    use super::*;

    fn found(changes: &[Change]) -> Vec<Deviation> {
        changes.iter().map(|&change| Deviation { change, what: change.name().to_owned() }).collect()
    }

    #[test]
    fn three_repairs_follow_at_once_and_then_only_the_looks_repair() {
        let start = Instant::now();
        let mut history = History::default();
        let mut may = |occasion, seconds| history.may_repair(occasion, start + Duration::from_secs(seconds));
        let (change, look) = (Occasion::Change, Occasion::Look);
        assert_eq!([0, 1, 2, 3].map(|second| may(change, second)), [true, true, true, false]);
        assert_eq!([may(look, 10), may(change, 11), may(look, 20)], [true, false, true]);
        assert!(may(change, 620), "after ten quiet minutes");
    }

    #[test]
    fn each_kind_of_change_is_logged_once_until_it_was_quiet_for_long() {
        let start = Instant::now();
        let mut history = History::default();
        let mut new = |changes, seconds| history.is_new(&found(changes), start + Duration::from_secs(seconds));
        assert!(new(&[Change::Down], 0));
        assert!(!new(&[Change::Down], 10));
        assert!(new(&[Change::Down, Change::Address], 20), "another kind");
        assert!(!new(&[Change::Down], 619), "still the same quarrel");
        assert!(new(&[Change::Down], 1219));
    }

    #[test]
    fn a_reason_names_what_is_wrong_and_stays_short() {
        let text = describe("wt0", &found(&[Change::Down, Change::Mtu]));
        assert_eq!(text, "mesh device check failed: wt0: down, mtu");
        assert!(describe("wt0", &found(&[Change::Route; 9])).ends_with("route, route, route, route, 5 more"));
    }
}
