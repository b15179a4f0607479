//! Packets that are followed: by one at a time, and never for longer than somebody looks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peer_dataplane::driver::StatsReader;
use serde::{Deserialize, Serialize};

use super::report::Report;

/// Whoever has not fetched anything for so long is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who follows, if anybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveTrace(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Number of the last one who began.
    begun: u64,
    armed: Option<Armed>,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    until: Instant,
    /// When packets were fetched last.
    fetched: Instant,
}

/// The answer to one who begins.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Following {
    /// Number of the first packet to fetch.
    pub(super) next: u64,
    pub(super) seconds: u16,
    /// For people.
    pub(super) what: String,
}

/// Packets that were fetched.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Packets {
    pub(super) packets: Vec<Report>,
    pub(super) next: u64,
    pub(super) missed: u64,
    /// Nobody follows any more: these are the last.
    pub(super) ended: bool,
}

impl LiveTrace {
    /// Begins to follow at `now`. `Err`: somebody does, for so many seconds more.
    pub(super) fn begin(&self, now: Instant, time: Duration) -> Result<u64, u64> {
        let mut state = self.lock();
        if let Some(armed) = state.armed.filter(|armed| armed.lives(now)) {
            return Err((armed.until - now).as_secs() + 1);
        }
        state.begun += 1;
        state.armed = Some(Armed { until: now + time, fetched: now });
        Ok(state.begun)
    }

    /// Packets are fetched. Returns whether anybody still follows.
    pub(super) fn fetched(&self, now: Instant) -> bool {
        let mut state = self.lock();
        if let Some(armed) = &mut state.armed {
            armed.fetched = now;
        }
        state.armed.is_some_and(|armed| armed.lives(now))
    }

    /// Nobody follows any more.
    pub(super) fn end(&self) {
        self.lock().armed = None;
    }

    /// Ends what `number` has begun, once its time is over or nobody fetches.
    pub(super) async fn watch(self, number: u64, dataplane: StatsReader) {
        while self.is(number, Instant::now()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if self.take(number)
            && let Err(error) = dataplane.follow(None).await
        {
            tracing::warn!(%error, "packets are still followed: the programs end that by themselves");
        }
    }

    /// Ends what `number` has begun; `false`: it has ended already.
    fn take(&self, number: u64) -> bool {
        let mut state = self.lock();
        state.begun == number && state.armed.take().is_some()
    }

    fn is(&self, number: u64, now: Instant) -> bool {
        let state = self.lock();
        state.begun == number && state.armed.is_some_and(|armed| armed.lives(now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Armed {
    fn lives(&self, now: Instant) -> bool {
        now < self.until && now.saturating_duration_since(self.fetched) < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_follows_at_a_time_and_no_longer_than_somebody_looks() {
        let (live, start) = (LiveTrace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!live.fetched(start), "nobody has begun");
        assert_eq!(live.begin(start, Duration::from_secs(20)), Ok(1));
        assert_eq!(live.begin(at(1), Duration::from_secs(20)), Err(20));
        assert!(live.fetched(at(4)) && live.fetched(at(8)));
        assert!(live.is(1, at(12)) && !live.is(1, at(14)), "gone without a word");
        assert_eq!(live.begin(at(14), Duration::from_secs(3)), Ok(2));
        assert!(!live.is(1, at(14)) && live.fetched(at(16)));
        assert!(!live.fetched(at(17)), "its time is over");
        assert_eq!(live.begin(at(18), Duration::from_secs(9)), Ok(3));
        live.end();
        assert_eq!(live.begin(at(18), Duration::from_secs(9)), Ok(4));
    }
}
