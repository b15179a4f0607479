//! The last endpoint of each peer, so that a restart starts handshakes at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use peer_core::key::PublicKey;
use serde::{Deserialize, Serialize};

use crate::{Error, file};

const LIMIT: u64 = 16 << 20;

/// Endpoints by peer.
pub type Endpoints = BTreeMap<PublicKey, SocketAddr>;

/// The file of endpoints. It needs no lock: what is lost in it costs a handshake a little time.
#[derive(Debug)]
pub struct EndpointFile {
    path: PathBuf,
    own: PublicKey,
    written: Option<Endpoints>,
}

#[derive(Deserialize, Serialize)]
struct Content {
    /// Whose peers these are: another identity has other peers.
    public_key: String,
    endpoints: BTreeMap<String, SocketAddr>,
}

impl EndpointFile {
    /// The file in `state_dir`, which is made if need be.
    ///
    /// # Errors
    /// When the directory can neither be found nor made.
    pub fn open(state_dir: &Path, own: PublicKey) -> Result<Self, Error> {
        file::make_dir(state_dir)?;
        Ok(Self { path: state_dir.join("endpoints.json"), own, written: None })
    }

    /// What an earlier run has left; nothing when there is no file or it is another identity's.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn read(&self) -> Result<Endpoints, Error> {
        let Some(bytes) = file::read(&self.path, LIMIT)? else { return Ok(Endpoints::new()) };
        let content: Content = serde_json::from_slice(&bytes).map_err(|error| Error::Damaged {
            path: self.path.clone(),
            field: "the file",
            why: format!("is damaged ({error})"),
            fix: "delete it",
        })?;
        if content.public_key != self.own.to_string() {
            return Ok(Endpoints::new());
        }
        Ok(content.endpoints.iter().filter_map(|(key, addr)| Some((key.parse().ok()?, *addr))).collect())
    }

    /// Writes `endpoints`, unless they stand there already.
    ///
    /// # Errors
    /// When that fails; the former file stays whole.
    pub fn write(&mut self, endpoints: Endpoints) -> Result<(), Error> {
        if self.written.as_ref() == Some(&endpoints) {
            return Ok(());
        }
        let content = Content {
            public_key: self.own.to_string(),
            endpoints: endpoints.iter().map(|(key, addr)| (key.to_string(), *addr)).collect(),
        };
        let text = serde_json::to_vec_pretty(&content).map_err(|error| Error::io("write", &self.path)(error.into()))?;
        file::write(&self.path, &[&text])?;
        self.written = Some(endpoints);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn endpoints() -> Endpoints {
        [(PublicKey([7; 32]), "192.0.2.1:51820".parse().expect("an endpoint"))].into()
    }

    #[test]
    fn endpoints_come_back_to_the_same_identity_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = PublicKey([1; 32]);
        let mut file = EndpointFile::open(&dir.path().join("state"), own).expect("a state directory");
        assert_eq!(file.read().expect("nothing yet"), Endpoints::new());
        file.write(endpoints()).expect("written");
        assert_eq!(file.read().expect("read"), endpoints());
        let mode = std::fs::metadata(&file.path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = EndpointFile::open(&dir.path().join("state"), PublicKey([2; 32])).expect("the same directory");
        assert_eq!(other.read().expect("read"), Endpoints::new());
    }

    #[test]
    fn a_damaged_file_is_reported_and_not_taken_for_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = EndpointFile::open(dir.path(), PublicKey([1; 32])).expect("a state directory");
        std::fs::write(dir.path().join("endpoints.json"), "{").expect("written");
        assert!(file.read().expect_err("damaged").to_string().contains("damaged"));
    }
}
