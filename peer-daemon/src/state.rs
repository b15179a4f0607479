//! What is kept over restarts: the last endpoint of each peer, so that a restart starts handshakes at once.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use peer_core::key::PublicKey;
use serde::{Deserialize, Serialize};

/// Endpoints by peer.
pub(crate) type Endpoints = BTreeMap<PublicKey, SocketAddr>;

/// The file of endpoints, written whole or not at all.
#[derive(Debug)]
pub(crate) struct EndpointFile {
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
    pub(crate) fn open(state_dir: &Path, own: PublicKey) -> anyhow::Result<Self> {
        std::fs::create_dir_all(state_dir)
            .with_context(|| format!("make the state directory {}", state_dir.display()))?;
        Ok(Self { path: state_dir.join("endpoints.json"), own, written: None })
    }

    /// What an earlier run has left; nothing when there is no file or it is another identity's.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub(crate) fn read(&self) -> anyhow::Result<Endpoints> {
        let text = match std::fs::read_to_string(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Endpoints::new()),
            text => text.with_context(|| format!("read {}", self.path.display()))?,
        };
        let content: Content =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged: delete it", self.path.display()))?;
        if content.public_key != self.own.to_string() {
            return Ok(Endpoints::new());
        }
        Ok(content.endpoints.iter().filter_map(|(key, addr)| Some((key.parse().ok()?, *addr))).collect())
    }

    /// Writes `endpoints`, unless they stand there already.
    ///
    /// # Errors
    /// When that fails; the former file stays whole.
    pub(crate) fn write(&mut self, endpoints: Endpoints) -> anyhow::Result<()> {
        if self.written.as_ref() == Some(&endpoints) {
            return Ok(());
        }
        let content = Content {
            public_key: self.own.to_string(),
            endpoints: endpoints.iter().map(|(key, addr)| (key.to_string(), *addr)).collect(),
        };
        let new = self.path.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(&content)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        write().with_context(|| format!("write {}", self.path.display()))?;
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
