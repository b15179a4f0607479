//! A NetBird network as the control plane: what its servers say becomes what the node does.
//!
//! [`agent::Agent`] is the one task that ties the parts together; everything that decides is sans-IO and elsewhere:
//! `peer-netmap` (what a map means), `peer-mesh` (when to connect to whom), `peer-netbird` (the servers).

mod agent;
mod dial;
mod direct;
mod facts;
mod keep;
mod messages;
mod metrics;
mod overview;
mod settings;
mod view;

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use peer_dataplane::Configuration;
use peer_identity::{Error, Identity, StateDir};

use self::agent::Agent;
use self::settings::Settings;
pub(crate) use self::view::View;
use crate::cli::{EXIT_CONFIG, UpArgs};
use crate::up;

/// Runs a member of a NetBird network until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part of it fails.
pub(crate) fn run(args: &UpArgs) -> anyhow::Result<ExitCode> {
    // What is wrong with the settings is said before anything is opened or registered.
    if let Err(error) = settings::check(args) {
        eprintln!("peer-daemon: {error}");
        return Ok(ExitCode::from(EXIT_CONFIG));
    }
    let path = &args.socket.state_dir;
    let dir = Arc::new(StateDir::open(path).map_err(|error| refused(error, path))?);
    let elsewhere = settings::elsewhere(args);
    let identity = Identity::find(&dir, &elsewhere).map_err(|error| refused(error, path))?;
    tracing::info!(public_key = %identity.private_key.public_key(), origin = ?identity.origin, "identity");
    let settings = match Settings::resolve(args, &identity.private_key, &identity.settings) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("peer-daemon: {error}");
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let dataplane =
        up::open_dataplane(args, &settings.interface_name, settings.listen_port.wanted(), Configuration::NetBird)?;
    up::runtime()?.block_on(async {
        let agent = Agent::open(args, settings, dir, identity, dataplane).await?;
        agent.live().await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Explains a state directory that belongs to somebody else. Root, too, is refused there: CAP_DAC_OVERRIDE is given up.
fn refused(error: Error, path: &Path) -> anyhow::Error {
    let denied = match &error {
        Error::Io { source, path, .. } if source.kind() == ErrorKind::PermissionDenied => Some(path.clone()),
        _ => None,
    };
    let Some(denied) = denied else { return error.into() };
    let own = rustix::process::geteuid().as_raw();
    let user = if own == 0 { "root".to_owned() } else { own.to_string() };
    // Of what is there: the file may be in a directory that is not.
    let owner = denied.ancestors().find_map(|path| std::fs::metadata(path).ok()).map(|found| found.uid());
    let path = path.display();
    match owner {
        Some(owner) if owner != own => anyhow::anyhow!(
            "the state is uid {owner}'s, and the daemon runs as uid {own}: chown -R {user}: {path}, or run it as uid {owner} (in a \
             pod: securityContext.runAsUser): {error}"
        ),
        _ => {
            anyhow::anyhow!("the daemon runs as uid {own}, which may not write there: chown -R {user}: {path}: {error}")
        }
    }
}
