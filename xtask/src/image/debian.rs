//! What comes from Debian's packages: files as the packages have them, never as somebody has changed this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

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

/// What an image takes from packages; [`Self::packages`] says from which.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    files: BTreeSet<PathBuf>,
    names: BTreeSet<String>,
}

impl Taken {
    /// What the compiler links into a static program.
    pub(crate) fn add_static_libraries(&mut self, compiler: &str) -> Result<()> {
        for library in STATIC_LIBRARIES {
            let path = process::output(command(compiler).arg(format!("-print-file-name={library}")))?;
            let path = fs::canonicalize(path.trim()).with_context(|| format!("{compiler} finds no {library}"))?;
            self.files.insert(path);
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
        self.names.insert(ROOTS.to_owned());
        Ok(roots)
    }

    /// A program and the libraries that it loads, at the paths that its loader knows.
    pub(crate) fn program(&mut self, tree: &mut Tree, at: &str, program: &Path) -> Result<()> {
        tree.program(at, fs::read(program).with_context(|| format!("cannot read {}", program.display()))?)?;
        self.files.insert(program.to_owned());
        for library in libraries::of(program)? {
            let at = merged(&library);
            let at = at.strip_prefix("/")?.to_str().context("a library's path is text")?.to_owned();
            if !tree.has(&at) {
                let content = fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
                tree.program(&at, content)?;
                self.files.insert(fs::canonicalize(&library)?);
            }
        }
        Ok(())
    }

    /// The packages, each once, in the order of their names.
    pub(crate) fn packages(&self) -> Result<Vec<Package>> {
        let mut search = command("dpkg-query");
        search.arg("--search").args(self.files.iter().flat_map(|file| [file.clone(), unmerged(file)]));
        // Fails when it does not know one, and still tells of the others: a file has one of its two names there.
        let said = search.output().context("cannot start dpkg-query")?.stdout;
        let owners = owners(&String::from_utf8_lossy(&said));
        let mut names = self.names.clone();
        for file in &self.files {
            let owner = owners.get(file).or_else(|| owners.get(&unmerged(file)));
            names.insert(owner.with_context(|| format!("{} belongs to no package", file.display()))?.clone());
        }
        let format = "${Package}\t${Version}\t${Architecture}\n";
        let said = process::output(command("dpkg-query").args(["--show", "--showformat", format]).args(names))?;
        let packages = said.lines().map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            let mut field = || fields.next().with_context(|| format!("dpkg-query says {line:?}"));
            Ok(Package { name: field()?, version: field()?, architecture: field()? })
        });
        Ok(packages.collect::<Result<BTreeSet<_>>>()?.into_iter().collect())
    }
}

/// The terms under which packages are given on.
pub(crate) fn add_terms(packages: &[Package], tree: &mut Tree) -> Result<()> {
    for Package { name, .. } in packages {
        let path = format!("usr/share/doc/{name}/copyright");
        let terms = fs::read(Path::new("/").join(&path)).with_context(|| format!("cannot read /{path}"))?;
        tree.file(&path, terms)?;
    }
    Ok(())
}

/// Lines `PACKAGE, PACKAGE…: FILE`: the first package of each file.
fn owners(said: &str) -> BTreeMap<PathBuf, String> {
    let owner = |line: &str| {
        let (packages, file) = line.split_once(": ")?;
        Some((PathBuf::from(file), packages.split(',').next()?.trim().to_owned()))
    };
    said.lines().filter_map(owner).collect()
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
    fn owners_are_read() {
        let said = "libc6-dev:amd64: /usr/lib/libc.a\na, b: /usr/bin/x\nnonsense\n";
        let expected = [("/usr/bin/x", "a"), ("/usr/lib/libc.a", "libc6-dev:amd64")];
        assert_eq!(owners(said), expected.map(|(file, owner)| (PathBuf::from(file), owner.to_owned())).into());
    }

    #[test]
    fn what_is_taken_names_its_packages() {
        let mut taken = Taken::default();
        assert!(taken.roots().expect("roots").starts_with(b"-----BEGIN CERTIFICATE-----"));
        taken.add_static_libraries("cc").expect("libraries");
        let names: Vec<_> = taken.packages().expect("packages").into_iter().map(|package| package.name).collect();
        assert_eq!((names.len(), &*names[0], &*names[1]), (3, "ca-certificates", "libc6-dev"), "{names:?}");
        taken.files.insert("/proc/version".into());
        assert!(taken.packages().expect_err("no package's").to_string().contains("/proc/version"));
    }

    #[test]
    fn paths_before_and_after_the_merge_are_told() {
        for (old, new) in [("/lib/x.so", "/usr/lib/x.so"), ("/lib64/ld.so", "/usr/lib64/ld.so")] {
            assert_eq!(merged(Path::new(old)), Path::new(new));
            assert_eq!(merged(Path::new(new)), Path::new(new));
            assert_eq!(unmerged(Path::new(new)), Path::new(old));
        }
    }
}
