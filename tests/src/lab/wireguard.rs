//! Keys, as `wg` makes them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// A private key and its public key, base64.
#[derive(Clone)]
pub struct KeyPair {
    /// Private key.
    pub private: String,
    /// Public key.
    pub public: String,
}

impl KeyPair {
    /// Makes a random pair with `wg`, so that keys come from a program that we did not write.
    ///
    /// # Errors
    /// `wg` (Debian: `wireguard-tools`) is not installed.
    pub fn generate() -> Result<Self> {
        let private = wg("genkey", "")?;
        let public = wg("pubkey", &private)?;
        Ok(Self { private, public })
    }
}

/// Makes a random preshared key.
///
/// # Errors
/// As [`KeyPair::generate`].
pub fn preshared_key() -> Result<String> {
    wg("genpsk", "")
}

fn wg(command: &str, input: &str) -> Result<String> {
    let mut child = Command::new("wg")
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start wg (Debian: wireguard-tools)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "wg {command}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
