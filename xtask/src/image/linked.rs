//! What is linked into the daemon and its programs: crates, with their licences.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::workspace;

/// A name and a version.
pub(crate) type Id = (String, String);

/// One crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linked {
    /// As an SPDX expression.
    pub(crate) license: Option<String>,
    /// Of the crate file; `None`: it is ours.
    pub(crate) sha256: Option<String>,
    /// Who wrote it, as it says.
    authors: String,
    /// Where its sources are.
    folder: PathBuf,
    /// What it depends on itself.
    pub(crate) dependencies: BTreeSet<Id>,
}

/// All of them.
pub(crate) type Crates = BTreeMap<Id, Linked>;

/// The crates of the daemon for a target, and those of the eBPF programs in it.
pub(crate) fn crates(target: &str) -> Result<Crates> {
    let root = workspace::root();
    let mut all = of(&root.join("peer-daemon/Cargo.toml"), &root.join("Cargo.lock"), target)?;
    let ebpf = root.join("peer-ebpf");
    for (id, linked) in of(&ebpf.join("Cargo.toml"), &ebpf.join("Cargo.lock"), "bpfel-unknown-none")? {
        all.entry(id).or_insert(linked);
    }
    Ok(all)
}

/// The texts of all licences, each once, below the names of those who have it; first those who come without a text.
pub(crate) fn licences(crates: &Crates) -> Result<String> {
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut whole = String::new();
    for ((name, version), linked) in crates.iter().filter(|(_, linked)| linked.sha256.is_some()) {
        let found = licence_files(&linked.folder)?;
        if found.is_empty() {
            let license = linked.license.as_deref().unwrap_or("no licence named");
            let _ = writeln!(whole, "{name} {version}: {license}; {}", linked.authors);
        }
        for text in found {
            texts.entry(text).or_default().insert(format!("{name} {version}"));
        }
    }
    let mut sections: Vec<_> = texts.into_iter().map(|(text, names)| (names, text)).collect();
    sections.sort();
    for (names, text) in sections {
        let names = Vec::from_iter(names).join(", ");
        let _ = write!(whole, "\n\n{names}\n{}\n\n{}\n", "=".repeat(80), text.trim_end());
    }
    Ok(whole)
}

fn of(manifest: &Path, lock: &Path, target: &str) -> Result<Crates> {
    let mut tree = process::cargo();
    tree.args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "|{p}"]);
    tree.args(["--target", target, "--manifest-path"]).arg(manifest);
    let edges = parse_tree(&process::output(&mut tree)?)?;
    let mut metadata = process::cargo();
    metadata.args(["metadata", "--locked", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let metadata: Value = serde_json::from_str(&process::output(&mut metadata)?).context("cargo metadata")?;
    let sums = checksums(&fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?)?;
    let mut crates = Crates::new();
    for (id, dependencies) in edges {
        let package = metadata["packages"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|package| package["name"].as_str() == Some(&id.0) && package["version"].as_str() == Some(&id.1));
        let package = package.with_context(|| format!("cargo metadata knows no {} {}", id.0, id.1))?;
        let folder = package["manifest_path"].as_str().and_then(|path| Path::new(path).parent());
        let authors = package["authors"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let authors: Vec<_> = authors.collect();
        let linked = Linked {
            license: package["license"].as_str().map(expression),
            sha256: sums.get(&id).cloned(),
            authors: authors.join(", "),
            folder: folder.with_context(|| format!("{} has no manifest", id.0))?.to_owned(),
            dependencies,
        };
        crates.insert(id, linked);
    }
    Ok(crates)
}

/// Lines `DEPTH|NAME vVERSION …`; what a crate depends on stands below its first occurrence.
fn parse_tree(tree: &str) -> Result<BTreeMap<Id, BTreeSet<Id>>> {
    let mut edges: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    let mut above: Vec<Id> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let parsed = line.split_once('|').and_then(|(depth, rest)| {
            let mut words = rest.split(' ');
            let id = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
            Some((depth.parse::<usize>().ok()?, id))
        });
        let (depth, id) = parsed.with_context(|| format!("cargo tree says {line:?}"))?;
        ensure!(depth <= above.len(), "cargo tree skips a level at {line:?}");
        above.truncate(depth);
        if let Some(parent) = above.last() {
            edges.entry(parent.clone()).or_default().insert(id.clone());
        }
        edges.entry(id.clone()).or_default();
        above.push(id);
    }
    ensure!(!edges.is_empty(), "cargo tree says nothing");
    Ok(edges)
}

fn checksums(lock: &str) -> Result<BTreeMap<Id, String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock has no packages")?;
    let sums = packages.iter().filter_map(|package| {
        let field = |name: &str| package.get(name)?.as_str().map(str::to_owned);
        Some(((field("name")?, field("version")?), field("checksum")?))
    });
    Ok(sums.collect())
}

/// Crates of before 2020 write a slash.
fn expression(license: &str) -> String {
    license.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// Contents of the files of a crate that state terms, in the order of their names.
fn licence_files(folder: &Path) -> Result<Vec<String>> {
    const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if NAMES.iter().any(|it| name.starts_with(it)) && entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    let read = |file: PathBuf| {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    };
    files.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: &str) -> Id {
        (name.to_owned(), version.to_owned())
    }

    #[test]
    fn a_tree_is_read_with_its_edges() {
        let edges = parse_tree("0|a v1.0.0 (/a)\n1|b v2.0.0\n2|c v3.0.0\n1|c v3.0.0 (*)\n").expect("a tree");
        let expected = [
            (id("a", "1.0.0"), BTreeSet::from([id("b", "2.0.0"), id("c", "3.0.0")])),
            (id("b", "2.0.0"), BTreeSet::from([id("c", "3.0.0")])),
            (id("c", "3.0.0"), BTreeSet::new()),
        ];
        assert_eq!(edges, BTreeMap::from(expected));
        parse_tree("").expect_err("nothing");
        parse_tree("0|a\n").expect_err("no version");
    }

    #[test]
    fn old_licences_become_expressions() {
        assert_eq!(expression("MIT/Apache-2.0"), "MIT OR Apache-2.0");
        assert_eq!(expression("Apache-2.0 OR MIT"), "Apache-2.0 OR MIT");
    }

    #[test]
    fn what_is_linked_is_told_from_what_only_builds_or_tests() {
        let crates = crates("x86_64-unknown-linux-gnu").expect("cargo answers");
        let has = |name: &str| crates.keys().any(|(it, _)| it == name);
        for linked in ["peer-daemon", "peer-ebpf", "aya-ebpf", "ring", "rustls", "boringtun", "tokio"] {
            assert!(has(linked), "{linked}");
        }
        for other in ["proptest", "syn", "clap_derive", "prost-build", "peer-tests", "rcgen"] {
            assert!(!has(other), "{other}");
        }
        for ((name, _), linked) in &crates {
            let ours = name.starts_with("peer-");
            assert_eq!(linked.sha256.is_none(), ours, "{name}: a checksum, unless it is ours");
            assert!(linked.license.is_some(), "{name}");
        }
        let texts = licences(&crates).expect("readable");
        assert!(texts.contains("\nboringtun 0.7.1: BSD-3-Clause; "), "it brings no text");
        assert!(texts.contains("Permission is hereby granted"));
        for (name, version) in crates.keys().filter(|(name, _)| !name.starts_with("peer-")) {
            assert!(texts.contains(&format!("{name} {version}")), "{name}");
        }
    }
}
