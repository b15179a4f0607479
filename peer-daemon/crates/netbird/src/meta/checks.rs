//! Posture checks: is there such a file, does such a program run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::proto::management::File;

/// Answers for each path, in the order asked.
pub(super) fn answer(root: &Path, paths: &[String]) -> Vec<File> {
    if paths.is_empty() {
        return Vec::new();
    }
    let running = running(root);
    let answer = |path: &String| File {
        path: path.clone(),
        // What cannot be looked at for want of permission may well exist; the official client says so too.
        exist: below(root, path).try_exists().unwrap_or(true),
        process_is_running: running.contains(Path::new(path)),
    };
    paths.iter().map(answer).collect()
}

/// Executables of all processes that we may look at.
fn running(root: &Path) -> BTreeSet<PathBuf> {
    let Ok(processes) = fs::read_dir(root.join("proc")) else { return BTreeSet::new() };
    let number = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let processes = processes.flatten().filter(|entry| number(&entry.file_name()));
    processes.filter_map(|entry| fs::read_link(entry.path().join("exe")).ok()).collect()
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
