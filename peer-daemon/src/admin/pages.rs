//! The page of metrics, made at most once a second however many ask: to make it reads every table of the kernel's that has
//! figures, and stops the packet thread for a moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
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
    last: Arc<Mutex<Option<Made>>>,
}

/// When the making began, and what came of it.
type Made = (Instant, Result<Page, Arc<str>>);

impl Page {
    pub(super) fn new(open_metrics: String) -> Self {
        let classic = peer_metrics::classic(&open_metrics).into();
        Self { open_metrics: open_metrics.into(), classic }
    }
}

impl Pages {
    /// The page: the last one, or what `make` makes if that is too old, on the runtime `on`. It is made to its end even if who asked has hung up
    /// meanwhile: else many who do so could have it made all the time. A failure is shared as well.
    pub(super) async fn get<F>(&self, on: &Handle, make: impl FnOnce() -> F) -> Result<Page, Arc<str>>
    where
        F: Future<Output = anyhow::Result<String>> + Send + 'static,
    {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((begun, page)) = &*last
            && begun.elapsed() < GOOD_FOR
        {
            return page.clone();
        }
        let (begun, made) = (Instant::now(), make());
        let making = on.spawn(async move {
            let page = made.await.map(Page::new).map_err(|error| format!("{error:#}").into());
            *last = Some((begun, page.clone()));
            page
        });
        making.await.unwrap_or_else(|error| Err(error.to_string().into()))
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
                    let make = || async move {
                        tokio::task::yield_now().await;
                        Ok(format!("# TYPE a counter\na_total {}\n# EOF\n", made.fetch_add(1, Ordering::Relaxed)))
                    };
                    pages.get(&Handle::current(), make).await.expect("a page")
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
        let failed = pages
            .get(&Handle::current(), || async { anyhow::bail!("the packet thread does not answer") })
            .await
            .expect_err("failed");
        let again = pages.get(&Handle::current(), || async { Ok(String::new()) }).await;
        if begun.elapsed() < GOOD_FOR {
            assert_eq!(again.expect_err("shared"), failed);
        }
        let old = Instant::now().checked_sub(GOOD_FOR).expect("a machine that has run for a second");
        pages.last.lock().await.as_mut().expect("kept").0 = old;
        pages.get(&Handle::current(), || async { Ok("# EOF\n".to_owned()) }).await.expect("made anew");
    }

    #[tokio::test]
    async fn a_page_that_nobody_waits_for_any_more_is_made_all_the_same() {
        let pages = Arc::new(Pages::default());
        let (begun, is_begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
        let make = || async move {
            let _ = begun.send(());
            let _ = may_go_on.await;
            Ok("# EOF\n".to_owned())
        };
        let asking = tokio::spawn({
            let pages = Arc::clone(&pages);
            async move { pages.get(&Handle::current(), make).await }
        });
        is_begun.await.expect("it is being made");
        asking.abort();
        assert!(asking.await.is_err(), "hung up");
        go_on.send(()).expect("still being made");
        let page = pages.get(&Handle::current(), || async { anyhow::bail!("made twice") }).await.expect("made once");
        assert_eq!(page.open_metrics, "# EOF\n");
    }
}
