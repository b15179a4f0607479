//! The same inputs give the same image.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::{Architecture, Built, Variant, build};

/// Built twice, at other times and places, from a program of another date.
#[test]
fn the_same_inputs_give_the_same_archive_and_it_is_what_it_promises() {
    let folders = [tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder")];
    let [one, other] = folders.each_ref().map(|folder| images(folder.path()));
    assert_eq!(one.len(), 2);
    let built = one.clone();
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one.written, other.written);
        assert_eq!(one.archive.file_name(), other.archive.file_name());
        let [one, other] = [one, other].map(|built| fs::read(&built.archive).expect("archive"));
        assert!(one == other, "the archives differ");
    }
    let [one, other] = folders.each_ref().map(|folder| {
        let files = fs::read_dir(folder.path().join("out")).expect("folder");
        let named = files.map(|file| file.expect("file")).map(|file| (file.file_name(), file.path()));
        named.map(|(name, path)| (name, fs::read(path).expect("file"))).collect::<BTreeMap<_, _>>()
    });
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    assert!(one == other, "debug information or bills differ");
    built.iter().for_each(is_an_oci_layout_with_what_the_image_promises);
}

fn is_an_oci_layout_with_what_the_image_promises(built: &Built) {
    let files = unpack(&fs::read(&built.archive).expect("archive"));
    let json = |name: &str| -> Value { serde_json::from_slice(&files[name]).expect("JSON") };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("digest");
        let content = &files[&format!("blobs/{}", digest.replace(':', "/"))];
        assert_eq!(descriptor["size"], content.len());
        assert_eq!(super::oci::digest(content), digest);
        content.clone()
    };
    let index = json("index.json");
    assert_eq!(index["manifests"][0]["digest"], built.written.digest.as_str());
    let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).expect("manifest");
    let image: Value = serde_json::from_slice(&blob(&manifest["config"])).expect("configuration");
    assert_eq!(image["config"]["User"], "65532:65532");
    assert_eq!(image["config"]["Entrypoint"][0], "/usr/local/bin/peer-daemon");
    for label in ["title", "version", "licenses", "created"] {
        assert!(image["config"]["Labels"][format!("org.opencontainers.image.{label}")].is_string(), "{label}");
    }
    let mut inside = BTreeMap::new();
    for (layer, diff) in
        manifest["layers"].as_array().expect("layers").iter().zip(image["rootfs"]["diff_ids"].as_array().expect("ids"))
    {
        let mut tar = Vec::new();
        GzDecoder::new(blob(layer).as_slice()).read_to_end(&mut tar).expect("gzip");
        assert_eq!(super::oci::digest(&tar), diff.as_str().expect("id"));
        inside.extend(unpack(&tar));
    }
    let tools = built.archive.to_string_lossy().contains("-tools-");
    for (path, always) in [
        ("usr/local/bin/peer-daemon", true),
        ("usr/local/bin/netbird", true),
        ("etc/ssl/certs/ca-certificates.crt", true),
        ("usr/share/doc/peer/sbom.cdx.json", true),
        ("usr/share/doc/ca-certificates/copyright", true),
        ("usr/bin/sh", false),
        ("usr/bin/grep", false),
        ("usr/bin/wget", false),
        ("usr/bin/curl", false),
    ] {
        assert_eq!(inside.contains_key(path), always || tools, "{path}");
    }
    let roots = String::from_utf8_lossy(&inside["etc/ssl/certs/ca-certificates.crt"]).into_owned();
    assert!(roots.matches("BEGIN CERTIFICATE").count() > 100);
}

/// Both images, around a program that stands for the daemon.
fn images(folder: &Path) -> Vec<Built> {
    let program = folder.join("program");
    fs::copy("/bin/true", &program).expect("a program");
    build(&program, Architecture::of_host(), &Variant::ALL, &folder.join("out")).expect("images")
}

fn unpack(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("entry");
        let path = entry.path().expect("path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        (path, content)
    });
    entries.collect()
}
