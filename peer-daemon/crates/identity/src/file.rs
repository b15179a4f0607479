//! Files that are 0600 and whole.

use std::fs::{self, DirBuilder, File, FileType, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::Error;

/// The content of a regular file, at most `limit` bytes; `None` when there is none. It is wiped from memory when dropped.
///
/// # Errors
/// When it cannot be read, is larger, or is a pipe, a device or anything else that is not a regular file. Opening one of
/// those does not block.
pub fn read(path: &Path, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let file = match open(OpenOptions::new().read(true), path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let len = file.metadata().map_err(Error::io("read", path))?.len();
    if len > limit {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("{len} bytes, more than {limit}"));
        return Err(Error::Io { what: "read", path: path.to_owned(), source });
    }
    // Its size is known: a vector that grows would leave copies of secrets behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or_default()));
    file.take(len).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(Some(bytes))
}

/// Opens a regular file. Whoever can write to the directory could have put a pipe there: it is opened so that nobody waits
/// for its other end.
///
/// # Errors
/// When the file cannot be opened, or is not a regular one.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> Result<File, Error> {
    // Linux ignores the flag for regular files.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = match options.custom_flags(nonblocking).open(path) {
        // A pipe that is opened to write and has no reader, a socket, or a directory.
        Err(error) => {
            let found = fs::metadata(path).ok().filter(|found| !found.is_file());
            return Err(
                found.map_or_else(|| Error::io("open", path)(error), |found| not_regular(path, found.file_type()))
            );
        }
        Ok(file) => file,
    };
    let found = file.metadata().map_err(Error::io("open", path))?.file_type();
    if found.is_file() { Ok(file) } else { Err(not_regular(path, found)) }
}

/// Writes a file whole or not at all: a crash leaves the former one.
///
/// # Errors
/// When that fails; the former file stays. What stands in its place and is not a regular file is not replaced.
pub(crate) fn write(path: &Path, parts: &[&[u8]]) -> Result<(), Error> {
    if let Some(found) = fs::metadata(path).ok().filter(|found| !found.is_file()) {
        return Err(not_regular(path, found.file_type()));
    }
    let new = path.with_added_extension("new");
    let write = || -> io::Result<()> {
        // Left by a crash, perhaps with other permissions.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The rename itself is in the directory.
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(Error::io("write", path))
}

/// A directory that only its owner may look into; it may be there already.
///
/// # Errors
/// When it can neither be found nor made.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("make", path))
}

/// Deletes a file that may be there.
///
/// # Errors
/// When it is there and stays.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("delete", path)),
    }
}

fn not_regular(path: &Path, found: FileType) -> Error {
    let kind = match found {
        found if found.is_dir() => "a directory",
        found if found.is_fifo() => "a pipe",
        found if found.is_socket() => "a socket",
        _ => "a device",
    };
    Error::NotRegular { path: path.to_owned(), kind }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType as Kind, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_and_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        mknodat(CWD, at("pipe"), Kind::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        symlink(at("pipe"), at("link")).expect("a link");
        let _socket = UnixListener::bind(at("socket")).expect("a socket");
        fs::create_dir(at("directory")).expect("a directory");
        symlink("/dev/zero", at("device")).expect("a link to a device");
        for (name, kind) in [
            ("pipe", "a pipe"),
            ("link", "a pipe"),
            ("socket", "a socket"),
            ("directory", "a directory"),
            ("device", "a device"),
        ] {
            let path = at(name);
            let before = fs::symlink_metadata(&path).expect("there").file_type();
            let read = read(&path, 9).map(|_| ()).expect_err(name);
            let locked = open(OpenOptions::new().write(true).create(true), &path).map(|_| ()).expect_err(name);
            let written = write(&path, &[b"x"]).expect_err(name);
            for error in [read, locked, written] {
                let error = error.to_string();
                assert!(error.contains(kind) && error.contains(name), "{name}: {error}");
            }
            assert_eq!(fs::symlink_metadata(&path).expect("there").file_type(), before);
        }
    }

    #[test]
    fn a_link_to_a_regular_file_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("..data"), "mounted").expect("written");
        symlink("..data", dir.path().join("link")).expect("a link, as kubelet mounts secrets");
        assert_eq!(read(&dir.path().join("link"), 9).expect("read").expect("there").as_slice(), b"mounted");
    }

    #[test]
    fn a_file_is_private_whole_and_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.json");
        assert!(read(&path, 9).expect("no file is no error").is_none());
        // As a crash in an earlier write leaves it.
        fs::write(path.with_added_extension("new"), "half").expect("written");
        write(&path, &[b"one", b"two"]).expect("written");
        assert_eq!(read(&path, 9).expect("read").expect("there").as_slice(), b"onetwo");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(!path.with_added_extension("new").exists());
        let refused = read(&path, 5).expect_err("too large").to_string();
        assert!(refused.contains("6 bytes, more than 5") && refused.contains("a.json"), "{refused}");
        remove(&path).expect("gone");
        remove(&path).expect("gone already");
    }

    #[test]
    fn what_cannot_be_written_leaves_the_former() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.json");
        write(&path, &[b"former"]).expect("written");
        // Root may write anywhere: a directory in the way stops it as well.
        fs::create_dir(path.with_added_extension("new")).expect("made");
        write(&path, &[b"latter"]).expect_err("refused");
        assert_eq!(read(&path, 9).expect("read").expect("there").as_slice(), b"former");
    }
}
