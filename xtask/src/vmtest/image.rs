//! The file system of a machine: our binaries, the tools that scenarios start, and every library that these load.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use peer_tests::guest::{PLAN, Plan};

use super::archive::Archive;
use super::built::Built;
use super::modules;
use crate::libraries;
use crate::process::{self, command};
use crate::setup::machines::Kernel;
use crate::workspace;

/// Where our binaries lie in the machine.
pub(crate) const PROGRAMS: &str = "/vmtest";
/// Modules of ours and of the members' tunnels.
const MODULES: [&str; 5] = ["tun", "veth", "sch_ingress", "cls_bpf", "wireguard"];
/// Started by the lab.
const TOOLS: [&str; 4] = ["ip", "tc", "wg", "setpriv"];

/// Writes the archive that the kernel unpacks as its root.
pub(crate) fn write(path: &Path, kernel: &Kernel, built: &Built, plan: &mut Plan) -> Result<()> {
    let stripped = path.with_extension("stripped");
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    // The first process has its output there, before anything is mounted.
    archive.character_device(Path::new("/dev/console"), (5, 1))?;
    program(&mut archive, &built.init, Path::new("/init"), &stripped)?;
    for binary in built.programs()? {
        program(&mut archive, &binary, &in_machine(&binary), &stripped)?;
    }
    for tool in TOOLS {
        let found = process::find(tool).with_context(|| format!("no {tool} on PATH"))?;
        program(&mut archive, &found, &Path::new("/usr/bin").join(tool), &stripped)?;
    }
    // Tests of the programs look for the object, and whether it is fresh, where it was when they were compiled.
    let root = workspace::root();
    archive.folder(&root.join("peer-daemon/crates/dataplane"))?;
    let sources = ebpf_artifact::sources(root).context("cannot list the sources of the programs")?;
    for file in sources.into_iter().chain([ebpf_artifact::object(root), ebpf_artifact::stamp(root)]) {
        archive.file(&file, &fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?)?;
    }
    plan.modules.clear();
    for module in modules::closure(&kernel.modules, &MODULES)? {
        let path = PathBuf::from(format!("/modules/{}.ko", module.name));
        archive.file(&path, &module.content)?;
        plan.modules.push(path);
    }
    archive.file(Path::new(PLAN), &serde_json::to_vec_pretty(plan)?)?;
    archive.finish().context("cannot write the archive")?;
    Ok(())
}

/// Where a binary of ours lies in the machine.
pub(crate) fn in_machine(binary: &Path) -> PathBuf {
    Path::new(PROGRAMS).join(binary.file_name().unwrap_or_default())
}

/// A program without its debug information, made at `stripped` on the way, and its libraries where the loader looks for
/// them.
fn program(archive: &mut Archive, binary: &Path, at: &Path, stripped: &Path) -> Result<()> {
    process::run(command("strip").arg("--strip-debug").arg("-o").arg(stripped).arg(binary))?;
    archive.file(at, &fs::read(stripped).context("cannot read a stripped program")?)?;
    fs::remove_file(stripped).context("cannot remove a stripped program")?;
    for library in libraries::of(binary)? {
        if !archive.has(&library) {
            let content = fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
            archive.file(&library, &content)?;
        }
    }
    Ok(())
}
