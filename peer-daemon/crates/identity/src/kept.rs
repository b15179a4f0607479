//! The last network map.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peer_core::key::PublicKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Error, StateDir, file};

const NAME: &str = "network-map.bin";
/// More than the largest message that is received, with its header.
const LIMIT: u64 = 65 << 20;
/// Of the header, the first line.
const FORMAT: u32 = 1;

/// A network map and when it was received.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptMap {
    /// When management said so, in whole seconds.
    pub received: SystemTime,
    /// Which management.
    pub management_url: String,
    /// The message as it was received. It has credentials of relays in it.
    pub message: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for KeptMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { received, management_url, message } = self;
        let bytes = message.len();
        f.debug_struct("KeptMap")
            .field("received", received)
            .field("from", management_url)
            .field("bytes", &bytes)
            .finish()
    }
}

#[derive(Deserialize, Serialize)]
struct Header {
    format: u32,
    public_key: String,
    management_url: String,
    received: u64,
    bytes: usize,
}

impl KeptMap {
    /// The map that `own` got last, if an earlier life kept one. One of another key or format is none.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn read(dir: &StateDir, own: PublicKey) -> Result<Option<Self>, Error> {
        let path = dir.file(NAME);
        let Some(bytes) = file::read(&path, LIMIT)? else { return Ok(None) };
        let damaged = |why: String| Error::Damaged {
            path: path.clone(),
            field: "the file",
            why,
            fix: "delete it: the next start then waits for management",
        };
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("has no header".to_owned()))?;
        let header: Header = serde_json::from_slice(&bytes[..end])
            .map_err(|error| damaged(format!("has a header that cannot be read ({error})")))?;
        if header.format != FORMAT || header.public_key.parse() != Ok(own) {
            return Ok(None);
        }
        let message = &bytes[end + 1..];
        if message.len() != header.bytes {
            return Err(damaged(format!("has {} bytes of {}", message.len(), header.bytes)));
        }
        Ok(Some(Self {
            received: UNIX_EPOCH + Duration::from_secs(header.received),
            management_url: header.management_url,
            message: Zeroizing::new(message.to_vec()),
        }))
    }

    /// Keeps it as the map of `own`.
    ///
    /// # Errors
    /// When it cannot be written; the former one stays.
    pub fn write(&self, dir: &StateDir, own: PublicKey) -> Result<(), Error> {
        let header = Header {
            format: FORMAT,
            public_key: own.to_string(),
            management_url: self.management_url.clone(),
            received: self.received.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            bytes: self.message.len(),
        };
        let path = dir.file(NAME);
        let header = serde_json::to_vec(&header).map_err(|error| Error::io("write", &path)(error.into()))?;
        file::write(&path, &[&header, b"\n", &self.message])
    }

    /// Deletes what is kept: the peer is no longer in that network.
    ///
    /// # Errors
    /// When the file stays.
    pub fn forget(dir: &StateDir) -> Result<(), Error> {
        file::remove(&dir.file(NAME))
    }

    /// How old it is. One from the future, after the clock was set back, is new.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.received).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(message: &[u8]) -> KeptMap {
        KeptMap {
            received: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
            management_url: "https://nb.example:443".to_owned(),
            message: Zeroizing::new(message.to_vec()),
        }
    }

    #[test]
    fn a_map_belongs_to_its_key_and_is_whole() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(temp.path()).expect("opened");
        let own = PublicKey([7; 32]);
        assert_eq!(KeptMap::read(&dir, own).expect("none"), None);
        map(b"\n\x00secret\n").write(&dir, own).expect("written");
        let read = KeptMap::read(&dir, own).expect("read").expect("kept");
        assert_eq!(read, map(b"\n\x00secret\n"));
        assert!(!format!("{read:?}").contains("secret") && format!("{read:?}").contains("bytes: 9"));
        assert_eq!(KeptMap::read(&dir, PublicKey([8; 32])).expect("of another"), None);
        let whole = std::fs::read(dir.file(NAME)).expect("read");
        std::fs::write(dir.file(NAME), &whole[..whole.len() - 1]).expect("written");
        let refused = KeptMap::read(&dir, own).expect_err("cut").to_string();
        assert!(refused.contains("8 bytes of 9") && refused.contains("delete it"), "{refused}");
        KeptMap::forget(&dir).expect("gone");
        assert_eq!(KeptMap::read(&dir, own).expect("none"), None);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_map_old() {
        let kept = map(b"");
        assert_eq!(kept.age(kept.received + Duration::from_secs(60)), Duration::from_secs(60));
        assert_eq!(kept.age(UNIX_EPOCH), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn whatever_is_in_the_file_is_a_map_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let temp = tempfile::tempdir().expect("a directory");
            let dir = StateDir::open(temp.path()).expect("opened");
            std::fs::write(dir.file(NAME), &bytes).expect("written");
            prop_assert!(!matches!(KeptMap::read(&dir, PublicKey([7; 32])), Ok(Some(_))));
        }
    }
}
