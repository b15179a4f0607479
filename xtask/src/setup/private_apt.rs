//! An apt whose sources and state are ours: packages of another suite, unpacked here and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::packages::{apt_get, codename};
use super::sources;
use crate::process::{self, command};
use crate::workspace;

/// Its lists and cache lie under `target/tools`.
pub(crate) struct PrivateApt {
    state: PathBuf,
}

impl PrivateApt {
    /// Knows the packages of one suite of Debian, from the mirror that the machine uses.
    ///
    /// # Errors
    /// The machine has no source of its own release, or the mirror cannot be reached.
    pub(crate) fn of(suite: &str) -> Result<Self> {
        let codename = codename();
        let Some(text) = sources::of_suite(Path::new("/etc/apt"), &codename, suite) else {
            bail!("no apt source of this machine serves {codename}");
        };
        let this = Self { state: workspace::tools().join(format!("apt-{suite}")) };
        fs::create_dir_all(this.state.join("lists/partial")).context("cannot make the private apt state")?;
        fs::create_dir_all(this.state.join("cache/archives/partial")).context("cannot make the private apt cache")?;
        fs::write(this.list(), text).with_context(|| format!("cannot write {}", this.list().display()))?;
        process::output(this.get().args(["--error-on=any", "update"]))?;
        Ok(this)
    }

    /// apt-get with this state.
    pub(crate) fn get(&self) -> Command {
        self.with_options(apt_get())
    }

    /// The first package that a package depends on: what a package without content stands for.
    pub(crate) fn dependency(&self, package: &str) -> Result<String> {
        let listed = process::output(self.with_options(command("apt-cache")).args(["depends", package]))?;
        let first = listed.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(first.with_context(|| format!("{package} depends on nothing"))?.to_owned())
    }

    /// Removes the state.
    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.state).context("cannot remove the private apt state")
    }

    fn list(&self) -> PathBuf {
        self.state.join("suite.sources")
    }

    fn with_options(&self, mut apt: Command) -> Command {
        let folder = self.state.display();
        for option in [
            format!("Dir::Etc::sourcelist={}", self.list().display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State={folder}"),
            // What is installed from elsewhere under the same name must not be preferred.
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::Cache={folder}/cache"),
            // Only the index of packages.
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false".to_owned(),
            // apt's own user may not be let into this folder.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt.arg("-o").arg(option);
        }
        apt
    }
}

/// Downloads the package that this apt knows and unpacks it into a folder; its version.
pub(crate) fn unpack(apt: &mut Command, package: &str, into: &Path) -> Result<String> {
    process::output(apt.current_dir(into).args(["download", package]))?;
    let files = fs::read_dir(into).context("cannot list the download")?;
    let file = files
        .flatten()
        .map(|file| file.path())
        .find(|path| path.extension().is_some_and(|it| it == "deb"))
        .context("apt-get download left no package")?;
    process::run(command("dpkg-deb").arg("--extract").arg(&file).arg(into))?;
    let version = process::output(command("dpkg-deb").arg("--field").arg(&file).arg("Version"))?;
    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    Ok(version.trim().to_owned())
}
