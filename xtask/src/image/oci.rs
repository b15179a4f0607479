//! An image as an OCI archive: the layout of opencontainers/image-spec 1.1 in one tar file.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::tree::Tree;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What an image consists of.
pub(crate) struct Parts<'a> {
    /// As Go and OCI name it: `amd64`, `arm64`.
    pub(crate) architecture: &'a str,
    /// `localhost/peer:0.1.0`: what it is called where it is loaded.
    pub(crate) name: &'a str,
    /// RFC 3339.
    pub(crate) created: &'a str,
    /// The `config` of the image configuration.
    pub(crate) config: Value,
    /// Of the manifest, for registries.
    pub(crate) annotations: Value,
    /// The lowest first, each with what it is for.
    pub(crate) layers: Vec<(&'a str, &'a Tree)>,
}

/// An archive that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Of the manifest: what `image@sha256:…` names.
    pub(crate) digest: String,
    /// What a registry would hold and a node fetch, bytes.
    pub(crate) compressed: u64,
}

/// Writes the archive; it appears whole.
pub(crate) fn write(parts: &Parts<'_>, path: &Path) -> Result<Written> {
    let mut blobs = Vec::new();
    let (mut layers, mut diffs, mut history) = (Vec::new(), Vec::new(), Vec::new());
    for (purpose, tree) in &parts.layers {
        let tar = tree.to_tar()?;
        diffs.push(digest(&tar));
        layers.push(blob(&mut blobs, LAYER, gzip(&tar)?));
        history.push(json!({"created": parts.created, "created_by": purpose}));
    }
    let config = json!({
        "created": parts.created,
        "architecture": parts.architecture,
        "os": "linux",
        "config": parts.config,
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": history,
    });
    let config = blob(&mut blobs, CONFIG, serde_json::to_vec(&config)?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": layers,
        "annotations": parts.annotations,
    });
    let mut manifest = blob(&mut blobs, MANIFEST, serde_json::to_vec(&manifest)?);
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
    manifest["platform"] = json!({"architecture": parts.architecture, "os": "linux"});
    // Podman and skopeo read the first, containerd the second.
    manifest["annotations"] =
        json!({"org.opencontainers.image.ref.name": parts.name, "io.containerd.image.name": parts.name});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    let compressed = blobs.iter().map(|(_, content)| content.len() as u64).sum();
    archive(path, blobs, &index).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Written { digest, compressed })
}

/// Keeps a blob; its descriptor.
fn blob(blobs: &mut Vec<(String, Vec<u8>)>, media_type: &str, content: Vec<u8>) -> Value {
    let digest = digest(&content);
    let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
    blobs.push((digest, content));
    descriptor
}

pub(crate) fn digest(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Without name, time or system in its header.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::default());
    encoder.write_all(content).context("cannot compress a layer")?;
    encoder.finish().context("cannot compress a layer")
}

fn archive(path: &Path, mut blobs: Vec<(String, Vec<u8>)>, index: &Value) -> Result<()> {
    // Two equal layers are one blob.
    blobs.sort();
    blobs.dedup();
    let partial = path.with_extension("tar.new");
    let mut tar = Builder::new(BufWriter::new(File::create(&partial)?));
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut tar, "index.json", &serde_json::to_vec(index)?)?;
    for (digest, content) in &blobs {
        add(&mut tar, &format!("blobs/{}", digest.replace(':', "/")), content)?;
    }
    tar.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&partial, path)?;
    Ok(())
}

fn add(tar: &mut Builder<BufWriter<File>>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content)?;
    Ok(())
}
