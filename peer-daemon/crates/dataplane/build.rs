//! Embeds the eBPF object, if it was built from the sources as they are now.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let object = ebpf_artifact::object(&workspace);
    println!("cargo::rerun-if-env-changed={}", ebpf_artifact::TEST_ABI);
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed={}", ebpf_artifact::stamp(&workspace).display());
    for source in ebpf_artifact::sources(&workspace).unwrap_or_default() {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    if !ebpf_artifact::is_fresh(&workspace) {
        // The line alone fails the build; an exit code would add the whole output of this script to it.
        println!("cargo::error=the eBPF object is missing or older than its sources: {}", ebpf_artifact::FIX);
        return ExitCode::SUCCESS;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("peer-ebpf.o");
    if let Err(error) = fs::copy(&object, &out) {
        println!("cargo::error=cannot copy {}: {error}", object.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
