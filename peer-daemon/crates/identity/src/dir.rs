//! The directory itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::{Error, file};

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// A state directory, held by this process alone.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    in_memory: bool,
    /// The lock is held while this is open.
    _lock: File,
}

impl StateDir {
    /// Opens `path`, which is made if need be, and locks it.
    ///
    /// # Errors
    /// When it can neither be found nor made, or another daemon holds it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        file::make_dir(path)?;
        let lock_path = path.join("lock");
        let lock = file::open(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600), &lock_path)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Locked { path: path.to_owned() }),
            locked => locked.map_err(io::Error::from).map_err(Error::io("lock", &lock_path))?,
        }
        Ok(Self { path: path.to_owned(), in_memory: in_memory(path)?, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is gone after a restart of the machine or of the pod: tmpfs or ramfs.
    #[must_use]
    pub fn in_memory(&self) -> bool {
        self.in_memory
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes permissions away that others have to a file with secrets.
    pub(crate) fn make_private(&self, path: &Path) -> Result<(), Error> {
        let mode = fs::metadata(path).map_err(Error::io("look at", path))?.permissions().mode();
        if mode & 0o077 != 0 {
            let private = fs::Permissions::from_mode(mode & 0o700);
            fs::set_permissions(path, private).map_err(Error::io("make private", path))?;
        }
        Ok(())
    }
}

fn in_memory(path: &Path) -> Result<bool, Error> {
    let stat = rustix::fs::statfs(path).map_err(io::Error::from).map_err(Error::io("look at", path))?;
    Ok(IN_MEMORY.contains(&stat.f_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b");
        let first = StateDir::open(&path).expect("free");
        let refused = StateDir::open(&path).expect_err("held").to_string();
        assert!(refused.contains("another daemon") && refused.contains("--state-dir"), "{refused}");
        drop(first);
        StateDir::open(&path).expect("free again");
    }

    #[test]
    fn memory_is_told_from_disk() {
        // Linux itself mounts it when it starts: a tmpfs wherever it is.
        assert!(in_memory(Path::new("/dev")).expect("there"));
        assert!(!in_memory(Path::new("/proc")).expect("there"));
    }
}
