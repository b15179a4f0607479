//! What is in an image: below, what seldom changes; above it, the daemon.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::debian::{Package, Taken, add_terms};
use super::linked::{self, Crates};
use super::tree::{Owner, Tree};
use crate::process::{self, command};
use crate::workspace;

/// The user that an image names: not root, for the form without privileges. Whoever wants eBPF says uid 0.
pub(crate) const USER: u32 = 65532;
/// The daemon.
pub(crate) const DAEMON: &str = "usr/local/bin/peer-daemon";
/// The name by which probes and people know the official client.
const NETBIRD: &str = "usr/local/bin/netbird";
/// Where the bill of materials lies in the image.
const SBOM: &str = "usr/share/doc/peer/sbom.cdx.json";
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\npeer:x:65532:65532:peer:/var/lib/netbird:/bin/sh\n";
const GROUP: &str = "root:x:0:\npeer:x:65532:\n";
/// A static program can ask files and DNS only.
const NSSWITCH: &str = "hosts: files dns\n";

/// How much is in an image.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// The daemon and root certificates
    Minimal,
    /// Also sh, grep, wget and the rest of busybox, and curl
    Tools,
}

impl Variant {
    pub(crate) const ALL: [Self; 2] = [Self::Minimal, Self::Tools];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Tools => "tools",
        }
    }
}

/// The lower layer, and the packages that an image has something of: with what was `taken` for the upper layer.
pub(crate) fn base(variant: Variant, mut taken: Taken) -> Result<(Tree, Vec<Package>)> {
    let mut tree = Tree::default();
    tree.file("etc/passwd", PASSWD)?;
    tree.file("etc/group", GROUP)?;
    tree.file("etc/nsswitch.conf", NSSWITCH)?;
    tree.file("etc/ssl/certs/ca-certificates.crt", taken.roots()?)?;
    // Where the root is not read-only, either user writes there: root without CAP_DAC_OVERRIDE does by its group.
    let ours = Owner { user: USER, group: 0 };
    tree.folder("var/lib/netbird", 0o770, ours)?;
    tree.folder("run", 0o775, ours)?;
    tree.link("var/run", "/run")?;
    tree.folder("tmp", 0o1777, Owner::ROOT)?;
    for mount_point in ["dev", "proc", "sys"] {
        tree.folder(mount_point, 0o755, Owner::ROOT)?;
    }
    if variant == Variant::Tools {
        tools(&mut tree, &mut taken)?;
    }
    let packages = taken.packages()?;
    add_terms(&packages, &mut tree)?;
    Ok((tree, packages))
}

/// What people and probes use in a container.
fn tools(tree: &mut Tree, taken: &mut Taken) -> Result<()> {
    for (old, new) in [("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        tree.link(old, new)?;
    }
    let find = |program: &str| process::find(program).with_context(|| format!("no {program}: run `cargo xtask setup`"));
    let busybox = fs::canonicalize(find("busybox")?)?;
    taken.program(tree, "usr/bin/busybox", &busybox)?;
    taken.program(tree, "usr/bin/curl", &fs::canonicalize(find("curl")?)?)?;
    for applet in process::output(command(&busybox).arg("--list"))?.lines() {
        let at = format!("usr/bin/{applet}");
        if !tree.has(&at) {
            tree.link(&at, "busybox")?;
        }
    }
    Ok(())
}

/// The upper layer.
pub(crate) fn daemon(binary: &Path, crates: &Crates, sbom: &[u8]) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.program(DAEMON, fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?)?;
    tree.link(NETBIRD, "peer-daemon")?;
    tree.file(SBOM, sbom)?;
    for (from, to) in [
        ("LICENSE", "LICENSE"),
        ("peer-ebpf/LICENSE-MIT", "LICENSE-MIT.peer-ebpf"),
        ("peer-ebpf/LICENSE-GPL-2.0", "LICENSE-GPL-2.0.peer-ebpf"),
    ] {
        let from = workspace::root().join(from);
        let text = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        tree.file(&format!("usr/share/doc/peer/{to}"), text)?;
    }
    tree.file("usr/share/doc/peer/LICENSES-of-crates.txt", linked::licences(crates)?)?;
    Ok(tree)
}
