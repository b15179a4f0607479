//! The page of metrics, made at most once a second however many ask: to make it reads every table of the kernel's that has
//! figures, and stops the packet thread for a moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a page is good for. No scraper asks the same target more often.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The page, in both formats.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// OpenMetrics 1.0.
    pub(super) open_metrics: Bytes,
    /// Prometheus' text format 0.0.4.
    pub(super) classic: Bytes,
}

/// The last page. Who asks while it is being made waits for it.
#[derive(Debug, Default)]
pub(super) struct Pages {
    last: Mutex<Option<(Instant, Result<Page, Arc<str>>)>>,
}

impl Page {
    pub(super) fn new(open_metrics: String) -> Self {
        let classic = peer_metrics::classic(&open_metrics).into();
        Self { open_metrics: open_metrics.into(), classic }
    }
}

impl Pages {
    /// The page: the last one, or what `make` makes if that is too old. A failure is shared as well.
    pub(super) async fn get(&self, make: impl AsyncFnOnce() -> anyhow::Result<String>) -> Result<Page, Arc<str>> {
        let mut last = self.last.lock().await;
        if let Some((begun, page)) = &*last
            && begun.elapsed() < GOOD_FOR
        {
            return page.clone();
        }
        let begun = Instant::now();
        let page = make().await.map(Page::new).map_err(|error| format!("{error:#}").into());
        *last = Some((begun, page.clone()));
        page
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_share_one_page() {
        let (pages, made) = (Arc::new(Pages::default()), Arc::new(AtomicU32::new(0)));
        let begun = Instant::now();
        let asking: Vec<_> = (0..100)
            .map(|_| {
                let (pages, made) = (Arc::clone(&pages), Arc::clone(&made));
                tokio::spawn(async move {
                    let make = async || {
                        tokio::task::yield_now().await;
                        Ok(format!("# TYPE a counter\na_total {}\n# EOF\n", made.fetch_add(1, Ordering::Relaxed)))
                    };
                    pages.get(make).await.expect("a page")
                })
            })
            .collect();
        let mut bodies = Vec::new();
        for asking in asking {
            let page = asking.await.expect("no panic");
            bodies.push((page.open_metrics.as_ptr(), page.classic.as_ptr()));
        }
        let periods = 1 + begun.elapsed().as_secs() as u32;
        assert!(made.load(Ordering::Relaxed) <= periods);
        bodies.dedup();
        assert!(bodies.len() <= periods as usize, "the very same bytes");
    }

    #[tokio::test]
    async fn an_old_page_is_made_anew_and_a_failure_is_not_tried_by_each() {
        let pages = Pages::default();
        let begun = Instant::now();
        let failed = pages.get(async || anyhow::bail!("the packet thread does not answer")).await.expect_err("failed");
        let again = pages.get(async || Ok(String::new())).await;
        if begun.elapsed() < GOOD_FOR {
            assert_eq!(again.expect_err("shared"), failed);
        }
        let old = Instant::now().checked_sub(GOOD_FOR).expect("a machine that has run for a second");
        pages.last.lock().await.as_mut().expect("kept").0 = old;
        pages.get(async || Ok("# EOF\n".to_owned())).await.expect("made anew");
    }
}
