//! The files of a layer, and the layer as tar. The same files give the same bytes: sorted by name, dated 1970, owned by
//! who is said and not by who built it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tar::{Builder, EntryType, Header};

/// Numeric: an image need not know names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

impl Owner {
    pub(crate) const ROOT: Self = Self { user: 0, group: 0 };
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Folder { mode: u32, owner: Owner },
    File { mode: u32, content: Vec<u8> },
    Link { to: PathBuf },
}

/// Files by their path below `/`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    /// A folder with a mode and an owner of its own.
    pub(crate) fn folder(&mut self, at: &str, mode: u32, owner: Owner) -> Result<()> {
        self.add(at, Entry::Folder { mode, owner })
    }

    /// A file that all may read.
    pub(crate) fn file(&mut self, at: &str, content: impl Into<Vec<u8>>) -> Result<()> {
        self.add(at, Entry::File { mode: 0o644, content: content.into() })
    }

    /// A file that all may run.
    pub(crate) fn program(&mut self, at: &str, content: impl Into<Vec<u8>>) -> Result<()> {
        self.add(at, Entry::File { mode: 0o755, content: content.into() })
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, at: &str, to: &str) -> Result<()> {
        self.add(at, Entry::Link { to: to.into() })
    }

    /// Whether there is something of that path.
    pub(crate) fn has(&self, at: &str) -> bool {
        self.entries.contains_key(Path::new(at))
    }

    /// The layer.
    pub(crate) fn to_tar(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            append(&mut tar, path, entry).with_context(|| format!("cannot pack {}", path.display()))?;
        }
        tar.into_inner().context("cannot end the layer")
    }

    /// Puts it there, below folders that all may enter.
    fn add(&mut self, at: &str, entry: Entry) -> Result<()> {
        let path = PathBuf::from(at);
        ensure!(path.is_relative(), "a path below the root, not {at}");
        let parents: Vec<_> = path.ancestors().skip(1).filter(|it| *it != Path::new("")).map(Path::to_owned).collect();
        for parent in parents {
            let there = self.entries.entry(parent).or_insert(Entry::Folder { mode: 0o755, owner: Owner::ROOT });
            ensure!(matches!(there, Entry::Folder { .. }), "{at} would be below what is no folder");
        }
        ensure!(self.entries.insert(path, entry).is_none(), "{at} twice");
        Ok(())
    }
}

fn append(tar: &mut Builder<Vec<u8>>, path: &Path, entry: &Entry) -> io::Result<()> {
    let mut header = Header::new_gnu();
    let (kind, mode, owner) = match entry {
        Entry::Folder { mode, owner } => (EntryType::Directory, *mode, *owner),
        Entry::File { mode, .. } => (EntryType::Regular, *mode, Owner::ROOT),
        Entry::Link { .. } => (EntryType::Symlink, 0o777, Owner::ROOT),
    };
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.user.into());
    header.set_gid(owner.group.into());
    header.set_mtime(0);
    header.set_size(0);
    match entry {
        Entry::Folder { .. } => tar.append_data(&mut header, path, io::empty()),
        Entry::File { content, .. } => {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_slice())
        }
        Entry::Link { to } => tar.append_link(&mut header, path, to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let mut one = Tree::default();
        one.file("etc/passwd", "x").expect("new");
        one.program("bin/sh", "y").expect("new");
        let mut other = Tree::default();
        other.program("bin/sh", "y").expect("new");
        other.file("etc/passwd", "x").expect("new");
        assert_eq!(one.to_tar().expect("tar"), other.to_tar().expect("tar"));
    }

    #[test]
    fn a_layer_reads_as_it_was_written() {
        let mut tree = Tree::default();
        let long = format!("usr/share/doc/{}/copyright", "long".repeat(40));
        tree.folder("var/lib/state", 0o770, Owner { user: 65532, group: 0 }).expect("new");
        tree.program("bin/tool", "1234").expect("new");
        tree.link("bin/alias", "tool").expect("new");
        tree.file(&long, "text").expect("new");
        let bytes = tree.to_tar().expect("tar");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().expect("entries") {
            let entry = entry.expect("entry");
            let header = entry.header();
            assert_eq!(header.mtime().expect("time"), 0);
            let owner = (header.uid().expect("uid"), header.gid().expect("gid"));
            found.push((entry.path().expect("path").display().to_string(), header.mode().expect("mode"), owner));
        }
        for expected in [
            ("bin/alias", 0o777, (0, 0)),
            ("bin/tool", 0o755, (0, 0)),
            ("var/lib", 0o755, (0, 0)),
            ("var/lib/state", 0o770, (65532, 0)),
            (long.as_str(), 0o644, (0, 0)),
        ] {
            let expected = (expected.0.to_owned(), expected.1, expected.2);
            assert!(found.contains(&expected), "{expected:?} in {found:?}");
        }
    }

    #[test]
    fn nothing_is_packed_twice_or_below_a_file() {
        let mut tree = Tree::default();
        tree.file("etc/x", "").expect("new");
        tree.file("etc/x", "").expect_err("twice");
        tree.file("etc/x/y", "").expect_err("below a file");
        tree.file("/etc/z", "").expect_err("absolute");
    }
}
