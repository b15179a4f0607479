//! Where the story plays: the lab of either control plane.

use anyhow::{Context as _, Result, ensure};
use peer_test_control::member::Habits;

use super::Control;
use crate::lab::{Binaries, Capabilities, Gateway, Lab, Mesh, MeshPlan, Namespace, Node, Plan, wait_for};

/// The lab, and who is who in it.
pub(crate) enum Stage {
    /// Keys and endpoints from a file.
    Static(Box<Lab>),
    /// Everything from management; packets by the relay.
    Netbird(Box<Mesh>),
}

impl Stage {
    /// Builds it; the daemon does not run yet.
    pub(crate) fn prepare(control: Control, capabilities: Capabilities, binaries: &Binaries) -> Result<Self> {
        match control {
            Control::Static => {
                let plan = Plan { capabilities, ..Plan::default() };
                Lab::prepare(&plan, binaries).map(Box::new).map(Self::Static)
            }
            Control::Netbird => {
                let plan = MeshPlan { capabilities, ..MeshPlan::default() };
                Mesh::prepare(&plan, binaries).map(Box::new).map(Self::Netbird)
            }
        }
    }

    /// Starts the daemon and lets the remote join.
    pub(crate) fn up(&mut self) -> Result<()> {
        match self {
            Self::Static(lab) => lab.up(),
            Self::Netbird(mesh) => {
                mesh.node.start()?;
                mesh.join(Habits::default())?;
                let member = mesh.member();
                let mapped = wait_for(super::story::SECOND * 10, || member.heard().map.is_some());
                ensure!(mapped, "the remote has no map: {:?}", member.heard().trouble);
                Ok(())
            }
        }
    }

    /// Who is who, in one line.
    pub(crate) fn cast(&self) -> &'static str {
        match self {
            Self::Static(_) => {
                "Three namespaces: remote (wireguard-go) ── node (peer-daemon) ── gateway (HTTP, no route back)"
            }
            Self::Netbird(_) => {
                "Four namespaces: remote (wireguard-go) ── internet (management, signal, relay) ── node (peer-daemon) ── \
                 gateway (HTTP, no route back)"
            }
        }
    }

    /// How the remote's packets come to the node, in one line.
    pub(crate) fn way(&self) -> &'static str {
        match self {
            Self::Static(_) => "UDP 51820",
            Self::Netbird(_) => "relay: WebSocket frames over TCP",
        }
    }

    pub(crate) fn remote(&self) -> &Namespace {
        match self {
            Self::Static(lab) => &lab.client().namespace,
            Self::Netbird(mesh) => &mesh.member().namespace,
        }
    }

    pub(crate) fn node(&self) -> &Node {
        match self {
            Self::Static(lab) => &lab.node,
            Self::Netbird(mesh) => &mesh.node,
        }
    }

    pub(crate) fn node_mut(&mut self) -> &mut Node {
        match self {
            Self::Static(lab) => &mut lab.node,
            Self::Netbird(mesh) => &mut mesh.node,
        }
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        match self {
            Self::Static(lab) => &lab.gateway,
            Self::Netbird(mesh) => &mesh.gateway,
        }
    }

    pub(crate) fn gateway_mut(&mut self) -> &mut Gateway {
        match self {
            Self::Static(lab) => &mut lab.gateway,
            Self::Netbird(mesh) => &mut mesh.gateway,
        }
    }

    /// Inodes of all network namespaces.
    pub(crate) fn namespace_ids(&self) -> Result<Vec<u64>> {
        match self {
            Self::Static(lab) => lab.namespace_ids(),
            Self::Netbird(mesh) => mesh.namespace_ids(),
        }
    }

    /// What management knows of the node; `None`: there is no management.
    pub(crate) fn registration(&self) -> Option<Result<String>> {
        let Self::Netbird(mesh) = self else { return None };
        Some(registration(mesh))
    }
}

fn registration(mesh: &Mesh) -> Result<String> {
    let key = mesh.node_peer()?;
    let (name, version, address) = mesh
        .server
        .look(|account| {
            let peer = account.peers.get(&key)?;
            Some((peer.name.clone(), peer.meta.netbird_version.clone(), peer.address))
        })
        .context("registered")?;
    let keys = mesh.server.seen().setup_keys;
    ensure!(keys == 2, "{keys} setup keys shown by two peers");
    let frames = mesh.server.relay_frames();
    ensure!(frames > 0, "nothing came through the relay");
    Ok(format!("{name}, version {version}, {address}; {frames} frames through the relay"))
}
