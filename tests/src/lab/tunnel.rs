//! What makes a member's tunnel: wireguard-go, or the kernel's own WireGuard where there is one.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::binaries::find_wireguard_go;
use super::namespace::Namespace;
use super::process::Process;
use super::traffic::wait_for;

/// Set to `kernel`, members use the kernel's own WireGuard.
const CHOICE: &str = "PEER_MEMBER";

/// An implementation of WireGuard that is not ours.
#[derive(Clone, Debug)]
pub enum Tunnel {
    /// wireguard-go, this program.
    WireguardGo(PathBuf),
    /// The kernel's own.
    Kernel,
}

impl Tunnel {
    /// As `$PEER_MEMBER` says; wireguard-go, as [`find_wireguard_go`], unless it says `kernel`.
    ///
    /// # Errors
    /// There is none; the message says how to get it.
    pub fn find() -> Result<Self> {
        match env::var_os(CHOICE) {
            Some(choice) if choice == "kernel" => Ok(Self::Kernel),
            _ => Ok(Self::WireguardGo(find_wireguard_go()?)),
        }
    }

    /// Makes the device, which takes configuration then; and the process that serves it, if there is one.
    pub(crate) fn start(&self, namespace: &Namespace, device: &str) -> Result<Option<Process>> {
        match self {
            Self::WireguardGo(program) => start_wireguard_go(namespace, device, program).map(Some),
            Self::Kernel => {
                namespace.exec("ip", &["link", "add", device, "type", "wireguard"])?;
                Ok(None)
            }
        }
    }
}

/// Starts a wireguard-go and waits until it takes configuration.
pub(crate) fn start_wireguard_go(namespace: &Namespace, device: &str, program: &Path) -> Result<Process> {
    let name = format!("wireguard-go in {}", namespace.name());
    // Its view of handshakes: half of what there is to know when a scenario fails. Packets are not logged.
    let mut command = namespace.command(program);
    let mut process = Process::start(&name, command.args(["-f", device]).env("LOG_LEVEL", "verbose"))?;
    let socket = format!("/run/wireguard/{device}.sock");
    let ready = wait_for(Duration::from_secs(5), || namespace.enter(|| Path::new(&socket).exists()));
    ensure!(ready && process.ended()?.is_none(), "{name} does not start: {}", process.log());
    Ok(process)
}

/// Configures a tunnel.
pub(crate) fn set_configuration(namespace: &Namespace, device: &str, text: &str) -> Result<()> {
    let path = format!("/run/lab/{device}.conf");
    namespace.write(path.as_ref(), text)?;
    namespace.exec("wg", &["setconf", device, &path])?;
    Ok(())
}
