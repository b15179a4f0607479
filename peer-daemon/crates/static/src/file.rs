//! Files: the configuration and the private key. What was read is wiped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use peer_core::key::PrivateKey;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::error::Error;

/// Most bytes of a configuration.
const MAX_CONFIG: usize = 16 << 20;
/// Most bytes of a key file: a key and what an editor may add.
const MAX_KEY: usize = 4096;
/// A configuration may come through a pipe, as in `--config <(…)`; it has to be whole after this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// A text that is wiped.
pub(crate) struct Text(Zeroizing<Vec<u8>>);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // `config` has checked it.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The configuration at `path`.
pub(crate) fn config(path: &Path) -> Result<Text, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(Error::NotReadable { path: path.to_owned() });
    }
    let bytes = read(file, MAX_CONFIG).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => Error::Late { path: path.to_owned(), limit: PATIENCE },
        _ => failed(error),
    })?;
    let bytes = bytes.ok_or_else(|| Error::TooLarge { path: path.to_owned(), limit: MAX_CONFIG })?;
    if let Err(error) = str::from_utf8(&bytes) {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        return Err(Error::NotText { path: path.to_owned(), line });
    }
    Ok(Text(bytes))
}

/// The private key in the file at `path`, or why not and what to do.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKey, (String, String)> {
    let failed = |error: &io::Error| {
        let fix = match error.kind() {
            io::ErrorKind::NotFound => "write a key to it: umask 077; peer-daemon genkey > FILE",
            io::ErrorKind::PermissionDenied => "make its owner the user that runs peer-daemon",
            _ => "check the path",
        };
        (format!("cannot be read: {error}"), fix.to_owned())
    };
    let file = open(path).map_err(|error| failed(&error))?;
    let found = file.metadata().map_err(|error| failed(&error))?;
    if !found.is_file() {
        return Err(("is no regular file".to_owned(), "name a file that holds the key alone".to_owned()));
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err((format!("others may access it (mode {mode:04o})"), format!("chmod 600 {}", path.display())));
    }
    let bytes = read(file, MAX_KEY).map_err(|error| failed(&error))?;
    let text = bytes.as_ref().and_then(|bytes| str::from_utf8(bytes).ok()).map(str::trim);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let size = bytes.map_or(format!("more than {MAX_KEY}"), |bytes| bytes.len().to_string());
        let fix = "it must hold one key as peer-daemon genkey prints it and nothing else";
        (format!("the {size} bytes in it are no key"), fix.to_owned())
    })
}

/// To open a pipe would otherwise wait for its other end; regular files are read as always.
fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(nonblocking).open(path)
}

/// Waits until there is more to read from a pipe, or its other end is closed.
fn wait(file: &File, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// All of `file`, or `None` when that is more than `limit` bytes. Buffers that became too small are wiped, too.
fn read(mut file: File, limit: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let expected = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut buf = Zeroizing::new(vec![0; expected.min(limit) + 1]);
    let mut len = 0;
    let until = Instant::now() + PATIENCE;
    loop {
        if len > limit {
            return Ok(None);
        }
        if len == buf.len() {
            let mut larger = Zeroizing::new(vec![0; (2 * len).min(limit + 1)]);
            larger[..len].copy_from_slice(&buf);
            buf = larger;
        }
        match file.read(&mut buf[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(&file, until)?,
            Err(error) => return Err(error),
        }
    }
    buf.truncate(len);
    Ok(Some(buf))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn refused(path: &Path) -> String {
        config(path).map(|_| ()).expect_err("refused").to_string()
    }

    #[test]
    fn a_pipe_is_read_to_its_end_as_from_a_process_substitution() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let text = "x".repeat(100_000);
        let written = text.clone();
        let writing = std::thread::spawn(move || writer.write_all(written.as_bytes()));
        assert!(config(Path::new(&path)).expect("whole")[..] == text, "more than a pipe holds");
        writing.join().expect("no panic").expect("written");
    }

    #[test]
    fn a_pipe_without_another_end_is_empty_and_one_that_goes_on_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        assert_eq!(&config(&path).expect("nothing")[..], "");
        let file = open(&path).expect("opened at once");
        let mut writer = OpenOptions::new().write(true).open(&path).expect("there is a reader");
        writer.write_all(b"half").expect("written");
        let begun = Instant::now();
        wait(&file, begun + PATIENCE).expect("there is something");
        let mut buf = [0; 8];
        assert_eq!((&file).read(&mut buf).expect("read"), 4);
        let late = wait(&file, begun + Duration::from_millis(20)).expect_err("nothing more").kind();
        assert_eq!(late, io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < PATIENCE);
    }

    #[test]
    fn devices_sockets_and_directories_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        for path in [Path::new("/dev/zero"), dir.path()] {
            assert!(refused(path).contains("neither a file nor a pipe"), "{}", path.display());
        }
        assert!(refused(&socket).contains("cannot be read"), "the system call refuses it");
    }
}
