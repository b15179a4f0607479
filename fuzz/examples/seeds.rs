//! Writes the recorded messages of the tests as seeds: `cargo run --example seeds`.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Directories of the recorded messages, by target.
const RECORDED: [(&str, &str); 3] =
    [("management", "management"), ("management", "management-0.66"), ("signal", "signal")];

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recorded = here.join("../peer-daemon/crates/netbird/testdata");
    for (target, directory) in RECORDED {
        let corpus = here.join("corpus").join(target);
        fs::create_dir_all(&corpus).expect("a directory");
        for entry in fs::read_dir(recorded.join(directory)).expect("recorded messages") {
            let path = entry.expect("an entry").path();
            let file: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
            let Some(hex) = file["hex"].as_str() else { continue };
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            fs::write(corpus.join(format!("{directory}-{name}")), bytes).expect("written");
        }
    }
    let config = here.join("corpus/config");
    fs::create_dir_all(&config).expect("a directory");
    fs::write(config.join("small"), CONFIG).expect("written");
}

const CONFIG: &str = r#"
[interface]
private_key_file = "key"
addresses = ["100.64.0.1/16", "fd00::1/64"]
mtu = 1420

[[peer]]
public_key = "QpxTc44+h86bVw5y5UNfx1tkeh3VnRZ5uymliV4BCiM="
endpoint = "192.0.2.1:51820"
allowed_ips = ["100.64.0.2/32"]
persistent_keepalive = 25

[[route]]
destination = "10.0.0.0/8"
masquerade = true

[[rule]]
id = 1
sources = ["100.64.0.0/16"]
destinations = ["10.0.0.0/8"]
protocol = "tcp"
ports = ["80", "1000-2000"]
action = "accept"
"#;
