//! Two nodes of one mesh, each behind a NAT box or not: what direct paths are tried with.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use peer_test_control::account::{Account, Action, Policy, Protocol, SetupKey};
use peer_test_control::{Options, Server, StunServer};
use serde_json::Value;

use super::addresses::SERVERS;
use super::binaries::find_daemon;
use super::config::NodeConfig;
use super::internet::Internet;
use super::namespace::Namespace;
use super::nat::{NatBox, NatKind};
use super::node::{Capabilities, Node, NodeJoining};
use super::ping::ping;
use super::traffic::wait_for;

const PORT: u16 = 8080;
const STUN_PORT: u16 = 3478;
/// Numbers at the wire.
const NUMBERS: [u8; 2] = [10, 20];
/// Time of one attempt to get an echo.
const ATTEMPT: Duration = Duration::from_millis(200);

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// At the internet itself.
    Open,
    /// Behind a box of this kind.
    Behind(NatKind),
}

/// Servers and two nodes; the daemons start as told.
pub struct Peers {
    /// The nodes.
    pub nodes: [Node; 2],
    /// What is between each of them and the internet.
    pub boxes: [Option<NatBox>; 2],
    /// Management, signal and relay.
    pub server: Server,
    /// The wire.
    pub internet: Internet,
    /// Tells the nodes their mappings.
    pub stun: StunServer,
}

/// How two nodes found each other.
#[derive(Clone, Debug)]
pub struct Met {
    /// From both in both maps until the first echo.
    pub first_echo: Duration,
    /// `P2P` or `Relayed`, as the first node sees it.
    pub connection: String,
}

impl Peers {
    /// Builds it. The servers run; neither daemon does.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn prepare(sites: [Site; 2]) -> Result<Self> {
        let internet = Internet::new()?;
        let stun = internet.stun_server(SocketAddr::new(SERVERS, STUN_PORT))?;
        let mut options = Options::new(&format!("{SERVERS}:{PORT}"));
        options.stuns = vec![format!("stun:{SERVERS}:{STUN_PORT}")];
        let mut account = Account { policies: Vec::new(), ..Account::default() };
        let group = "nodes";
        let key = account.add_setup_key(SetupKey { auto_groups: vec![group.to_owned()], ..SetupKey::reusable() });
        account.policies.push(Policy::new("all", Action::Accept, Protocol::All, &[group], &[group]));
        let url = options.url();
        let server = Server::start(options, account, internet.listener(PORT))?;
        let mut boxes = [None, None];
        let mut nodes = Vec::new();
        for (at, site) in sites.into_iter().enumerate() {
            let hostname = format!("peer{at}");
            let namespace = Namespace::new(&hostname)?;
            let number = NUMBERS[at];
            match site {
                Site::Open => internet.attach(&namespace, "eth0", number)?,
                Site::Behind(kind) => {
                    let nat = NatBox::new(&internet.wire(), kind, number)?;
                    nat.inside().attach(&namespace, "eth0", 2)?;
                    boxes[at] = Some(nat);
                }
            }
            let config = NodeConfig::serving_lan(String::new(), 51820);
            let mut node = Node::new(namespace, config, Capabilities::Deployed, &find_daemon()?)?;
            node.joining = Some(NodeJoining {
                url: url.clone(),
                setup_key: Some(key.clone()),
                hostname,
                ephemeral: "no",
                environment: Vec::new(),
            });
            nodes.push(node);
        }
        let nodes = nodes.try_into().ok().context("two nodes")?;
        Ok(Self { nodes, boxes, server, internet, stun })
    }

    /// Starts both daemons and waits until each has the other in its map; when that was.
    ///
    /// # Errors
    /// A daemon does not start.
    pub fn start(&mut self) -> Result<Instant> {
        for node in &mut self.nodes {
            node.start()?;
        }
        let mapped = || self.nodes.iter().all(|node| overview(node).is_ok_and(|status| status["peers"]["total"] == 1));
        ensure!(wait_for(Duration::from_secs(10), mapped), "the nodes are not in each other's map");
        Ok(Instant::now())
    }

    /// Starts both daemons; how and when they meet.
    ///
    /// # Errors
    /// They do not start, or do not meet in time.
    pub fn meet(&mut self, limit: Duration) -> Result<Met> {
        let begun = self.start()?;
        let to = self.overlay(1)?;
        let echoed = || ping(&self.nodes[0].namespace, to, 1, ATTEMPT).is_ok_and(|pings| pings.all_answered());
        ensure!(wait_for(limit, echoed), "no echo within {limit:?}");
        let first_echo = begun.elapsed();
        Ok(Met { first_echo, connection: self.connection(0)? })
    }

    /// How a node is connected with the other: `P2P`, `Relayed` or `-`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn connection(&self, of: usize) -> Result<String> {
        let peer = self.peer(of)?;
        Ok(peer["connectionType"].as_str().unwrap_or_default().to_owned())
    }

    /// The other node, as a node's status has it.
    ///
    /// # Errors
    /// It does not answer.
    pub fn peer(&self, of: usize) -> Result<Value> {
        Ok(overview(&self.nodes[of])?["peers"]["details"][0].take())
    }

    /// A node's address on the overlay.
    ///
    /// # Errors
    /// It does not answer, or has none yet.
    pub fn overlay(&self, of: usize) -> Result<IpAddr> {
        let status = overview(&self.nodes[of])?;
        let text = status["netbirdIp"].as_str().context("netbirdIp")?;
        Ok(text.split('/').next().unwrap_or_default().parse()?)
    }
}

fn overview(node: &Node) -> Result<Value> {
    Ok(serde_json::from_str(&node.status_text(&["--json"])?)?)
}
