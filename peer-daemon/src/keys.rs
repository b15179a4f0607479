//! `genkey` and `pubkey`, as `wg` has them.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use peer_core::key::PrivateKey;
use zeroize::Zeroizing;

/// Prints a new private key.
pub(crate) fn genkey() -> anyhow::Result<ExitCode> {
    let key = peer_identity::generate();
    print_line(&key.expose_base64())
}

/// Reads a private key and prints its public key.
pub(crate) fn pubkey() -> anyhow::Result<ExitCode> {
    let mut text = Zeroizing::new(String::new());
    // More than a key and its line end is no key.
    std::io::stdin().take(256).read_to_string(&mut text).context("read standard input")?;
    let key: PrivateKey = text.trim().parse().context("standard input")?;
    print_line(&key.public_key().to_string())
}

fn print_line(text: &str) -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{text}").context("write standard output")?;
    Ok(ExitCode::SUCCESS)
}
