//! Where things lie.

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

/// Keeps a second xtask from installing or building the same thing until the returned file is dropped.
pub(crate) fn lock(name: &str) -> Result<File> {
    let folder = root().join("target");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!(".xtask-{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
