//! The end is announced, and traffic goes on until it has found another way.

use std::time::{Duration, Instant};

use super::life::Node;
use super::signals::{Signals, Told};

/// How often traffic is looked at. What is silent for so long is over.
const LOOK: Duration = Duration::from_millis(500);

/// Goes on forwarding, new flows included, until there is no traffic or the time is up.
#[derive(Debug)]
pub(crate) struct Drain {
    end: Instant,
    next: Instant,
    seen: Option<u64>,
}

impl Drain {
    /// Begins now, and takes no longer than `limit`.
    pub(crate) fn begin(limit: Duration) -> Self {
        let now = Instant::now();
        Self { end: now + limit, next: now, seen: None }
    }

    /// When to ask [`Self::is_over`] again.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next.min(self.end)
    }

    /// Whether it is over.
    pub(crate) async fn is_over(&mut self, node: &Node) -> bool {
        let now = Instant::now();
        if now >= self.end {
            return true;
        }
        if now < self.next {
            return false;
        }
        let forwarded = forwarded(node).await;
        let silent = forwarded.is_none() || forwarded == self.seen;
        self.seen = forwarded;
        self.next = now + LOOK;
        silent
    }
}

/// Drains a node that needs nothing else meanwhile. Another signal ends it.
pub(super) async fn drain(limit: Duration, node: &Node, signals: &mut Signals) {
    let mut drain = Drain::begin(limit);
    while !drain.is_over(node).await {
        tokio::select! {
            () = tokio::time::sleep_until(drain.poll_timeout().into()) => {}
            () = told_again(signals) => {
                tracing::info!("told again to stop: traffic is cut");
                return;
            }
        }
    }
}

async fn told_again(signals: &mut Signals) {
    while !matches!(signals.next().await, Told::Stop(_)) {}
}

/// Packets that the node has forwarded so far, in both directions.
async fn forwarded(node: &Node) -> Option<u64> {
    let stats = node.driver.stats().read().await.ok()?;
    Some(stats.routes.iter().map(|route| route.out.packets + route.back.packets).sum())
}
