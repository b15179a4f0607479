//! What comes from Debian's packages: files as the packages have them, never as somebody has changed this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::tree::Tree;
use crate::libraries;
use crate::process::{self, command};

/// Mozilla's roots, as one file each.
const ROOTS: &str = "ca-certificates";
const ROOTS_FOLDER: &str = "/usr/share/ca-certificates/";
/// What of a C toolchain is linked into a static program.
const STATIC_LIBRARIES: [&str; 3] = ["libc.a", "libgcc.a", "libgcc_eh.a"];

/// A package that an image has something of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
}

/// The packages of an image, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packages(BTreeMap<String, Package>);

impl Packages {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Package> {
        self.0.values()
    }

    /// What the compiler links into a static program.
    pub(crate) fn add_static_libraries(&mut self, compiler: &str) -> Result<()> {
        for library in STATIC_LIBRARIES {
            let path = process::output(command(compiler).arg(format!("-print-file-name={library}")))?;
            let path = fs::canonicalize(path.trim()).with_context(|| format!("{compiler} finds no {library}"))?;
            self.add_owner(&path)?;
        }
        Ok(())
    }

    /// The root certificates as one PEM file.
    pub(crate) fn roots(&mut self) -> Result<Vec<u8>> {
        let listed = process::output(command("dpkg-query").args(["--listfiles", ROOTS]))?;
        let mut files: Vec<_> =
            listed.lines().filter(|file| file.starts_with(ROOTS_FOLDER) && file.ends_with(".crt")).collect();
        files.sort_unstable();
        ensure!(!files.is_empty(), "the package {ROOTS} has no certificate in {ROOTS_FOLDER}");
        let mut roots = Vec::new();
        for file in files {
            roots.extend(fs::read(file).with_context(|| format!("cannot read {file}"))?);
            if !roots.ends_with(b"\n") {
                roots.push(b'\n');
            }
        }
        self.add(ROOTS)?;
        Ok(roots)
    }

    /// A program and the libraries that it loads, at the paths that its loader knows.
    pub(crate) fn program(&mut self, tree: &mut Tree, at: &str, program: &Path) -> Result<()> {
        tree.program(at, fs::read(program).with_context(|| format!("cannot read {}", program.display()))?)?;
        self.add_owner(program)?;
        for library in libraries::of(program)? {
            let at = merged(&library);
            let at = at.strip_prefix("/")?.to_str().context("a library's path is text")?.to_owned();
            if !tree.has(&at) {
                let content = fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
                tree.program(&at, content)?;
                self.add_owner(&fs::canonicalize(&library)?)?;
            }
        }
        Ok(())
    }

    /// The terms under which the packages are given on.
    pub(crate) fn add_terms(&self, tree: &mut Tree) -> Result<()> {
        for Package { name, .. } in self.iter() {
            let path = format!("usr/share/doc/{name}/copyright");
            let terms = fs::read(Path::new("/").join(&path)).with_context(|| format!("cannot read /{path}"))?;
            tree.file(&path, terms)?;
        }
        Ok(())
    }

    /// The package that a file belongs to.
    fn add_owner(&mut self, file: &Path) -> Result<()> {
        let names = [file.to_owned(), unmerged(file)];
        for name in names {
            let owner = process::output(command("dpkg-query").arg("--search").arg(&name));
            let owner = owner.ok().and_then(|said| Some(said.split_once(": ")?.0.split(',').next()?.trim().to_owned()));
            if let Some(owner) = owner {
                return self.add(&owner);
            }
        }
        bail!("{} belongs to no package", file.display())
    }

    fn add(&mut self, name: &str) -> Result<()> {
        let format = "${Package}\t${Version}\t${Architecture}\n";
        let said = process::output(command("dpkg-query").args(["--show", "--showformat", format, name]))?;
        let mut fields = said.lines().next().unwrap_or_default().split('\t').map(str::to_owned);
        let mut field = || fields.next().with_context(|| format!("dpkg-query says of {name}: {said}"));
        let package = Package { name: field()?, version: field()?, architecture: field()? };
        self.0.insert(package.name.clone(), package);
        Ok(())
    }
}

/// Where a file is since `/lib` and `/bin` are links into `/usr`.
fn merged(path: &Path) -> PathBuf {
    if path.starts_with("/usr") {
        path.to_owned()
    } else {
        Path::new("/usr").join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Where a package of before that has it.
fn unmerged(path: &Path) -> PathBuf {
    path.strip_prefix("/usr").map_or_else(|_| path.to_owned(), |path| Path::new("/").join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_before_and_after_the_merge_are_told() {
        for (old, new) in [("/lib/x.so", "/usr/lib/x.so"), ("/lib64/ld.so", "/usr/lib64/ld.so")] {
            assert_eq!(merged(Path::new(old)), Path::new(new));
            assert_eq!(merged(Path::new(new)), Path::new(new));
            assert_eq!(unmerged(Path::new(new)), Path::new(old));
        }
    }
}
