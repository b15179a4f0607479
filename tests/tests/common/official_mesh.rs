//! A mesh of official servers and clients for scenarios that need `NETBIRD_BIN_DIR`.

use std::sync::MutexGuard;

use peer_tests::lab::{Capabilities, OfficialMesh, Paths};
use serde_json::Value;

use super::{alone, official, tell};

/// One mesh at a time: official programs share files of the machine.
pub(crate) struct Heavy {
    pub(crate) _alone: MutexGuard<'static, ()>,
    pub(crate) mesh: OfficialMesh,
}

/// A mesh whose clients use these paths, or why scenarios that need it are ignored.
pub(crate) fn official_mesh(paths: Paths) -> Result<Heavy, String> {
    let (official, _alone) = (official()?.clone(), alone());
    tell(&format!("official programs {}", official.version));
    let mut mesh = OfficialMesh::prepare(official, Capabilities::Deployed).expect("official servers");
    mesh.paths = paths;
    Ok(Heavy { _alone, mesh })
}

/// What the node's `status --json` says.
pub(crate) fn status(mesh: &OfficialMesh) -> Value {
    serde_json::from_str(&mesh.node.status_text(&["--json"]).expect("status")).expect("JSON")
}

/// The node's public key.
pub(crate) fn node_key(mesh: &OfficialMesh) -> String {
    status(mesh)["publicKey"].as_str().expect("a key").to_owned()
}
