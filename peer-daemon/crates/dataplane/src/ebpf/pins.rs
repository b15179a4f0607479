//! Where pins lie: `<bpffs>/peer/<device>/v<ABI>/{maps,links,filters}`. Another layout makes new maps beside the old ones.
//!
//! Without a bpffs there are none: programs and maps live as long as the process.

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
    /// `None`: nothing is pinned.
    lock: Option<Arc<PinLock>>,
}

impl PinDirs {
    /// Makes the directories and locks them, for as long as this or a clone of it lives. Where there is no bpffs nothing is made,
    /// and nothing will be pinned, unless pins are `required`.
    pub(super) fn create(bpffs: &Path, device: &str, required: bool) -> Result<Self, Error> {
        let is_bpffs =
            sys::is_bpffs(bpffs).map_err(|source| Error::io(format!("look at {}", bpffs.display()), source))?;
        if !is_bpffs && required {
            return Err(Error::NotBpffs { path: bpffs.to_owned() });
        }
        let root = bpffs.join("peer");
        let device = root.join(pin_name(device));
        let version = device.join(format!("v{}", layout::ABI));
        let (maps, links, filters) = (version.join("maps"), version.join("links"), version.join("filters"));
        let mut dirs = Self { bpffs: bpffs.to_owned(), root, device, version, maps, links, filters, lock: None };
        if is_bpffs {
            fs::create_dir_all(&dirs.device).map_err(|source| not_writable(bpffs, &dirs.device, source))?;
            dirs.lock = Some(Arc::new(PinLock::take(&dirs.device)?));
            for dir in [&dirs.maps, &dirs.links] {
                fs::create_dir_all(dir).map_err(|source| not_writable(bpffs, dir, source))?;
            }
        }
        Ok(dirs)
    }

    /// Whether anything is pinned.
    pub(super) fn is_pinned(&self) -> bool {
        self.lock.is_some()
    }

    /// Whether nothing of this version is pinned yet.
    pub(super) fn is_fresh(&self) -> bool {
        !self.is_pinned() || entries(&self.maps).is_empty()
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
        let version = |path: &PathBuf| self.is_pinned() && *path != self.version && !lock::is_marker(path);
        entries(&self.device).into_iter().filter(version).collect()
    }

    /// Removes the pins of other versions. Where no program of theirs is attached any more their maps go, too.
    pub(super) fn remove_others(&self) -> Result<(), Error> {
        self.others().iter().try_for_each(|version| remove_tree(version))
    }

    /// Removes the pins of this version, and each directory that is empty then.
    pub(super) fn remove_version(&self) -> Result<(), Error> {
        let Some(lock) = &self.lock else { return Ok(()) };
        remove_tree(&self.version)?;
        lock.unmark();
        // Not empty: another version, or another device of ours, lives there.
        let _ = fs::remove_dir(&self.device);
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }

    /// Removes all our pins, and each directory that is empty then.
    pub(super) fn remove(&self) -> Result<(), Error> {
        if !self.is_pinned() {
            return Ok(());
        }
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
    fn a_directory_that_is_no_bpffs_is_refused_where_pins_are_required() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = PinDirs::create(dir.path(), "wt0", true).expect_err("no bpffs");
        assert!(matches!(error, Error::NotBpffs { .. }), "{error}");
        assert!(entries(dir.path()).is_empty(), "and stays as it was");
        let none = dir.path().join("none");
        let error = PinDirs::create(&none, "wt0", true).expect_err("not even a directory").to_string();
        assert!(error.contains("/none is not a BPF file system: mount"), "{error}");
    }

    #[test]
    fn without_a_bpffs_nothing_is_made_and_nothing_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let stranger = dir.path().join("peer/wt0/v1/maps");
        fs::create_dir_all(&stranger).expect("directories");
        let dirs = PinDirs::create(dir.path(), "wt0", false).expect("without pins");
        assert!(!dirs.is_pinned() && dirs.is_fresh() && dirs.others().is_empty());
        dirs.remove_others().expect("nothing");
        dirs.remove_version().expect("nothing");
        dirs.remove().expect("nothing");
        assert!(stranger.is_dir() && !dirs.maps.exists(), "it stays as it was");
    }
}
