//! How the key was registered.

use std::time::{SystemTime, UNIX_EPOCH};

use peer_core::key::PublicKey;
use serde::{Deserialize, Serialize};

use crate::{Error, StateDir, file};

const NAME: &str = "registration.json";
const LIMIT: u64 = 64 << 10;

/// A registration that this daemon made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Of which key.
    pub public_key: PublicKey,
    /// Where.
    pub management_url: String,
    /// By a setup key.
    pub by_setup_key: bool,
    /// When, in whole seconds.
    pub at: SystemTime,
}

#[derive(Deserialize, Serialize)]
struct Content {
    public_key: String,
    management_url: String,
    by_setup_key: bool,
    at: u64,
}

impl Registration {
    /// How `own` was registered; nothing if an earlier daemon did not do it, or the file is of another key.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn read(dir: &StateDir, own: PublicKey) -> Result<Option<Self>, Error> {
        let path = dir.file(NAME);
        let Some(bytes) = file::read(&path, LIMIT)? else { return Ok(None) };
        let content: Content = serde_json::from_slice(&bytes).map_err(|error| Error::Damaged {
            path,
            field: "the file",
            why: format!("is no registration ({error})"),
            fix: "delete it: the peer then counts as registered by hand",
        })?;
        let public_key = content.public_key.parse().ok().filter(|key| *key == own);
        Ok(public_key.map(|public_key| Self {
            public_key,
            management_url: content.management_url,
            by_setup_key: content.by_setup_key,
            at: UNIX_EPOCH + std::time::Duration::from_secs(content.at),
        }))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &StateDir) -> Result<(), Error> {
        let content = Content {
            public_key: self.public_key.to_string(),
            management_url: self.management_url.clone(),
            by_setup_key: self.by_setup_key,
            at: self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        let path = dir.file(NAME);
        let text = serde_json::to_vec_pretty(&content).map_err(|error| Error::io("write", &path)(error.into()))?;
        file::write(&path, &[&text, b"\n"])
    }

    /// Forgets that there was one: the peer is deleted.
    ///
    /// # Errors
    /// When the file stays.
    pub fn forget(dir: &StateDir) -> Result<(), Error> {
        file::remove(&dir.file(NAME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_belongs_to_its_key() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(temp.path()).expect("opened");
        let own = PublicKey([7; 32]);
        assert_eq!(Registration::read(&dir, own).expect("none"), None);
        let registration = Registration {
            public_key: own,
            management_url: "https://nb.example".to_owned(),
            by_setup_key: true,
            at: UNIX_EPOCH + std::time::Duration::from_secs(1_790_000_000),
        };
        registration.write(&dir).expect("written");
        assert_eq!(Registration::read(&dir, own).expect("read"), Some(registration));
        assert_eq!(Registration::read(&dir, PublicKey([8; 32])).expect("read"), None);
        std::fs::write(dir.file(NAME), "{}").expect("written");
        assert!(Registration::read(&dir, own).expect_err("damaged").to_string().contains("registration.json"));
        Registration::forget(&dir).expect("gone");
        assert_eq!(Registration::read(&dir, own).expect("none"), None);
    }
}
