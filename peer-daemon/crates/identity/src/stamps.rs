//! The newest timestamp of our handshake initiations, so that a later life goes on from there.
//!
//! A peer refuses an initiation that is not stamped later than all before (WireGuard paper §5.1), so a wall clock that is set
//! back, or lost while the machine was off, must not lead to earlier stamps. Within one boot the kernel counts the time since
//! the last writing, however long ago that was. For another boot stamps are reserved ahead: then the file has to be written
//! only when most of the reserve is used up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use peer_core::key::PublicKey;
use serde::{Deserialize, Serialize};

use crate::{Error, file};

const LIMIT: u64 = 4096;

/// What is kept of the stamps. Times in whole nanoseconds; until 2554.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct KeptStamp {
    /// Which boot of the kernel it was: `boot_id` in `/proc/sys/kernel/random`.
    pub boot_id: String,
    /// Time since that boot, sleep included (`CLOCK_BOOTTIME`), ns.
    pub boot_time: u64,
    /// The newest stamp at that time, Unix time, ns.
    pub stamp: u64,
    /// Every stamp until the next writing is at most this, Unix time, ns.
    pub reserved: u64,
}

impl KeptStamp {
    /// Unix time that no stamp sent so far is later than, in that boot, at that time since it.
    #[must_use]
    pub fn newest(&self, boot_id: &str, boot_time: Duration) -> Duration {
        let since = boot_time.checked_sub(Duration::from_nanos(self.boot_time));
        match since {
            // The stamps have gone on as this clock has.
            Some(since) if boot_id == self.boot_id => Duration::from_nanos(self.stamp) + since,
            _ => Duration::from_nanos(self.reserved.max(self.stamp)),
        }
    }
}

/// The file of the newest stamp. It needs no lock: an older one is lower, and both are written by the one daemon that has the key.
#[derive(Debug)]
pub struct StampFile {
    path: PathBuf,
    own: PublicKey,
}

#[derive(Deserialize, Serialize)]
struct Content {
    /// Whose stamps: peers remember them by key.
    public_key: String,
    #[serde(flatten)]
    kept: KeptStamp,
}

impl StampFile {
    /// The file in `state_dir`, which is made if need be.
    ///
    /// # Errors
    /// When the directory can neither be found nor made.
    pub fn open(state_dir: &Path, own: PublicKey) -> Result<Self, Error> {
        file::make_dir(state_dir)?;
        Ok(Self { path: Self::path(state_dir), own })
    }

    /// What was kept of a key's stamps; nothing when there is no file or it is another key's.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn read(&self) -> Result<Option<KeptStamp>, Error> {
        let content = read(&self.path)?;
        Ok(content.filter(|content| content.public_key == self.own.to_string()).map(|content| content.kept))
    }

    /// What was kept in `state_dir`, whoever's it is: for those who only look.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn look(state_dir: &Path) -> Result<Option<KeptStamp>, Error> {
        Ok(read(&Self::path(state_dir))?.map(|content| content.kept))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When it cannot be written; the former file stays whole.
    pub fn write(&self, kept: &KeptStamp) -> Result<(), Error> {
        let content = Content { public_key: self.own.to_string(), kept: kept.clone() };
        let text = serde_json::to_vec_pretty(&content).map_err(|error| Error::io("write", &self.path)(error.into()))?;
        file::write(&self.path, &[&text])
    }

    fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("stamps.json")
    }
}

fn read(path: &Path) -> Result<Option<Content>, Error> {
    let Some(bytes) = file::read(path, LIMIT)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Damaged {
        path: path.to_owned(),
        field: "the file",
        why: format!("is damaged ({error})"),
        fix: "delete it: if the clock is right, nothing is lost",
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn kept() -> KeptStamp {
        let boot_id = "3a8c1d2e-0000-4000-8000-000000000001".to_owned();
        KeptStamp { boot_id, boot_time: 50 * SECOND, stamp: 1000 * SECOND, reserved: 1600 * SECOND }
    }

    #[test]
    fn within_one_boot_stamps_go_on_as_the_kernel_counts() {
        let kept = kept();
        let newest = |boot_time| kept.newest(&kept.boot_id, Duration::from_secs(boot_time)).as_secs();
        assert_eq!([newest(50), newest(51), newest(100_050)], [1000, 1001, 101_000]);
    }

    #[test]
    fn in_another_boot_all_that_was_reserved_may_have_been_sent() {
        let kept = kept();
        assert_eq!(kept.newest("another", Duration::from_secs(80)).as_secs(), 1600);
        // The same boot, seen from a time namespace that is younger.
        assert_eq!(kept.newest(&kept.boot_id, Duration::from_secs(49)).as_secs(), 1600);
    }

    #[test]
    fn stamps_are_kept_by_key_and_0600() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = StampFile::open(&dir.path().join("state"), PublicKey([1; 32])).expect("a state directory");
        assert_eq!(file.read().expect("nothing yet"), None);
        file.write(&kept()).expect("written");
        assert_eq!(file.read().expect("read"), Some(kept()));
        assert_eq!(StampFile::look(&dir.path().join("state")).expect("read"), Some(kept()));
        let mode = std::fs::metadata(&file.path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = StampFile::open(&dir.path().join("state"), PublicKey([2; 32])).expect("the same directory");
        assert_eq!(other.read().expect("read"), None);
        std::fs::write(&file.path, "{").expect("written");
        assert!(file.read().expect_err("damaged").to_string().contains("delete it"));
    }
}
