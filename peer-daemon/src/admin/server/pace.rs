//! How often answers are given. Who asks more often waits for a turn, in the order of asking, and who hangs up meanwhile
//! gives the turn up: what cannot be had faster is not asked for faster.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

/// Of its time, an answer that must be alone may take one part in so many.
const SHARE: u32 = 4;
/// However long the answer before has taken.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Turns, one after the other.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    burst: Duration,
    next: Mutex<Instant>,
}

/// A turn that keeps all others waiting; the next one comes a while after its end.
#[derive(Debug)]
pub(crate) struct Alone<'a> {
    next: MutexGuard<'a, Instant>,
    begun: Instant,
    every: Duration,
}

impl Pace {
    /// A turn each `every`; after a pause up to `burst` of them come at once.
    pub(crate) fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst: every * burst.saturating_sub(1), next: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) {
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        let earliest = Instant::now().checked_sub(self.burst).unwrap_or(*next);
        *next = (*next).max(earliest) + self.every;
    }

    /// Waits for a turn, and has it alone. Dear answers so take no more than a quarter of the time of one CPU.
    pub(crate) async fn alone(&self) -> Alone<'_> {
        let next = self.next.lock().await;
        sleep_until(*next).await;
        Alone { next, begun: Instant::now(), every: self.every }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let rest = ((now - self.begun) * (SHARE - 1)).clamp(self.every, LONGEST_REST.max(self.every));
        *self.next = now + rest;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const EVERY: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn after_a_burst_there_is_one_turn_in_each_period() {
        let pace = Pace::new(EVERY, 5);
        tokio::time::sleep(EVERY * 6).await;
        let begun = Instant::now();
        for _ in 0..10 {
            pace.turn().await;
        }
        // Five at once, and the sixth to the tenth one period apart.
        assert!(begun.elapsed() >= EVERY * 4, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn who_hangs_up_uses_no_turn() {
        let pace = Arc::new(Pace::new(Duration::from_millis(50), 1));
        pace.turn().await;
        let begun = Instant::now();
        let asking = |pace: &Arc<Pace>| {
            let pace = Arc::clone(pace);
            tokio::spawn(async move { pace.turn().await })
        };
        let gone: Vec<_> = (0..1000).map(|_| asking(&pace)).collect();
        tokio::task::yield_now().await;
        gone.iter().for_each(tokio::task::JoinHandle::abort);
        asking(&pace).await.expect("a turn");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}, a thousand turns would take 50 s", begun.elapsed());
    }

    #[tokio::test]
    async fn a_dear_answer_is_followed_by_a_rest() {
        let pace = Pace::new(Duration::from_millis(1), 1);
        let turn = pace.alone().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(turn);
        let begun = Instant::now();
        drop(pace.alone().await);
        assert!(begun.elapsed() >= Duration::from_millis(85), "{:?}", begun.elapsed());
    }
}
