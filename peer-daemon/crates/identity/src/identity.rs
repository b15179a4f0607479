//! Who this peer is.

use std::path::PathBuf;

use peer_core::key::PrivateKey;
use zeroize::Zeroizing;

use crate::official::{self, Settings};
use crate::{Error, StateDir, file};

/// The key and what stands beside it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The private key.
    pub private_key: PrivateKey,
    /// Settings of an earlier life.
    pub settings: Settings,
    /// Where the key is from.
    pub origin: Origin,
    /// The configuration file that has it, or is to have it.
    path: PathBuf,
}

/// Where a key is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there: ours of an earlier life, or the official client's.
    Found(PathBuf),
    /// It is kept elsewhere; [`Identity::keep`] copies it into the state directory.
    Copied(PathBuf),
    /// It is new: this peer was never registered.
    New,
}

impl Identity {
    /// The identity that is in `dir`; else the one in the first of the `elsewhere` that is there; else a new one. Nothing is
    /// written: see [`Self::keep`].
    ///
    /// # Errors
    /// When a file cannot be read or understood. A damaged one is not taken for a missing one: the peer would come back as
    /// another.
    pub fn find(dir: &StateDir, elsewhere: &[PathBuf]) -> Result<Self, Error> {
        let path = official::config_path(dir)?;
        if let Some((private_key, settings)) = official::read(&path)? {
            return Ok(Self { private_key, settings, origin: Origin::Found(path.clone()), path });
        }
        for other in elsewhere {
            if let Some((private_key, settings)) = official::read(other)? {
                return Ok(Self { private_key, settings, origin: Origin::Copied(other.clone()), path });
            }
        }
        Ok(Self { private_key: generate(), settings: Settings::default(), origin: Origin::New, path })
    }

    /// Sees to it that the next start finds this identity in `dir`, and that nobody else can read it. A new one is written with
    /// `management_url`. Before that is done no server should know the key.
    ///
    /// # Errors
    /// When it cannot be written, or what was found elsewhere has changed meanwhile.
    pub fn keep(&self, dir: &StateDir, management_url: &str) -> Result<(), Error> {
        match &self.origin {
            Origin::Found(path) => dir.make_private(path),
            Origin::Copied(other) => {
                self.make_parent()?;
                official::copy(other, &self.path, &self.private_key)
            }
            Origin::New => {
                self.make_parent()?;
                official::create(&self.path, &self.private_key, management_url)
            }
        }
    }

    fn make_parent(&self) -> Result<(), Error> {
        self.path.parent().map_or(Ok(()), file::make_dir)
    }
}

/// A new private key, clamped as RFC 7748 §5 says and `wg genkey` prints it.
#[must_use]
pub fn generate() -> PrivateKey {
    let mut bytes = Zeroizing::new(rand::random::<[u8; 32]>());
    bytes[0] &= 0xf8;
    bytes[31] = bytes[31] & 0x7f | 0x40;
    PrivateKey::from_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const RECORDED: &str = include_str!("testdata/node-default.json");
    const RECORDED_KEY: &str = "aBkPaAivDmERJRJv584z9Y5lztwXaPwGPcOswptmTyI=";

    fn load(dir: &StateDir, elsewhere: &[PathBuf]) -> Identity {
        let identity = Identity::find(dir, elsewhere).expect("an identity");
        identity.keep(dir, "https://nb.example:443").expect("kept");
        identity
    }

    #[test]
    fn to_find_an_identity_writes_nothing() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(&temp.path().join("state")).expect("opened");
        let elsewhere = [temp.path().join("config.json")];
        let is_there = || dir.file("default.json").exists();
        assert_eq!(Identity::find(&dir, &elsewhere).expect("a new one").origin, Origin::New);
        assert!(!is_there());
        std::fs::write(&elsewhere[0], RECORDED).expect("written");
        let found = Identity::find(&dir, &elsewhere).expect("the other one");
        assert_eq!(found.origin, Origin::Copied(elsewhere[0].clone()));
        assert!(!is_there());
        std::fs::write(&elsewhere[0], "{").expect("written");
        found.keep(&dir, "https://nb.example").expect_err("it is another file by now");
        assert!(!is_there());
    }

    #[test]
    fn a_new_key_comes_back_after_a_restart() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(&temp.path().join("state")).expect("opened");
        let first = load(&dir, &[]);
        assert_eq!(first.origin, Origin::New);
        let again = load(&dir, &[]);
        assert_eq!(again.private_key.expose(), first.private_key.expose());
        assert_eq!(again.origin, Origin::Found(dir.file("default.json")));
        let mode = std::fs::metadata(dir.file("default.json")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_state_of_an_official_client_is_adopted_unchanged_and_made_private() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(temp.path()).expect("opened");
        std::fs::write(dir.file("default.json"), RECORDED).expect("written");
        std::fs::set_permissions(dir.file("default.json"), std::fs::Permissions::from_mode(0o644)).expect("set");
        let identity = load(&dir, &[]);
        assert_eq!(identity.private_key.public_key().to_string(), RECORDED_KEY);
        assert_eq!(identity.settings.management_url.as_deref(), Some("http://10.99.0.1:8080"));
        assert_eq!(std::fs::read_to_string(dir.file("default.json")).expect("read"), RECORDED);
        let mode = std::fs::metadata(dir.file("default.json")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_configuration_elsewhere_is_copied_whole_and_only_if_there_is_none_here() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(&temp.path().join("state")).expect("opened");
        let elsewhere = [temp.path().join("none.json"), temp.path().join("config.json")];
        std::fs::write(&elsewhere[1], RECORDED).expect("written");
        let identity = load(&dir, &elsewhere);
        assert_eq!(identity.private_key.public_key().to_string(), RECORDED_KEY);
        assert_eq!(identity.origin, Origin::Copied(elsewhere[1].clone()));
        assert_eq!(std::fs::read_to_string(dir.file("default.json")).expect("read"), RECORDED);
        std::fs::write(&elsewhere[1], "{").expect("written");
        assert_eq!(load(&dir, &elsewhere).private_key.public_key().to_string(), RECORDED_KEY);
    }

    #[test]
    fn a_damaged_file_never_makes_another_peer() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(temp.path()).expect("opened");
        std::fs::write(dir.file("default.json"), &RECORDED[..90]).expect("written");
        Identity::find(&dir, &[]).expect_err("damaged");
        assert_eq!(std::fs::read_to_string(dir.file("default.json")).expect("left"), &RECORDED[..90]);
    }

    #[test]
    fn new_keys_are_clamped_and_differ() {
        let [a, b] = [generate(), generate()];
        assert_ne!(a.expose(), b.expose());
        assert_eq!((a.expose()[0] & 7, a.expose()[31] & 0xc0), (0, 0x40));
    }
}
