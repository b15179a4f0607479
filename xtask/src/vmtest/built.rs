//! The binaries that run in the machines, as cargo has built them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::suites::{Binary, SUITES};
use crate::process;
use crate::workspace;

/// All of them.
pub(crate) struct Built {
    pub(crate) init: PathBuf,
    pub(crate) daemon: PathBuf,
    pub(crate) wireguard_go: PathBuf,
    /// Messages of cargo.
    artifacts: Vec<Value>,
}

impl Built {
    /// Builds the test binaries as `cargo test` does.
    pub(crate) fn build(daemon: PathBuf, wireguard_go: PathBuf) -> Result<Self> {
        let mut cargo = process::cargo();
        cargo.args(["test", "--quiet", "--locked", "--workspace", "--no-run"]);
        let messages = process::output(cargo.arg("--message-format=json-render-diagnostics"))?;
        let artifacts: Vec<_> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let init = executable(&artifacts, "tests", "vm-init", "bin").context("cargo built no vm-init")?;
        Ok(Self { init, daemon, wireguard_go, artifacts })
    }

    /// The file of a test binary.
    pub(crate) fn test(&self, binary: &Binary) -> Result<PathBuf> {
        let Binary { package, target, unit } = binary;
        let kind = if *unit { "lib" } else { "test" };
        executable(&self.artifacts, package, target, kind)
            .with_context(|| format!("cargo built no tests {target} of {package}"))
    }

    /// All but `init`, each once.
    pub(crate) fn programs(&self) -> Result<Vec<PathBuf>> {
        let tests = SUITES.iter().map(|suite| self.test(suite.binary));
        let mut programs = tests.collect::<Result<Vec<_>>>()?;
        programs.extend([self.daemon.clone(), self.wireguard_go.clone()]);
        programs.sort();
        programs.dedup();
        Ok(programs)
    }
}

/// The last file of that package, target and kind that cargo reports.
fn executable(artifacts: &[Value], package: &str, target: &str, kind: &str) -> Option<PathBuf> {
    let manifest = workspace::root().join(package).join("Cargo.toml");
    let is_it = |artifact: &&Value| {
        artifact["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest)
            && artifact["target"]["name"] == target
            && artifact["target"]["kind"][0] == kind
            && artifact["executable"].is_string()
    };
    artifacts.iter().rfind(is_it)?["executable"].as_str().map(PathBuf::from)
}
