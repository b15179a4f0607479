//! One daemon for each directory of pins. A second one, perhaps in another network namespace, would take over the tables
//! of the first, and both would drop everything.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::chain::{entries, file_name};

/// A directory of this name, with the number of the owner's network namespace, says where the owner is. The file system
/// takes no files.
const OWNER: &str = "owner:net:";

/// Held for the daemon's life. The kernel ends it with the process, however that ends.
#[derive(Debug)]
pub(super) struct PinLock {
    _file: File,
    /// Tells who has it; it may outlive the lock, and says nothing then.
    marker: PathBuf,
}

impl PinLock {
    /// Locks the directory, which is there.
    ///
    /// # Errors
    /// When another daemon has it, or it goes.
    pub(super) fn take(dir: &Path) -> Result<Self, Error> {
        let failed = |source| Error::io(format!("lock {}", dir.display()), source);
        let file = File::open(dir).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::PinsInUse { path: dir.to_owned(), owner: owner(&file, dir) });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // One that ends removes the directory before it gives the lock back.
        let there = fs::metadata(dir).map_err(failed)?;
        let locked = file.metadata().map_err(failed)?;
        if (there.dev(), there.ino()) != (locked.dev(), locked.ino()) {
            return Err(failed(io::Error::other("another daemon has just removed it: start again")));
        }
        for old in entries(dir).into_iter().filter(|path| is_marker(path)) {
            let _ = fs::remove_dir(old);
        }
        let marker = dir.join(format!("{OWNER}{}", own_namespace().unwrap_or_default()));
        fs::create_dir(&marker).map_err(failed)?;
        Ok(Self { _file: file, marker })
    }

    /// Removes what tells who has the lock, which goes on.
    pub(super) fn unmark(&self) {
        // Gone with the directory, where that is gone.
        let _ = fs::remove_dir(&self.marker);
    }
}

/// Whether this tells who has the lock.
pub(super) fn is_marker(path: &Path) -> bool {
    file_name(path).starts_with(OWNER)
}

fn own_namespace() -> Option<u64> {
    fs::metadata("/proc/thread-self/ns/net").ok().map(|data| data.ino())
}

/// Who has the lock, as far as that can be seen: the owner may be in another PID namespace.
fn owner(file: &File, dir: &Path) -> String {
    let process = held_by(file).unwrap_or_else(|| "a process that cannot be seen from here".to_owned());
    let namespace = entries(dir).iter().find_map(|path| file_name(path).strip_prefix(OWNER)?.parse::<u64>().ok());
    match namespace {
        None => process,
        Some(namespace) if Some(namespace) == own_namespace() => format!("{process}, in this network namespace"),
        Some(namespace) => format!("{process}, in the network namespace net:[{namespace}]"),
    }
}

fn held_by(file: &File) -> Option<String> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let data = file.metadata().ok()?;
    let pid = holder(&locks, data.dev(), data.ino())?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("process {pid} ({})", name.trim()))
}

/// From /proc/locks: `1: FLOCK  ADVISORY  WRITE 4711 00:27:4625836 0 EOF`.
fn holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    let held = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, "WRITE", pid, of, ..] if of == file => pid.parse().ok(),
            _ => None,
        }
    };
    locks.lines().find_map(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_read_from_the_kernel_s_list() {
        let locks = "1: FLOCK  ADVISORY  WRITE 4711 00:27:4625836 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 4712 00:27:4625836 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 4713 fe:00:6283333 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 4714 fe:01:77 0 EOF\n";
        let device = libc::makedev(0, 0x27);
        assert_eq!(holder(locks, device, 4_625_836), Some(4711));
        assert_eq!(holder(locks, device, 4_625_837), None);
        assert_eq!(holder(locks, libc::makedev(0xfe, 1), 77), None, "a reader has no lock of ours");
    }

    #[test]
    fn a_directory_has_one_owner_until_that_lets_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = PinLock::take(dir.path()).expect("free");
        let error = PinLock::take(dir.path()).expect_err("taken");
        let own = format!("process {} ", std::process::id());
        assert!(matches!(&error, Error::PinsInUse { owner, .. } if owner.starts_with(&own)), "{error}");
        assert!(error.to_string().contains("in this network namespace"), "{error}");
        drop(first);
        PinLock::take(dir.path()).expect("free again");
    }
}
