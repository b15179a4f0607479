//! `cargo xtask image`: container images as OCI archives, written here without a registry and without a container
//! engine. The same sources, compiler and Debian packages give the same digest.

mod contents;
mod debian;
mod linked;
mod oci;
mod sbom;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use self::contents::{USER, Variant};
use self::debian::Taken;
use self::oci::{Parts, Written};
use self::source::Source;
use crate::build_ebpf;
use crate::daemon::{self, Target};
use crate::process::{self, command};
use crate::setup;
use crate::steps::Steps;
use crate::workspace;

/// What a node may have to fetch at most, bytes.
const LARGEST: u64 = 25 << 20;
const NAME: &str = "peer";
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Only this variant. Unless given both; the minimal one for other processors than this machine's
    #[arg(long, value_enum)]
    variant: Option<Variant>,
    /// For which processors
    #[arg(long, value_enum, default_value_t = Architecture::of_host())]
    arch: Architecture,
    /// Where to put the archives, bills of materials and debug information
    #[arg(long, value_name = "DIR", default_value = "target/image")]
    out: PathBuf,
}

/// As Go and OCI name them.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    fn of_host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn target(self) -> Target {
        match self {
            Self::Amd64 => Target::X86_64,
            Self::Arm64 => Target::Aarch64,
        }
    }
}

/// Prints a line for each image: file, digest, bytes.
pub(crate) fn command_line(options: &Options) -> Result<()> {
    let steps = Steps::of("image");
    let target = options.arch.target();
    let variants = variants(options)?;
    steps.run("setup", || setup::ensure().and_then(|_| setup::cross::ensure(target)))?;
    steps.run("build-ebpf", || build_ebpf::build(false))?;
    let daemon = steps.run("build the daemon", || daemon::build_for(target))?;
    let out = workspace::root().join(&options.out);
    let built = steps.run("write", || build(&daemon, options.arch, &variants, &out))?;
    for Built { archive, written } in built {
        println!("{} {} {}", archive.display(), written.digest, written.compressed);
    }
    steps.done();
    Ok(())
}

/// Those that were asked for, or all that can be made here.
fn variants(options: &Options) -> Result<Vec<Variant>> {
    let native = options.arch == Architecture::of_host();
    let tools = options.variant == Some(Variant::Tools);
    ensure!(
        native || !tools,
        "--variant tools --arch {}: the tools are those of this machine; write --variant minimal",
        options.arch.name()
    );
    Ok(match options.variant {
        Some(variant) => vec![variant],
        None if native => Variant::ALL.to_vec(),
        None => vec![Variant::Minimal],
    })
}

/// An image and where it is.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) archive: PathBuf,
    written: Written,
}

/// Images of the host's architecture with this daemon in them, in `target/image`: the minimal one, and the one with tools.
pub(crate) fn of_host(daemon: &Path) -> Result<[PathBuf; 2]> {
    let built = build(daemon, Architecture::of_host(), &Variant::ALL, &workspace::root().join("target/image"))?;
    let archives: Vec<_> = built.into_iter().map(|built| built.archive).collect();
    archives.try_into().ok().context("two images")
}

fn build(daemon: &Path, architecture: Architecture, variants: &[Variant], out: &Path) -> Result<Vec<Built>> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let name = |what: &str| out.join(format!("{NAME}-{VERSION}-{what}"));
    let program = strip(daemon, architecture, &name(architecture.name()))?;
    let target = architecture.target();
    let crates = linked::crates(target.triple())?;
    let compiler = compiler_version()?;
    let source = Source::find()?;
    let mut built = Vec::new();
    for &variant in variants {
        let mut taken = Taken::default();
        taken.add_static_libraries(&target.linker())?;
        let (base, packages) = contents::base(variant, taken)?;
        let bill = sbom::write(NAME, VERSION, &compiler, &crates, &packages);
        let bill = serde_json::to_vec_pretty(&bill)?;
        let daemon = contents::daemon(&program, &crates, &bill)?;
        let file = name(&format!("{}-{}", variant.name(), architecture.name()));
        fs::write(with_suffix(&file, ".cdx.json"), bill)?;
        let archive = with_suffix(&file, ".tar");
        let parts = Parts {
            architecture: architecture.name(),
            name: &tag(variant),
            created: &source.created,
            config: config(&labels(variant, &source)),
            annotations: Value::Object(labels(variant, &source)),
            layers: vec![("root certificates, users and tools", &base), ("peer-daemon", &daemon)],
        };
        let written = oci::write(&parts, &archive)?;
        let Written { digest, compressed } = &written;
        eprintln!(
            "image: {} {digest}, {:.1} MiB compressed",
            archive.display(),
            *compressed as f64 / f64::from(1 << 20)
        );
        ensure!(*compressed <= LARGEST, "{} has {compressed} bytes, more than {LARGEST}", archive.display());
        built.push(Built { archive, written });
    }
    fs::remove_file(&program).with_context(|| format!("cannot remove {}", program.display()))?;
    Ok(built)
}

/// Of the standard library that is linked.
fn compiler_version() -> Result<String> {
    let said = process::output(command(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version"))?;
    Ok(said.split(' ').nth(1).with_context(|| format!("rustc --version says {said}"))?.to_owned())
}

/// What an image is called where it is loaded.
fn tag(variant: Variant) -> String {
    match variant {
        Variant::Minimal => format!("localhost/{NAME}:{VERSION}"),
        Variant::Tools => format!("localhost/{NAME}:{VERSION}-{}", variant.name()),
    }
}

fn labels(variant: Variant, source: &Source) -> Map<String, Value> {
    let mut labels = Map::new();
    let mut set = |name: &str, value: &str| labels.insert(format!("org.opencontainers.image.{name}"), value.into());
    set("title", NAME);
    set("description", "eBPF-accelerated, NetBird-compatible WireGuard routing peer");
    set("version", VERSION);
    set("created", &source.created);
    set("licenses", "Apache-2.0 AND (MIT OR GPL-2.0-only)");
    set("ref.name", &tag(variant));
    if let Some(revision) = &source.revision {
        set("revision", revision);
    }
    labels
}

fn config(labels: &Map<String, Value>) -> Value {
    json!({
        "User": format!("{USER}:{USER}"),
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        "Entrypoint": [format!("/{}", contents::DAEMON)],
        "WorkingDir": "/",
        "StopSignal": "SIGTERM",
        "Labels": labels,
    })
}

/// The program alone; what debuggers want besides goes into a file beside the archives, found by its build id.
fn strip(daemon: &Path, architecture: Architecture, name: &Path) -> Result<PathBuf> {
    let (debug, stripped) = (with_suffix(name, ".debug"), with_suffix(name, ".stripped"));
    let target = architecture.target();
    let objcopy = || command(target.tool("objcopy"));
    process::run(objcopy().arg("--only-keep-debug").arg(daemon).arg(&debug))?;
    process::run(objcopy().arg("--strip-all").arg(daemon).arg(&stripped))?;
    Ok(stripped)
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut file = file.as_os_str().to_owned();
    file.push(suffix);
    file.into()
}
