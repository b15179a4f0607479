//! A cpio archive of the kind that the kernel unpacks at boot (`newc`: Documentation/driver-api/early-userspace).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
const TRAILER: &str = "TRAILER!!!";

/// The archive, while it is written.
pub(crate) struct Archive<W: Write = BufWriter<File>> {
    out: W,
    written: usize,
    inode: u32,
    there: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0, there: BTreeSet::new() }
    }

    /// Adds an executable file and the folders above it; one that is there already stays.
    pub(crate) fn file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.entry(path, PROGRAM, (0, 0), content)
    }

    /// Whether there is something at this path.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.there.contains(path)
    }

    pub(crate) fn folder(&mut self, path: &Path) -> io::Result<()> {
        self.entry(path, DIRECTORY, (0, 0), &[])
    }

    pub(crate) fn character_device(&mut self, path: &Path, number: (u32, u32)) -> io::Result<()> {
        self.entry(path, CHARACTER_DEVICE, number, &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.header(0, TRAILER, (0, 0), 0)?;
        self.pad()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        if !self.there.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| parent.parent().is_some()) {
            self.folder(parent)?;
        }
        let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        self.header(mode, &name, device, length)?;
        self.pad()?;
        self.write(content)?;
        self.pad()
    }

    /// Thirteen numbers of eight hexadecimal digits, then the name with its end.
    fn header(&mut self, mode: u32, name: &str, device: (u32, u32), length: u32) -> io::Result<()> {
        self.inode += 1;
        let (owner, group, links, time, checksum) = (0, 0, 1, 0, 0);
        let name_length = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        let (major, minor) = (0, 0);
        let mut text = String::from("070701");
        for number in [
            self.inode,
            mode,
            owner,
            group,
            links,
            time,
            length,
            major,
            minor,
            device.0,
            device.1,
            name_length,
            checksum,
        ] {
            text.push_str(&format!("{number:08x}"));
        }
        text.push_str(name);
        text.push('\0');
        self.write(text.as_bytes())
    }

    /// Headers and contents begin at multiples of four.
    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.write(&[0; 3][..missing])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_all_is_aligned() {
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/a/b/init"), b"12345").expect("a file");
        archive.file(Path::new("/a/b/init"), b"another").expect("stays");
        archive.character_device(Path::new("/a/console"), (5, 1)).expect("a device");
        let bytes = archive.finish().expect("the end");
        assert_eq!(bytes.len() % 4, 0);
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let field = |index: usize| {
                let start = at + 6 + 8 * index;
                usize::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).expect("text"), 16).expect("hex")
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, length, name_length) = (field(1), field(6), field(11));
            let name = String::from_utf8_lossy(&bytes[at + 110..at + 109 + name_length]).into_owned();
            let content = (at + 110 + name_length).next_multiple_of(4);
            found.push((name, mode as u32, (field(9), field(10)), bytes[content..content + length].to_vec()));
            at = (content + length).next_multiple_of(4);
        }
        let entry = |name: &str, mode, device, content: &[u8]| (name.to_owned(), mode, device, content.to_vec());
        let expected = [
            entry("a", DIRECTORY, (0, 0), b""),
            entry("a/b", DIRECTORY, (0, 0), b""),
            entry("a/b/init", PROGRAM, (0, 0), b"12345"),
            entry("a/console", CHARACTER_DEVICE, (5, 1), b""),
            entry(TRAILER, 0, (0, 0), b""),
        ];
        assert_eq!(found, expected);
    }
}
