//! What virtual machines are made of: QEMU, and kernels of other releases of Debian, unpacked and never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::packages::System;
use super::private_apt::{self, PrivateApt};
use crate::process::{self, command};
use crate::workspace;

const QEMU: &str = "qemu-system-x86_64";
/// Programs and Debian's packages of them.
const TOOLS: [(&str, &str); 2] = [(QEMU, "qemu-system-x86"), ("xz", "xz-utils")];
/// A package without content that stands for the release's kernel, in the flavour of virtual machines.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// Kernels that tests run on, and the suite of Debian that has each.
pub(crate) const KERNELS: [Release; 2] = [
    Release { version: "6.1", suite: "bookworm", has_tcx: false, member: "wireguard-go" },
    Release { version: "6.12", suite: "trixie", has_tcx: true, member: "kernel" },
];

/// A kernel and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Release {
    pub(crate) version: &'static str,
    suite: &'static str,
    pub(crate) has_tcx: bool,
    /// What makes the tunnels of members there: `wireguard-go`, or `kernel`.
    pub(crate) member: &'static str,
}

/// A kernel, unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) release: Release,
    /// The version of its package.
    pub(crate) package: String,
    /// What a boot loader loads.
    pub(crate) image: PathBuf,
    /// The folder of its modules.
    pub(crate) modules: PathBuf,
}

/// QEMU and kernels.
#[derive(Clone, Debug)]
pub(crate) struct Machines {
    pub(crate) qemu: PathBuf,
    pub(crate) kernels: Vec<Kernel>,
}

/// Why there can be no virtual machines here, if so: the only kernels known are Debian's, for this architecture.
pub(crate) fn impossible() -> Option<&'static str> {
    if !cfg!(target_arch = "x86_64") {
        return Some("its kernels are for x86-64");
    }
    if System::find() != System::Debian {
        return Some("its kernels come by Debian's apt");
    }
    (process::find(QEMU).is_none() && !process::is_root()).then_some("QEMU is not installed")
}

/// Finds or fetches QEMU and these kernels.
///
/// # Errors
/// When something is missing that cannot be installed here; the commands that do were printed.
pub(crate) fn ensure(releases: &[Release]) -> Result<Machines> {
    let _lock = workspace::lock("setup")?;
    let missing = TOOLS.iter().filter(|(program, _)| process::find(program).is_none());
    let missing: Vec<_> = missing.map(|(_, package)| (*package).to_owned()).collect();
    if !missing.is_empty() {
        System::find().install(&missing)?;
    }
    let Some(qemu) = process::find(QEMU) else { bail!("{QEMU} was installed but is not there") };
    let kernels = releases.iter().map(|&release| kernel(release)).collect::<Result<_>>()?;
    Ok(Machines { qemu, kernels })
}

fn kernel(release: Release) -> Result<Kernel> {
    let folder = workspace::tools().join("kernels").join(release.version);
    if let Some(found) = unpacked(release, &folder)? {
        return Ok(found);
    }
    let Release { version, suite, .. } = release;
    let new = folder.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot clear {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    let apt = PrivateApt::of(suite).with_context(|| format!("Linux {version} of Debian {suite} is not to be had"))?;
    let package = private_apt::unpack(&mut apt.get(), &apt.dependency(KERNEL_PACKAGE)?, &new)?;
    apt.remove()?;
    fs::write(new.join("VERSION"), format!("{package}\n")).context("cannot write the version")?;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::rename(&new, &folder).context("cannot put the kernel in place")?;
    eprintln!("setup: Linux {package} (Debian {suite})");
    unpacked(release, &folder)?.context("the kernel was fetched but is not there")
}

/// What lies in a kernel's folder; none when the kernel is another.
fn unpacked(release: Release, folder: &Path) -> Result<Option<Kernel>> {
    let Ok(package) = fs::read_to_string(folder.join("VERSION")) else { return Ok(None) };
    let package = package.trim().to_owned();
    if !package.starts_with(&format!("{}.", release.version)) {
        bail!("Debian's {} has Linux {package}, not {}", release.suite, release.version);
    }
    let image = only(&folder.join("boot"), "vmlinuz-")?;
    // Before the merge of /lib with /usr/lib, and after it.
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| folder.join(path));
    let modules = modules.iter().find(|path| path.exists()).context("the kernel's package has no modules")?;
    Ok(Some(Kernel { release, package, image, modules: only(modules, "")? }))
}

/// The only entry of a folder whose name begins so.
fn only(folder: &Path, start: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut entries = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    let found = entries.next().with_context(|| format!("nothing in {}", folder.display()))?;
    Ok(found.path())
}

/// Decompresses what ends in `.xz`, by the tool of that name.
pub(crate) fn decompressed(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|it| it != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = command("xz").args(["--decompress", "--stdout"]).arg(path).output().context("cannot start xz")?;
    if !output.status.success() {
        bail!("xz cannot decompress {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}
