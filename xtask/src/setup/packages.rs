//! The system's packages.

use std::fs;

use anyhow::{Result, bail};

use crate::process::{self, command};

/// Whose package names hold here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// Debian itself: everything can be installed.
    Debian,
    /// Debian's names for common tools, but not its compilers.
    LikeDebian,
    /// Fedora and relatives.
    Fedora,
    /// Any other: Debian's names, for want of better.
    Other,
}

impl System {
    pub(crate) fn find() -> Self {
        Self::of(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn of(os_release: &str) -> Self {
        let ids = format!("{} {}", field(os_release, "ID"), field(os_release, "ID_LIKE"));
        let mut words = ids.split_whitespace();
        match words.next() {
            Some("debian") => Self::Debian,
            Some("fedora") => Self::Fedora,
            _ => words
                .find_map(|word| match word {
                    "debian" => Some(Self::LikeDebian),
                    "fedora" => Some(Self::Fedora),
                    _ => None,
                })
                .unwrap_or(Self::Other),
        }
    }

    /// Those of the packages that are not installed. Debian only.
    pub(crate) fn absent(self, packages: &[&str]) -> Vec<String> {
        // Fails when one is unknown, and still lists the others.
        let mut query = command("dpkg-query");
        query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(packages);
        let listed = query.output().map(|output| output.stdout).unwrap_or_default();
        let listed = String::from_utf8_lossy(&listed);
        packages
            .iter()
            .filter(|package| !listed.lines().any(|line| line == format!("{package} installed")))
            .map(ToString::to_string)
            .collect()
    }

    /// Installs the packages on Debian as root; elsewhere prints the commands and fails.
    pub(crate) fn install(self, packages: &[String]) -> Result<()> {
        if self != Self::Debian || !process::is_root() {
            eprintln!("setup: missing: {}. Run:", packages.join(" "));
            for line in self.commands(packages) {
                eprintln!("    {line}");
            }
            bail!("`cargo xtask setup` installs by itself only on Debian as root");
        }
        eprintln!("setup: apt-get update");
        process::output(apt_get().arg("update"))?;
        eprintln!("setup: apt-get install {}", packages.join(" "));
        process::output(apt_get().args(["--yes", "--no-install-recommends", "install"]).args(packages))?;
        Ok(())
    }

    /// What a user types to get the packages, and an eBPF compiler where the system packages none.
    fn commands(self, packages: &[String]) -> Vec<String> {
        let packages = packages.join(" ");
        match self {
            Self::Debian | Self::LikeDebian => {
                vec![format!("sudo apt-get update && sudo apt-get install --no-install-recommends {packages}")]
            }
            Self::Fedora => vec![format!("sudo dnf install {packages}")],
            Self::Other => vec![format!("(your package manager's install command) {packages}")],
        }
    }
}

/// apt-get that asks nothing, and waits for another apt instead of failing.
pub(crate) fn apt_get() -> std::process::Command {
    let mut apt = command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]);
    apt
}

/// The name of the release that runs here, empty when it has none.
pub(crate) fn codename() -> String {
    field(&fs::read_to_string("/etc/os-release").unwrap_or_default(), "VERSION_CODENAME").to_owned()
}

/// The value of a field of os-release, without quotes.
fn field<'a>(os_release: &'a str, name: &str) -> &'a str {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map_or("", |value| value.trim().trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::System;

    #[test]
    fn systems_are_told_by_id_then_by_kinship() {
        assert_eq!(System::of("ID=debian\nVERSION_CODENAME=bookworm\n"), System::Debian);
        assert_eq!(System::of("ID=ubuntu\nID_LIKE=debian\n"), System::LikeDebian);
        assert_eq!(System::of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), System::Fedora);
        assert_eq!(System::of("ID=arch\n"), System::Other);
        assert_eq!(System::of(""), System::Other);
    }

    #[test]
    fn a_user_without_root_gets_the_whole_command() {
        let packages = ["iperf3".to_owned(), "ethtool".to_owned()];
        assert_eq!(
            System::Debian.commands(&packages),
            ["sudo apt-get update && sudo apt-get install --no-install-recommends iperf3 ethtool"]
        );
    }
}
