//! The machine's clocks: when it has slept, when its wall clock was set, and whether that is wrong.
//!
//! Timers of sessions count sleep ([`peer_io::clock`]); servers have forgotten us meanwhile, so that their streams are made
//! anew at once. The wall clock decides nothing but the first stamp of handshake initiations ([`stamps`]) and what people read.

pub(crate) mod finding;
mod reading;
pub(crate) mod stamps;
mod watch;

use peer_io::clock::Alarm;

use self::reading::Reading;
pub(crate) use self::watch::Noticed;
use self::watch::Watch;

/// Waits for sleep and for the setting of the wall clock.
#[derive(Debug)]
pub(crate) struct Clock {
    /// `None`: the kernel refuses.
    alarm: Option<Alarm>,
    watch: Watch,
    wrong: bool,
}

impl Clock {
    /// Begins to watch, and warns if the clock is wrong now. Inside a runtime.
    pub(crate) fn watch() -> Self {
        let alarm = Alarm::open()
            .inspect_err(|error| tracing::warn!(%error, "sleep and setting of the clock go unnoticed"))
            .ok();
        let mut clock = Self { alarm, watch: Watch::new(Reading::now()), wrong: false };
        clock.judge(Reading::now());
        clock
    }

    /// The next time that the machine has slept, or that its wall clock was set. Nothing is lost when it is dropped and called
    /// again.
    pub(crate) async fn changed(&mut self) -> Noticed {
        loop {
            match &self.alarm {
                Some(alarm) => {
                    if let Err(error) = alarm.rung().await {
                        tracing::warn!(%error, "sleep and setting of the clock go unnoticed from now on");
                        self.alarm = None;
                    }
                }
                None => std::future::pending().await,
            }
            let now = Reading::now();
            self.judge(now);
            if let Some(noticed) = self.watch.look(now) {
                noticed.log();
                return noticed;
            }
        }
    }

    /// Warns once for each time that the clock becomes wrong.
    fn judge(&mut self, now: Reading) {
        let wrong = finding::unset(now.wall);
        if let Some(finding) = wrong.as_ref().filter(|_| !self.wrong) {
            tracing::warn!(remedy = finding.remedy, "the clock is wrong: {}", finding.what);
        }
        self.wrong = wrong.is_some();
    }
}
