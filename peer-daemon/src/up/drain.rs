//! The end is announced, and traffic goes on until it has found another way.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::life::Node;
use super::signals::{Signals, Told};

/// How often traffic is looked at. What is silent for so long is over.
const LOOK: Duration = Duration::from_millis(500);

/// Goes on forwarding, new flows included, until there is no traffic, `limit` has passed, or another signal comes.
pub(crate) async fn drain(limit: Duration, node: &Node, signals: &mut Signals) {
    let end = Instant::now() + limit;
    let mut seen = None;
    while Instant::now() < end {
        let forwarded = forwarded(node).await;
        if forwarded.is_none() || forwarded == seen {
            break;
        }
        seen = forwarded;
        tokio::select! {
            () = sleep(LOOK.min(end.saturating_duration_since(Instant::now()))) => {}
            () = told_again(signals) => {
                tracing::info!("told again to stop: traffic is cut");
                break;
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
