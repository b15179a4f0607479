//! Compiles the .proto files in pure Rust: no protoc needed.

use std::error::Error;

/// Messages with secrets in them: their `Debug` is written by hand.
const SECRET: [&str; 3] = [".management.LoginRequest", ".management.ProtectedHostConfig", ".management.RelayConfig"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["management.proto", "signalexchange.proto"], ["proto"])?;
    let mut builder = tonic_prost_build::configure().build_client(true).build_server(true);
    // Servers are for this crate's tests only.
    for package in ["management", "signalexchange"] {
        builder = builder.server_mod_attribute(package, "#[cfg(test)]");
    }
    builder.skip_debug(SECRET).compile_fds(files)?;
    Ok(())
}
