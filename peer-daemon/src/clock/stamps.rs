//! Keeps the newest stamp of our handshake initiations, so that no later life stamps earlier: see [`KeptStamp`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peer_core::key::PublicKey;
use peer_identity::{KeptStamp, StampFile};
use peer_io::shard::Shard;
use peer_wireguard::Engine;
use tokio::sync::Notify;

use super::finding;
use super::reading::Reading;

/// Stamps are reserved so far ahead: after a power cut they may be this much ahead of the wall clock.
pub(crate) const RESERVE: Duration = Duration::from_secs(600);
/// The file is written this often.
const PAUSE: Duration = Duration::from_secs(300);

/// What is known of the stamps of earlier lives.
#[derive(Debug)]
pub(crate) struct Stamps {
    /// `None`: nothing can be kept.
    file: Option<StampFile>,
    floor: Duration,
}

impl Stamps {
    /// Reads what was kept, and warns of a wall clock that is behind it, or that it cannot be kept.
    pub(crate) fn open(state_dir: &Path, own: PublicKey) -> Self {
        let opened = StampFile::open(state_dir, own).and_then(|file| Ok((file.read()?, file)));
        let (kept, file) = match opened {
            Ok((kept, file)) => (kept, Some(file)),
            Err(error) => {
                tracing::warn!(%error, "stamps of handshakes are not kept: after a clock that goes back peers may refuse ours");
                (None, None)
            }
        };
        let now = Reading::now();
        let floor = kept.map_or(Duration::ZERO, |kept| kept.newest(&boot_id(), now.boot));
        if let Some(finding) = finding::behind(now.wall, floor) {
            tracing::warn!(remedy = finding.remedy, "the clock is wrong: {}", finding.what);
        }
        Self { file, floor }
    }

    /// Unix time from which on initiations are to be stamped.
    pub(crate) fn floor(&self) -> Duration {
        self.floor
    }

    /// Reserves what a new engine may stamp. Before it sends anything.
    pub(crate) fn reserve(&self, engine: &mut Engine) {
        self.write(engine.newest_stamp(peer_io::clock::now()), RESERVE);
    }

    /// Goes on reserving, at least whenever `changed` is told, until `stop` is; then only what was used stays.
    pub(crate) async fn keep(self, shard: Arc<Shard<Engine>>, changed: Arc<Notify>, stop: Arc<Notify>) {
        let newest = || async { shard.with_engine(Engine::newest_stamp).await.ok() };
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(PAUSE) => false,
                () = changed.notified() => false,
                () = stop.notified() => true,
            };
            // Without a shard nothing is stamped any more: what is reserved stays.
            let Some(newest) = newest().await else { return };
            self.write(newest, if stopping { Duration::ZERO } else { RESERVE });
            if stopping {
                return;
            }
        }
    }

    fn write(&self, newest: Duration, reserve: Duration) {
        if let Some(file) = &self.file
            && let Err(error) = file.write(&kept(newest, reserve))
        {
            tracing::warn!(%error, "the stamp of handshakes is not kept: after a clock that goes back peers may refuse ours");
        }
    }
}

/// What to keep now.
pub(super) fn kept(newest: Duration, reserve: Duration) -> KeptStamp {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    KeptStamp {
        boot_id: boot_id(),
        boot_time: nanoseconds(Reading::now().boot),
        stamp: nanoseconds(newest),
        reserved: nanoseconds(newest + reserve),
    }
}

/// Which boot of the kernel this is; empty where that is not shown.
pub(super) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_begins_beyond_the_one_before_whatever_the_wall_clock_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = PublicKey([1; 32]);
        let first = Stamps::open(dir.path(), own);
        assert_eq!(first.floor(), Duration::ZERO);
        // The first life had a clock of 2100.
        let newest = Duration::from_secs(4_102_444_800);
        first.write(newest, RESERVE);
        let second = Stamps::open(dir.path(), own);
        assert!(second.floor() >= newest && second.floor() < newest + RESERVE, "the boot is the same: {second:?}");
        assert_eq!(Stamps::open(dir.path(), PublicKey([2; 32])).floor(), Duration::ZERO, "another key has other peers");
        // Another boot: all that was reserved may have been used.
        let mut kept = kept(newest, RESERVE);
        kept.boot_id = "another".to_owned();
        second.file.as_ref().expect("kept").write(&kept).expect("written");
        assert_eq!(Stamps::open(dir.path(), own).floor(), newest + RESERVE);
    }
}
