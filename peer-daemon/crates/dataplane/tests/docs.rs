//! The documents under `docs/` that speak of the dataplane say what the sources say.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use peer_common::{Counter, DropReason};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

#[test]
fn the_tables_of_drops_and_counters_are_those_of_the_sources() {
    let path = root().join("docs/drop-reasons.md");
    let wanted = tables();
    if std::env::var_os("PEER_WRITE_DOCS").is_some() {
        fs::write(&path, &wanted).expect("write");
    }
    let found = fs::read_to_string(&path).expect("docs/drop-reasons.md");
    assert!(
        found == wanted,
        "docs/drop-reasons.md is not what the sources say: PEER_WRITE_DOCS=1 cargo test -p peer-dataplane --test docs"
    );
}

fn tables() -> String {
    let mut text = String::from(
        "# What the dataplane counts\n\n\
         Made from the sources by `PEER_WRITE_DOCS=1 cargo test -p peer-dataplane --test docs`; a test compares. Do not edit.\n\
         All metrics are in [metrics.md](metrics.md).\n\n\
         ## Drop reasons\n\n\
         Label `reason` of `peer_dropped_packets_total` and `peer_dropped_bytes_total`. An uplink's packets that are none of ours \
         are never dropped: they go on untouched.\n\n\
         | reason | meaning |\n|---|---|\n",
    );
    for reason in DropReason::ALL {
        writeln!(text, "| `{}` | {} |", reason.name(), reason.help().trim()).expect("a string");
    }
    text.push_str("\n## Counters\n\nLabel `path` of `peer_packets_total`.\n\n| path | meaning |\n|---|---|\n");
    for counter in Counter::ALL {
        writeln!(text, "| `{}` | {} |", counter.name(), counter.help().trim()).expect("a string");
    }
    text
}

#[test]
fn every_test_that_the_nat_document_names_exists() {
    let known = tests();
    let text = fs::read_to_string(root().join("docs/nat.md")).expect("docs/nat.md");
    let missing: Vec<_> = named(&text).into_iter().filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "docs/nat.md names tests that do not exist: {missing:#?}");
    assert!(named(&text).len() > 40, "the document names its tests");
}

#[test]
fn every_clause_of_the_conformance_list_names_a_test_or_says_that_it_deviates() {
    let text = fs::read_to_string(root().join("docs/nat.md")).expect("docs/nat.md");
    let list = text.split("## Conformance").nth(1).expect("a list");
    let rows: Vec<_> = list.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| clause")).collect();
    assert!(rows.len() > 40, "{} clauses", rows.len());
    for row in rows {
        let status = row.split('|').nth(3).map(str::trim).expect("a status");
        let ok = match status {
            "yes" | "partly" => !named(row).is_empty(),
            "deviates" | "does not apply" => true,
            other => panic!("status {other:?} of {row}"),
        };
        assert!(ok, "no test shows {row}");
    }
}

/// What stands as `module::test` between backticks.
fn named(text: &str) -> BTreeSet<String> {
    let is_name =
        |part: &str| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':');
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|part| part.contains("::") && is_name(part))
        .map(str::to_owned)
        .collect()
}

/// Every test function as `module::test`; the module is the file, or the folder of a `mod.rs` or `tests.rs`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["peer-daemon/crates/dataplane/src", "peer-daemon/crates/dataplane/tests", "tests/tests"] {
        collect(&root().join(folder), &mut found);
    }
    found
}

fn collect(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let stem = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
            let module = match stem(&path).as_str() {
                "mod" | "tests" => stem(folder),
                stem => stem.to_owned(),
            };
            let lines: Vec<_> = text.lines().map(str::trim).collect();
            for pair in lines.windows(2).filter(|pair| pair[0] == "#[test]") {
                let name = pair[1].strip_prefix("fn ").and_then(|rest| rest.split('(').next());
                found.extend(name.map(|name| format!("{module}::{name}")));
            }
        }
    }
}
