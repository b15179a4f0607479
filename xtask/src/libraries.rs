//! Libraries that a program loads.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::process::command;

/// As `ldd` finds them, the loader too; none for a static program.
pub(crate) fn of(binary: &Path) -> Result<Vec<PathBuf>> {
    let output = command("ldd").arg(binary).output().context("cannot start ldd")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("not a dynamic executable") || said.contains("statically linked") {
        return Ok(Vec::new());
    }
    if !output.status.success() || said.contains("not found") {
        bail!("ldd {}: {}", binary.display(), said.trim());
    }
    Ok(parse(&said))
}

/// `name => /path (0x…)`, or `/path (0x…)`.
fn parse(said: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let path = line.split_once(" => ").map_or(line, |(_, path)| path).split_whitespace().next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    said.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_file() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse(said), expected);
    }
}
