//! The manifests of `deploy/`: rendered as `kubectl apply -k` would, without a cluster, and looked at.

mod memory;
pub mod pod_security;

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab::{run, target_directory};

pub use self::memory::MapMemory;

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The objects of a kustomization, `folder` below `deploy/`, in the order in which they would be applied.
///
/// # Errors
/// It cannot be rendered, or a tool of `cargo xtask setup` is missing; the message says which.
pub fn render(folder: &str) -> Result<Vec<Value>> {
    let kubectl = tool("PEER_KUBECTL", "kubectl/kubectl")?;
    let path = workspace().join("deploy").join(folder);
    let rendered = run(Command::new(kubectl).arg("kustomize").arg(&path))?;
    ensure!(rendered.status.success(), "kubectl kustomize {}: {}", path.display(), rendered.stderr);
    parse(&rendered.stdout)
}

/// The documents of a text in YAML.
///
/// # Errors
/// It is none, or a tool of `cargo xtask setup` is missing.
pub fn parse(yaml: &str) -> Result<Vec<Value>> {
    const SCRIPT: &str = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
    let mut command = Command::new(tool("PEER_KUBERNETES_PYTHON", "kubernetes-validate/bin/python")?);
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start Python")?;
    // It writes nothing before it has read all.
    child.stdin.take().context("its input")?.write_all(yaml.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "not YAML: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What the schemas of that version of Kubernetes have against an object, unknown fields included; nothing: it is valid.
///
/// # Errors
/// A tool of `cargo xtask setup` is missing.
pub fn invalid(object: &Value, version: &str, scratch: &Path) -> Result<Option<String>> {
    let validate = tool("PEER_KUBERNETES_VALIDATE", "kubernetes-validate/bin/kubernetes-validate")?;
    let file = scratch.join(format!("{}.{version}.json", name(object).replace('/', "-")));
    std::fs::write(&file, object.to_string()).with_context(|| format!("write {}", file.display()))?;
    let judged = run(Command::new(validate).args(["--strict", "--quiet", "-k", version]).arg(&file))?;
    std::fs::remove_file(&file)?;
    Ok((!judged.status.success()).then(|| format!("{}{}", judged.stdout, judged.stderr)))
}

/// The only object of this kind.
///
/// # Errors
/// There is none, or there are several.
pub fn only<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    ensure!(found.len() == 1, "{} objects of kind {kind}", found.len());
    Ok(found[0])
}

/// The pod that a workload makes: metadata and spec.
#[must_use]
pub fn pod(workload: &Value) -> &Value {
    &workload["spec"]["template"]
}

/// Kind and name, for messages.
#[must_use]
pub fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// Bytes of a quantity such as `128Mi`.
///
/// # Errors
/// It has another unit.
pub fn bytes(quantity: &Value) -> Result<u64> {
    let text = quantity.as_str().context("a quantity is text")?;
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => anyhow::bail!("{text}: the unit {other} is not used here"),
    };
    Ok(number.parse::<u64>().with_context(|| text.to_owned())? * unit)
}

fn tool(variable: &str, below_tools: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).map_or_else(|| target_directory().join("tools").join(below_tools), PathBuf::from);
    ensure!(path.exists(), "no {}: run `cargo xtask setup`, or name it in {variable}", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        assert_eq!(bytes(&"128Mi".into()).expect("bytes"), 134_217_728);
        assert_eq!(bytes(&"7".into()).expect("bytes"), 7);
        assert!(bytes(&"1.5G".into()).is_err() && bytes(&7.into()).is_err());
    }
}
