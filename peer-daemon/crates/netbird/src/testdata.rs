//! Recorded messages: see testdata/README.md.

use std::path::Path;

use serde_json::Value;

pub(crate) struct Vector {
    /// The plaintext protobuf.
    pub(crate) bytes: Vec<u8>,
    /// The same in protobuf's JSON form.
    pub(crate) json: Value,
}

pub(crate) fn read(name: &str) -> Vector {
    let value = json(name);
    Vector { bytes: hex(value["hex"].as_str().expect("hex")), json: value["json"].clone() }
}

pub(crate) fn json(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}
