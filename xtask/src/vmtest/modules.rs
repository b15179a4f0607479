//! Kernel modules and what they need, read from the modules themselves: a package that is not installed has no index.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::setup::machines::decompressed;

/// A module, ready to be loaded.
pub(crate) struct Module {
    /// With `_` for `-`.
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

/// The modules of these names and all that they need, each after those that it needs. What is built into the kernel is
/// left out.
pub(crate) fn closure(folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(&folder.join("kernel"), &mut files)?;
    let builtin = fs::read_to_string(folder.join("modules.builtin")).context("cannot read modules.builtin")?;
    let builtin: Vec<_> = builtin.lines().filter_map(|line| module_name(Path::new(line))).collect();
    let mut found = Vec::new();
    for name in wanted {
        add(name, &files, &builtin, &mut found)?;
    }
    Ok(found)
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, builtin: &[String], found: &mut Vec<Module>) -> Result<()> {
    if found.iter().any(|module| module.name == name) || builtin.iter().any(|it| it == name) {
        return Ok(());
    }
    let file = files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    let content = decompressed(file)?;
    for needed in needs(&content) {
        add(&needed, files, builtin, found)?;
    }
    found.push(Module { name: name.to_owned(), content });
    Ok(())
}

/// What `depends=a,b` in the section `.modinfo` says: strings that end with a zero.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[start + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `cls_bpf` of `…/cls-bpf.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_needs_are_read_as_the_kernel_writes_them() {
        assert_eq!(module_name(Path::new("kernel/net/udp-tunnel.ko.xz")).as_deref(), Some("udp_tunnel"));
        assert_eq!(module_name(Path::new("kernel/modules.order")), None);
        let module = b"\x7fELF..\0license=GPL\0depends=udp_tunnel,ip6-udp_tunnel\0name=wireguard\0";
        assert_eq!(needs(module), ["udp_tunnel", "ip6_udp_tunnel"]);
        assert_eq!(needs(b"\0depends=\0"), [""; 0]);
    }

    #[test]
    fn each_module_comes_after_what_it_needs() {
        let folder = tempfile::tempdir().expect("temp folder");
        let kernel = folder.path().join("kernel");
        fs::create_dir(&kernel).expect("folder");
        fs::write(folder.path().join("modules.builtin"), "kernel/net/ipv6.ko\n").expect("file");
        fs::write(kernel.join("a.ko"), "\0depends=b,ipv6\0").expect("file");
        fs::write(kernel.join("b.ko"), "\0depends=\0").expect("file");
        let names = |wanted: &[&str]| {
            let found = closure(folder.path(), wanted)?;
            anyhow::Ok(found.into_iter().map(|module| module.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["a", "b", "ipv6"]).expect("there"), ["b", "a"]);
        assert!(names(&["c"]).is_err());
    }
}
