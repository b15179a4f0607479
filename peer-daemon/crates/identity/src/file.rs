//! Files that are 0600 and whole.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::Error;

/// The content of a file, at most `limit` bytes; `None` when there is none.
///
/// # Errors
/// When it cannot be read, or is larger.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io("read", path))?,
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

/// Writes a file whole or not at all: a crash leaves the former one.
///
/// # Errors
/// When that fails; the former file stays.
pub(crate) fn write(path: &Path, parts: &[&[u8]]) -> Result<(), Error> {
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
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

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
