//! Where the eBPF object lies, and whether it was built from the sources as they are now.
//!
//! `cargo xtask build-ebpf` writes the object and, beside it, the fingerprint of the sources; the build script of
//! `peer-dataplane` embeds the object only when the fingerprint still holds. No dependency, because both build with it.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a user does about a missing or stale object.
pub const FIX: &str = "run `cargo xtask build-ebpf` first";

/// When set, daemon and programs are compiled with another version of their layouts: for tests of upgrade and rollback,
/// which need two builds. See `peer_common::layout::ABI`.
pub const TEST_ABI: &str = "PEER_TEST_ABI";

/// The object, `target/ebpf/peer-ebpf.o` of the workspace whatever `CARGO_TARGET_DIR` says; with [`TEST_ABI`] one beside
/// it.
#[must_use]
pub fn object(workspace: &Path) -> PathBuf {
    file(workspace, "o")
}

/// The fingerprint of the sources that the object was built from.
#[must_use]
pub fn stamp(workspace: &Path) -> PathBuf {
    file(workspace, "stamp")
}

/// All files the object is made of, sorted.
///
/// # Errors
/// When a source folder cannot be read.
pub fn sources(workspace: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![workspace.join("peer-ebpf/Cargo.toml"), workspace.join("peer-ebpf/Cargo.lock")];
    files.push(workspace.join("peer-common/Cargo.toml"));
    for folder in ["peer-ebpf/src", "peer-common/src"] {
        walk(&workspace.join(folder), &mut files)?;
    }
    files.sort();
    Ok(files)
}

/// Fingerprint of the sources: FNV-1a over paths and contents. It guards against staleness, not against malice.
///
/// # Errors
/// When a source cannot be read.
pub fn fingerprint(workspace: &Path) -> io::Result<String> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for file in sources(workspace)? {
        let name = file.strip_prefix(workspace).unwrap_or(&file);
        eat(name.to_string_lossy().as_bytes());
        eat(&fs::read(&file)?);
    }
    Ok(format!("{hash:016x}"))
}

/// Whether the object is there and fresh.
#[must_use]
pub fn is_fresh(workspace: &Path) -> bool {
    let stamped = fs::read_to_string(stamp(workspace)).unwrap_or_default();
    object(workspace).exists() && fingerprint(workspace).is_ok_and(|now| now == stamped.trim())
}

fn file(workspace: &Path, extension: &str) -> PathBuf {
    let abi = env::var(TEST_ABI).map(|abi| format!("-abi{abi}")).unwrap_or_default();
    workspace.join(format!("target/ebpf/peer-ebpf{abi}.{extension}"))
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
