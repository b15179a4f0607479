//! The bill of materials: CycloneDX 1.5, as scanners of images read it.

use serde_json::{Value, json};

use super::debian::Package;
use super::linked::{Crates, Id};

/// What an image has in it. Without date and serial number: the same materials give the same bill.
pub(crate) fn write(name: &str, version: &str, compiler: &str, crates: &Crates, packages: &[Package]) -> Value {
    let root = format!("pkg:oci/{name}@{version}");
    let ours = crates.iter().map(|(id, linked)| {
        let mut component = json!({
            "type": "library",
            "bom-ref": purl(id),
            "name": id.0,
            "version": id.1,
            "purl": purl(id),
        });
        if let Some(license) = &linked.license {
            component["licenses"] = json!([{"expression": license}]);
        }
        if let Some(sum) = &linked.sha256 {
            component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
        }
        component
    });
    let standard = json!({
        "type": "library",
        "bom-ref": "rust-std",
        "name": "rust-std",
        "version": compiler,
        "purl": format!("pkg:github/rust-lang/rust@{compiler}"),
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    });
    let debian = packages.iter().map(|package| {
        let purl =
            format!("pkg:deb/debian/{}@{}?arch={}", package.name, escaped(&package.version), package.architecture);
        json!({"type": "library", "bom-ref": purl, "name": package.name, "version": package.version, "purl": purl})
    });
    let components: Vec<_> = ours.chain([standard]).chain(debian).collect();
    let inside: Vec<_> = components.iter().map(|component| component["bom-ref"].clone()).collect();
    let mut dependencies = vec![json!({"ref": root, "dependsOn": inside})];
    dependencies.extend(crates.iter().map(|(id, linked)| {
        let on: Vec<_> = linked.dependencies.iter().map(purl).collect();
        json!({"ref": purl(id), "dependsOn": on})
    }));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": root, "name": name, "version": version}},
        "components": components,
        "dependencies": dependencies,
    })
}

fn purl((name, version): &Id) -> String {
    format!("pkg:cargo/{name}@{}", escaped(version))
}

/// Versions have few characters that a package URL reserves.
fn escaped(version: &str) -> String {
    version.replace('+', "%2B").replace(':', "%3A")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::image::linked;

    #[test]
    fn a_bill_names_each_material_once_and_knows_all_it_refers_to() {
        let crates = linked::crates("x86_64-unknown-linux-gnu").expect("cargo answers");
        let bill = write("peer", "0.1.0", "1.95.0", &crates, &[]);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let components = list(&bill["components"]);
        let mut names: BTreeSet<_> = components.iter().map(|it| it["bom-ref"].to_string()).collect();
        assert_eq!(names.len(), components.len(), "each once");
        assert_eq!(components.len(), crates.len() + 1);
        names.insert(bill["metadata"]["component"]["bom-ref"].to_string());
        for dependency in list(&bill["dependencies"]) {
            for name in list(&dependency["dependsOn"]).iter().chain([&dependency["ref"]]) {
                assert!(names.contains(&name.to_string()), "{name}");
            }
        }
    }

    #[test]
    fn versions_are_escaped() {
        assert_eq!(purl(&("x".to_owned(), "1.0.0+b".to_owned())), "pkg:cargo/x@1.0.0%2Bb");
    }
}
