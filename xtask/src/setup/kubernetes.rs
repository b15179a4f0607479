//! What renders the manifests of `deploy/` and validates them: `kubectl kustomize`, and the schemas of Kubernetes.
//!
//! No cluster is asked. Debian's own release has a kubectl that is years older than the fields of today's
//! kustomizations, so a newer release's package is unpacked here; the schemas come with a package of PyPI, into an
//! environment of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::packages::System;
use super::private_apt::{self, PrivateApt};
use crate::process::{self, command};
use crate::workspace;

/// The release of Debian whose kubectl is taken where PATH has none.
const SUITE: &str = "trixie";
/// Kustomize as of kubectl 1.27 (5.0) knows every field that the manifests use.
const OLDEST_MINOR: u32 = 27;
/// Which schemas: the package's version is that of the newest Kubernetes it knows.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// All that it needs, so that the same is installed on every machine.
const NEEDED: [&str; 9] = [
    "attrs==26.1.0",
    "importlib_resources==7.1.0",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "packaging==26.4",
    "PyYAML==6.0.4",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "typing_extensions==4.16.0",
];

/// Finds or fetches both. Lies where the tests look: `target/tools/kubectl` and `target/tools/kubernetes-validate`.
pub(crate) fn ensure(system: &System) -> Result<()> {
    kubectl(system)?;
    validator(system)
}

fn kubectl(system: &System) -> Result<()> {
    let folder = workspace::tools().join("kubectl");
    let binary = folder.join("kubectl");
    if binary.exists() {
        return Ok(());
    }
    let new = fresh(&folder.with_extension("new"))?;
    let origin = match process::find("kubectl").filter(|found| minor(found).is_ok_and(|it| it >= OLDEST_MINOR)) {
        Some(found) => {
            std::os::unix::fs::symlink(&found, new.join("kubectl")).context("cannot link kubectl")?;
            found.display().to_string()
        }
        None if *system == System::Debian => {
            let apt = PrivateApt::of(SUITE)?;
            let version = private_apt::unpack(&mut apt.get(), "kubectl", &new)?;
            apt.remove()?;
            fs::rename(new.join("usr/bin/kubectl"), new.join("kubectl")).context("the package has no kubectl")?;
            fs::remove_dir_all(new.join("usr")).context("cannot clear the rest of the package")?;
            format!("{version} (Debian {SUITE})")
        }
        None => bail!("no kubectl from 1.{OLDEST_MINOR} on is on PATH: install one, it renders deploy/ for the tests"),
    };
    minor(&new.join("kubectl")).context("kubectl does not run here")?;
    fs::rename(&new, &folder).context("cannot put kubectl in place")?;
    eprintln!("setup: kubectl {origin}");
    Ok(())
}

/// 32 of v1.32.3.
fn minor(kubectl: &Path) -> Result<u32> {
    let said = process::output(command(kubectl).args(["version", "--client", "--output", "json"]))?;
    parse_minor(&said).with_context(|| format!("{} names no version: {said}", kubectl.display()))
}

fn parse_minor(json: &str) -> Option<u32> {
    let version = json.split("\"gitVersion\"").nth(1)?.split('"').nth(1)?;
    let minor = version.strip_prefix("v1.")?;
    minor.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn validator(system: &System) -> Result<()> {
    let folder = workspace::tools().join("kubernetes-validate");
    let marker = folder.join("VERSION");
    if fs::read_to_string(&marker).is_ok_and(|it| it.trim() == VALIDATOR) {
        return Ok(());
    }
    // Scripts of such an environment name its folder, so it cannot be made elsewhere and moved: the marker comes last.
    fresh(&folder)?;
    let python = python(system)?;
    process::output(command(&python).args(["-m", "venv"]).arg(&folder))?;
    let mut pip = command(folder.join("bin/pip"));
    pip.args(["--disable-pip-version-check", "--no-cache-dir", "--quiet"]);
    pip.args(["install", "--no-deps", "--only-binary", ":all:", VALIDATOR]).args(NEEDED);
    process::output(&mut pip)?;
    let said = process::output(command(folder.join("bin/kubernetes-validate")).arg("--version"))?;
    ensure!(!said.trim().is_empty(), "kubernetes-validate was installed and says nothing");
    fs::write(&marker, format!("{VALIDATOR}\n")).context("cannot write the version")?;
    eprintln!("setup: {VALIDATOR}");
    Ok(())
}

/// A Python that can make environments: on Debian that is a package of its own.
fn python(system: &System) -> Result<PathBuf> {
    if *system == System::Debian {
        let missing = system.absent(&["python3-venv"]);
        if !missing.is_empty() {
            system.install(&missing)?;
        }
        return Ok(PathBuf::from("/usr/bin/python3"));
    }
    process::find("python3").context("no python3 on PATH: install it with its venv module")
}

/// The folder, empty.
fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse_minor;

    #[test]
    fn the_version_is_read_from_what_kubectl_says() {
        let said = r#"{"clientVersion": {"major": "1", "minor": "32+", "gitVersion": "v1.32.4-dispatcher"}}"#;
        assert_eq!(parse_minor(said), Some(32));
        assert_eq!(parse_minor(r#"{"gitVersion": "v1.20.2"}"#), Some(20));
        assert_eq!(parse_minor("{}"), None);
    }
}
