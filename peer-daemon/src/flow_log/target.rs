//! Where lines go: a file, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Least time between two complaints, and between two tries to open a file.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes whole lines. After an error it goes on with the next ones, at the start of a line.
#[derive(Debug)]
pub(super) struct Target {
    /// `None`: standard output.
    path: Option<PathBuf>,
    /// `None`: it could not be opened.
    file: Option<Stream>,
    /// Only a part of the last line was taken.
    torn: bool,
    complained: Option<Instant>,
}

#[derive(Debug)]
enum Stream {
    File(File),
    Stdout(io::Stdout),
}

impl Target {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = (path != Path::new("-")).then(|| path.to_owned());
        let file = Some(open(path.as_deref())?);
        Ok(Self { path, file, torn: false, complained: None })
    }

    /// Opens the path anew.
    pub(super) fn reopen(&mut self) {
        match open(self.path.as_deref()) {
            Ok(file) => (self.file, self.torn) = (Some(file), false),
            // The old file, if there is one, is better than none.
            Err(error) => self.complain("open", &error),
        }
    }

    /// Writes lines, each ended. Returns how many of them were not taken whole.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        if lines.is_empty() {
            return 0;
        }
        if self.file.is_none() && self.complained.is_none_or(|at| at.elapsed() >= PATIENCE) {
            self.reopen();
        }
        let Some(file) = &mut self.file else { return count(lines) };
        let separator: &[u8] = if self.torn { b"\n" } else { b"" };
        let (taken, result) = file.write(separator).map_or_else(|error| (0, Err(error)), |()| file.take(lines));
        let whole = &lines[..taken];
        self.torn = if taken == 0 { self.torn } else { !whole.ends_with(b"\n") };
        if let Err(error) = result {
            self.complain("write", &error);
        }
        count(lines) - count(whole)
    }

    fn complain(&mut self, what: &str, error: &io::Error) {
        if self.complained.is_none_or(|at| at.elapsed() >= PATIENCE) {
            self.complained = Some(Instant::now());
            let path = self.path.as_deref().unwrap_or(Path::new("-")).display();
            tracing::error!(%path, %error, "cannot {what} the flow log: records are lost and counted");
        }
    }
}

impl Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.take(bytes).1
    }

    /// As much as can be written.
    fn take(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut taken = 0;
        while taken < bytes.len() {
            let written = match self {
                Self::File(file) => file.write(&bytes[taken..]),
                Self::Stdout(stdout) => stdout.write(&bytes[taken..]),
            };
            match written {
                Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (taken, Err(error)),
            }
        }
        let flushed = match self {
            Self::File(_) => Ok(()),
            Self::Stdout(stdout) => stdout.flush(),
        };
        (taken, flushed)
    }
}

/// To append, so that whoever truncates the file (`copytruncate`) finds no hole in it.
fn open(path: Option<&Path>) -> io::Result<Stream> {
    match path {
        Some(path) => OpenOptions::new().append(true).create(true).mode(0o640).open(path).map(Stream::File),
        None => Ok(Stream::Stdout(io::stdout())),
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_full_loses_lines_and_nothing_else() {
        let mut target = Target::open(Path::new("/dev/full")).expect("it opens");
        assert_eq!(target.write(b"one\ntwo\n"), 2);
        assert!(target.complained.is_some());
        let dir = tempfile::tempdir().expect("a directory");
        target.path = Some(dir.path().join("flows.json"));
        target.reopen();
        assert_eq!(target.write(b"three\n"), 0);
        assert_eq!(std::fs::read_to_string(dir.path().join("flows.json")).expect("the file"), "three\n");
    }

    #[test]
    fn after_a_torn_line_the_next_one_begins_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("flows.json");
        let mut target = Target::open(&path).expect("it opens");
        target.write(b"half a li");
        assert!(target.torn);
        assert_eq!(target.write(b"whole\n"), 0);
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "half a li\nwhole\n");
        // What is there already stays, for its owner only to change.
        drop(target);
        assert_eq!(Target::open(&path).expect("it opens").write(b"more\n"), 0);
        assert!(std::fs::read_to_string(&path).expect("the file").ends_with("whole\nmore\n"));
    }
}
