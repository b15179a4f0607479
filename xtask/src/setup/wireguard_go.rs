//! wireguard-go: the independent client of the demo, and what `--compare` measures against.
//!
//! The release's own package may be years old and several times slower than today's, so Debian's `sid` is asked first:
//! its package is unpacked here, never installed, through an apt whose sources and state are ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::packages::{System, apt_get, codename};
use super::private_apt::{self, PrivateApt};
use crate::process::{self, command};
use crate::workspace;

/// The binary, and where which version came from.
#[derive(Clone, Debug)]
pub(crate) struct WireguardGo {
    pub(crate) binary: PathBuf,
    pub(crate) version: String,
}

/// Finds or fetches it.
pub(crate) fn ensure(system: &System) -> Result<WireguardGo> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    if *system == System::Debian {
        if let Err(error) = from_sid() {
            eprintln!("setup: wireguard-go of sid is not to be had ({error:#}); taking this release's");
            if process::is_root() {
                process::output(apt_get().arg("update"))?;
            }
            unpack(&mut apt_get(), &format!("Debian {}", codename()))?;
        }
    } else {
        from_path()?;
    }
    let found = installed().context("wireguard-go was fetched but is not there")?;
    eprintln!("setup: wireguard-go {}", found.version);
    Ok(found)
}

fn folder() -> PathBuf {
    workspace::tools().join("wireguard-go")
}

fn binary(folder: &Path) -> PathBuf {
    folder.join("usr/bin/wireguard-go")
}

fn installed() -> Option<WireguardGo> {
    let version = fs::read_to_string(folder().join("VERSION")).ok()?.trim().to_owned();
    let binary = binary(&folder());
    binary.exists().then_some(WireguardGo { binary, version })
}

/// Through an apt of our own.
fn from_sid() -> Result<()> {
    let apt = PrivateApt::of("sid")?;
    unpack(&mut apt.get(), "Debian sid")?;
    apt.remove()
}

/// Downloads and unpacks the package that this apt knows; accepted only if it runs here.
fn unpack(apt: &mut Command, origin: &str) -> Result<()> {
    let new = fresh_folder()?;
    let version = private_apt::unpack(apt, "wireguard-go", &new)?;
    publish(&new, &format!("{version} ({origin})"))
}

/// Not Debian: the one on PATH.
fn from_path() -> Result<()> {
    let Some(found) = process::find("wireguard-go") else {
        bail!(
            "no wireguard-go on PATH: install it with your package manager, or `go install golang.zx2c4.com/wireguard@latest`"
        );
    };
    let new = fresh_folder()?;
    let target = binary(&new);
    fs::create_dir_all(new.join("usr/bin")).context("cannot make the folder of wireguard-go")?;
    fs::copy(&found, &target).with_context(|| format!("cannot copy {}", found.display()))?;
    let said = process::output(command(&target).arg("--version"))?;
    let version = said.split_whitespace().nth(1).unwrap_or("of unknown version").to_owned();
    publish(&new, &format!("{version} ({})", found.display()))
}

fn fresh_folder() -> Result<PathBuf> {
    let new = folder().with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot clear {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    Ok(new)
}

/// Puts the folder in place once its binary has run.
fn publish(new: &Path, version: &str) -> Result<()> {
    process::output(command(binary(new)).arg("--version")).context("the binary does not run here")?;
    fs::write(new.join("VERSION"), format!("{version}\n")).context("cannot write the version")?;
    if folder().exists() {
        fs::remove_dir_all(folder()).context("cannot remove the old wireguard-go")?;
    }
    fs::rename(new, folder()).context("cannot put wireguard-go in place")
}
