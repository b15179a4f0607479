//! Where things lie.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Tools that setup installs for this checkout alone.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Flags that keep the places of this checkout and of cargo's downloads out of what is compiled, so that the same sources
/// give the same binary wherever they lie: `option` with each, as `--remap-path-prefix` of rustc and `-ffile-prefix-map`
/// of C compilers take them.
pub(crate) fn remapped(option: &str) -> Result<[String; 2]> {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    let cargo = cargo.context("neither CARGO_HOME nor HOME is set")?;
    let remap = |from: &Path, to: &str| format!("{option}={}={to}", from.display());
    // The last that fits counts: cargo's folder may lie in the checkout.
    Ok([remap(root(), "/peer"), remap(&cargo, "/cargo")])
}

/// Keeps a second xtask from installing or building the same thing until the returned file is dropped.
pub(crate) fn lock(name: &str) -> Result<File> {
    let folder = root().join("target");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!(".xtask-{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
