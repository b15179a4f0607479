//! Where pins lie: `<bpffs>/peer/<device>/v<ABI>/{maps,links,filters}`. Another layout makes new maps beside the old ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peer_common::layout;

use super::lock::{self, PinLock};
use crate::chain::{entries, file_name};
use crate::{Error, sys};

/// The directories of one mesh device.
#[derive(Clone, Debug)]
pub(super) struct PinDirs {
    pub(super) bpffs: PathBuf,
    root: PathBuf,
    device: PathBuf,
    version: PathBuf,
    pub(super) maps: PathBuf,
    pub(super) links: PathBuf,
    /// Programs that legacy filters hold.
    pub(super) filters: PathBuf,
    lock: Arc<PinLock>,
}

impl PinDirs {
    /// Makes the directories and locks them, for as long as this or a clone of it lives.
    pub(super) fn create(bpffs: &Path, device: &str) -> Result<Self, Error> {
        match sys::is_bpffs(bpffs) {
            Ok(true) => {}
            Ok(false) => return Err(Error::NotBpffs { path: bpffs.to_owned() }),
            // A container without the mount.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotBpffs { path: bpffs.to_owned() });
            }
            Err(source) => return Err(Error::io(format!("look at {}", bpffs.display()), source)),
        }
        let root = bpffs.join("peer");
        let device = root.join(pin_name(device));
        let version = device.join(format!("v{}", layout::ABI));
        let (maps, links, filters) = (version.join("maps"), version.join("links"), version.join("filters"));
        fs::create_dir_all(&device).map_err(|source| not_writable(bpffs, &device, source))?;
        let lock = Arc::new(PinLock::take(&device)?);
        for dir in [&maps, &links] {
            fs::create_dir_all(dir).map_err(|source| not_writable(bpffs, dir, source))?;
        }
        Ok(Self { bpffs: bpffs.to_owned(), root, device, version, maps, links, filters, lock })
    }

    /// Whether nothing of this version is pinned yet.
    pub(super) fn is_fresh(&self) -> bool {
        entries(&self.maps).is_empty()
    }

    /// The key by which another version has chosen ports: with the same one, flows that only its tables know get the ports
    /// that they have. The key is the head of `Config` in every version.
    pub(super) fn inherited_hash_key(&self) -> Option<[u64; 2]> {
        let read = |version: &PathBuf| sys::pinned_map_head::<16>(&version.join("maps").join(layout::map::CONFIG));
        let key = self.others().iter().find_map(|version| read(version).ok()?).map(u128::from_ne_bytes)?;
        // As the structure has it, whatever the byte order of the machine.
        let [first, second] = if cfg!(target_endian = "little") { [key, key >> 64] } else { [key >> 64, key] };
        Some([first as u64, second as u64])
    }

    /// Directories of other versions: what an upgrade, or a rollback, has to take over and then to remove.
    pub(super) fn others(&self) -> Vec<PathBuf> {
        let version = |path: &PathBuf| *path != self.version && !lock::is_marker(path);
        entries(&self.device).into_iter().filter(version).collect()
    }

    /// Removes the pins of other versions. Where no program of theirs is attached any more their maps go, too.
    pub(super) fn remove_others(&self) -> Result<(), Error> {
        self.others().iter().try_for_each(|version| remove_tree(version))
    }

    /// Removes the pins of this version, and each directory that is empty then.
    pub(super) fn remove_version(&self) -> Result<(), Error> {
        remove_tree(&self.version)?;
        self.lock.unmark();
        // Not empty: another version, or another device of ours, lives there.
        let _ = fs::remove_dir(&self.device);
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }

    /// Removes all our pins, and each directory that is empty then.
    pub(super) fn remove(&self) -> Result<(), Error> {
        remove_tree(&self.device)?;
        // Not empty: another device of ours lives there.
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }
}

/// Characters that a device's name cannot have stand for those that bpffs does not take.
pub(crate) fn pin_name(device: &str) -> String {
    device.replace('.', ":")
}

/// Pins and directories below `dir`, and `dir`; links first, so that no program outlives the pins of its maps.
pub(super) fn remove_tree(dir: &Path) -> Result<(), Error> {
    for path in entries(dir) {
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir());
        if is_dir {
            remove_tree(&path)?;
        } else {
            remove_pin(&path)?;
        }
    }
    absent(dir, fs::remove_dir(dir))
}

/// Removes a pin, if it is there.
pub(super) fn remove_pin(path: &Path) -> Result<(), Error> {
    absent(path, fs::remove_file(path))
}

/// The name of a pin.
pub(super) fn name(path: &Path) -> String {
    file_name(path)
}

fn absent(path: &Path, result: io::Result<()>) -> Result<(), Error> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), source))
        }
        _ => Ok(()),
    }
}

fn not_writable(bpffs: &Path, dir: &Path, source: io::Error) -> Error {
    let refused = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
    if refused.contains(&source.kind()) {
        return Error::BpffsReadOnly { path: bpffs.to_owned(), source };
    }
    Error::io(format!("make {}", dir.display()), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_devices_share_a_name() {
        assert_eq!(pin_name("eth0.100"), "eth0:100");
        assert_ne!(pin_name("eth0.100"), pin_name("eth0-100"));
    }

    #[test]
    fn a_tree_is_removed_whole_or_was_not_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("wt0");
        fs::create_dir_all(tree.join("v1/maps")).expect("directories");
        fs::write(tree.join("v1/maps/FLOWS"), "").expect("a file");
        remove_tree(&tree).expect("removed");
        assert!(!tree.exists());
        remove_tree(&tree).expect("nothing to remove");
    }

    #[test]
    fn a_directory_that_is_no_bpffs_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = PinDirs::create(dir.path(), "wt0").expect_err("no bpffs");
        assert!(matches!(error, Error::NotBpffs { .. }), "{error}");
        assert!(entries(dir.path()).is_empty(), "and stays as it was");
        let error = PinDirs::create(&dir.path().join("none"), "wt0").expect_err("not even a directory").to_string();
        assert!(error.contains("/none is not a BPF file system: mount"), "{error}");
    }
}
