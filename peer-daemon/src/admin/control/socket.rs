//! The file of the control socket: bound where nothing else stands, and taken away only if it is still ours.

use std::fs::{self, DirBuilder, FileType, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::net::UnixListener;

/// A socket in the file system; it goes when this does, unless another has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a socket at `path` that only its owner may open. A socket that nobody answers is a left-over and replaced; what is
/// no socket never is.
///
/// # Errors
/// When something else stands there, another daemon answers, or the operating system refuses.
pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            let what = describe(found.file_type());
            let why = format!("{what} stands there, which is not replaced; remove it if nobody needs it");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers there"));
        }
    }
    // Under a name of its own until its mode is right: nobody opens it in between.
    let new = path.with_extension(format!("new.{}", std::process::id()));
    remove_socket(&new)?;
    let listener = UnixListener::bind(&new)?;
    match place(&new, path) {
        Ok(identity) => Ok((listener, SocketFile { path: path.to_owned(), identity })),
        Err(error) => {
            let _ = fs::remove_file(&new);
            Err(io::Error::new(error.kind(), format!("place the socket: {error}")))
        }
    }
}

fn place(new: &Path, path: &Path) -> io::Result<(u64, u64)> {
    fs::set_permissions(new, Permissions::from_mode(0o600))?;
    let identity = identity(new)?;
    remove_socket(path)?;
    // Somebody may have put something there since: it stays.
    match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        // A file system without that flag.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(new, path)?,
        placed => placed?,
    }
    Ok(identity)
}

/// Removes a left-over.
fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(found) => {
            let why = format!("{} stands at {}", describe(found.file_type()), path.display());
            Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn describe(found: FileType) -> &'static str {
    match found {
        found if found.is_file() => "a regular file",
        found if found.is_dir() => "a directory",
        found if found.is_symlink() => "a symbolic link",
        found if found.is_fifo() => "a pipe",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{FileType as Kind, Mode, mknodat};

    use super::*;

    #[tokio::test]
    async fn what_is_no_socket_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "precious").expect("written");
        fs::create_dir(at("directory")).expect("made");
        symlink(at("file"), at("link to a file")).expect("a link");
        symlink(at("nowhere"), at("link to nothing")).expect("a link");
        mknodat(CWD, at("pipe"), Kind::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        for (name, what) in [
            ("file", "a regular file"),
            ("directory", "a directory"),
            ("link to a file", "a symbolic link"),
            ("link to nothing", "a symbolic link"),
            ("pipe", "a pipe"),
        ] {
            let before = identity(&at(name)).expect("there");
            let error = bind(&at(name)).map(|_| ()).expect_err(name).to_string();
            assert!(error.contains(what) && error.contains("not replaced"), "{name}: {error}");
            assert_eq!(identity(&at(name)).expect("there"), before);
        }
        assert_eq!(fs::read_to_string(at("file")).expect("there"), "precious");
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 5, "nothing is left behind");
    }

    #[tokio::test]
    async fn what_came_to_stand_there_later_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        let (listener, file) = bind(&path).expect("bound");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "another's").expect("written");
        drop((listener, file));
        assert_eq!(fs::read_to_string(&path).expect("there"), "another's");
    }
}
