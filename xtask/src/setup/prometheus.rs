//! Prometheus and promtool, for the tests of monitoring. Debian's package is unpacked here, never installed: installing
//! it would start a service on the machine.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::packages::{System, apt_get, codename};
use super::private_apt::unpack;
use crate::process::{self, command};
use crate::workspace;

/// Both programs.
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// Finds or fetches them.
pub(crate) fn ensure(system: &System) -> Result<()> {
    if folder().join("VERSION").exists() || PROGRAMS.iter().all(|program| process::find(program).is_some()) {
        return Ok(());
    }
    if *system != System::Debian {
        bail!("no prometheus and promtool on PATH: install Prometheus with your package manager");
    }
    let new = folder().with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot clear {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    let version = match unpack(&mut apt_get(), "prometheus", &new) {
        Ok(version) => version,
        // The lists may be old, or not there yet; only root may fetch them.
        Err(_) if process::is_root() => {
            process::output(apt_get().arg("update"))?;
            unpack(&mut apt_get(), "prometheus", &new)?
        }
        Err(error) => return Err(error),
    };
    for program in PROGRAMS {
        process::output(command(new.join("usr/bin").join(program)).arg("--version")).context("it does not run here")?;
    }
    fs::write(new.join("VERSION"), format!("{version}\n")).context("cannot write the version")?;
    if folder().exists() {
        fs::remove_dir_all(folder()).context("cannot remove the old prometheus")?;
    }
    fs::rename(&new, folder()).context("cannot put prometheus in place")?;
    eprintln!("setup: prometheus {version} (Debian {})", codename());
    Ok(())
}

fn folder() -> PathBuf {
    workspace::tools().join("prometheus")
}
