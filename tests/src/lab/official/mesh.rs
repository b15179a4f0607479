//! A mesh of official servers, our node, and official clients.

use anyhow::{Context as _, Result};
use peer_test_control::member::Habits;
use serde_json::{Value, json};

use super::{Api, Official, OfficialClient, OfficialServer, Paths};
use crate::lab::addresses::{BEHIND_NETWORK, BEHIND_NETWORK6, LAN, LAN6};
use crate::lab::binaries::find_daemon;
use crate::lab::config::NodeConfig;
use crate::lab::gateway::Gateway;
use crate::lab::internet::Internet;
use crate::lab::member::Joining;
use crate::lab::mesh::{MEMBERS, ROUTERS, SERVICES};
use crate::lab::namespace::Namespace;
use crate::lab::node::{Capabilities, Node, NodeJoining};
use crate::lab::topology::lan;

const PORT: u16 = 8080;
/// The node's number at the wire; clients follow.
const NODE: u8 = 1;

/// Servers, node and service; clients join. Nothing of it is left when it is dropped.
pub struct OfficialMesh {
    /// The node.
    pub node: Node,
    /// The service.
    pub gateway: Gateway,
    /// The servers.
    pub server: OfficialServer,
    /// The account.
    pub api: Api,
    /// The wire.
    pub internet: Internet,
    /// Id of the network that the node routes for.
    pub network: String,
    /// Lets nodes in.
    pub node_key: String,
    /// Lets nodes in that go when they are away.
    pub ephemeral_key: String,
    /// Services of other nodes, kept as long as the mesh is.
    pub kept: Vec<Gateway>,
    /// By which paths clients that join from now on may be reached.
    pub paths: Paths,
    member_key: String,
    official: Official,
    next: u8,
}

impl OfficialMesh {
    /// Builds it: members may use everything on the LAN. Neither the daemon runs yet, nor has anybody joined.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn prepare(official: Official, capabilities: Capabilities) -> Result<Self> {
        let internet = Internet::new()?;
        let server = OfficialServer::start(internet.clone(), &official, PORT)?;
        Self::around(internet, server, official, capabilities)
    }

    /// As [`Self::prepare`], with servers that are programs of their own. `None`: they are not there.
    ///
    /// # Errors
    /// A program fails.
    pub fn prepare_apart(official: Official, capabilities: Capabilities) -> Result<Option<Self>> {
        let Some(programs) = &official.apart else { return Ok(None) };
        let internet = Internet::new()?;
        let server = OfficialServer::start_apart(internet.clone(), programs, PORT)?;
        Self::around(internet, server, official, capabilities).map(Some)
    }

    fn around(
        internet: Internet,
        server: OfficialServer,
        official: Official,
        capabilities: Capabilities,
    ) -> Result<Self> {
        let api = server.set_up()?;
        let default = api.find("/api/policies", "Default")?;
        api.call("DELETE", &format!("/api/policies/{}", super::api::id(&default)?), None)?;
        let [routers, members, services] = [ROUTERS, MEMBERS, SERVICES].map(|name| api.group(name));
        let (routers, members, services) = (routers?, members?, services?);
        let network = serving_lan(&api, &routers, &services)?;
        api.create("/api/policies", &policy("members-lan", "accept", "all", &members, &services, &[]))?;
        let node_key = api.setup_key("nodes", false, &[&routers])?;
        let ephemeral_key = api.setup_key("passing nodes", true, &[&routers])?;
        let member_key = api.setup_key("members", false, &[&members])?;
        let (namespace, gateway) = lan("node")?;
        internet.attach(&namespace, "eth1", NODE)?;
        let config = NodeConfig::serving_lan(String::new(), 51820);
        let mut node = Node::new(namespace, config, capabilities, &find_daemon()?)?;
        node.joining = Some(NodeJoining {
            url: server.url(),
            setup_key: Some(node_key.clone()),
            hostname: "node".to_owned(),
            ephemeral: "no",
            environment: Vec::new(),
        });
        Ok(Self {
            node,
            gateway,
            server,
            api,
            internet,
            network,
            node_key,
            ephemeral_key,
            kept: Vec::new(),
            paths: Paths::default(),
            member_key,
            official,
            next: NODE + 1,
        })
    }

    /// Lets one more official client join.
    ///
    /// # Errors
    /// It does not join.
    pub fn join(&mut self) -> Result<OfficialClient> {
        let name = format!("member{}", self.next - NODE);
        let namespace = Namespace::new(&name)?;
        let key = self.member_key.clone();
        self.join_from(namespace, "eth0", &name, key)
    }

    /// Lets an official client join as a router, from a namespace that has the LAN.
    ///
    /// # Errors
    /// It does not join.
    pub fn join_router(&mut self, namespace: Namespace) -> Result<OfficialClient> {
        let key = self.node_key.clone();
        self.join_from(namespace, "eth1", "official-node", key)
    }

    /// A peer as the API shows it.
    ///
    /// # Errors
    /// There is none of this host name.
    pub fn peer(&self, hostname: &str) -> Result<Value> {
        let peers = self.api.call("GET", "/api/peers", None)?;
        let found = peers.as_array().and_then(|peers| peers.iter().find(|peer| peer["hostname"] == hostname).cloned());
        found.with_context(|| format!("no peer {hostname} in {peers}"))
    }

    /// Puts a policy from members to the LAN into force; its id.
    ///
    /// # Errors
    /// The servers refuse.
    pub fn add_policy(&self, name: &str, action: &str, protocol: &str, ports: &[u16]) -> Result<String> {
        let group = |name| super::api::id(&self.api.find("/api/groups", name)?);
        let policy = policy(name, action, protocol, &group(MEMBERS)?, &group(SERVICES)?, ports);
        self.api.create("/api/policies", &policy)
    }

    fn join_from(
        &mut self,
        namespace: Namespace,
        device: &str,
        name: &str,
        setup_key: String,
    ) -> Result<OfficialClient> {
        self.internet.attach(&namespace, device, self.next)?;
        self.next += 1;
        let url = self.server.url();
        let joining = Joining { url, setup_key, hostname: name.to_owned(), habits: Habits::default() };
        OfficialClient::join(namespace, &self.official, &joining, self.paths)
    }
}

fn serving_lan(api: &Api, routers: &str, services: &str) -> Result<String> {
    let network = api.create("/api/networks", &json!({"name": "lan"}))?;
    for (name, prefix) in [("lan4", LAN), ("lan6", LAN6), ("behind4", BEHIND_NETWORK), ("behind6", BEHIND_NETWORK6)] {
        let body = json!({"name": name, "address": prefix, "enabled": true, "groups": [services]});
        api.create(&format!("/api/networks/{network}/resources"), &body)?;
    }
    let body = json!({"peer_groups": [routers], "metric": 9999, "masquerade": true, "enabled": true});
    api.create(&format!("/api/networks/{network}/routers"), &body)?;
    Ok(network)
}

fn policy(name: &str, action: &str, protocol: &str, from: &str, to: &str, ports: &[u16]) -> Value {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    let mut rule = json!({
        "name": name, "enabled": true, "action": action, "protocol": protocol, "bidirectional": ports.is_empty(),
        "sources": [from], "destinations": [to],
    });
    if !ports.is_empty() {
        rule["ports"] = json!(ports);
    }
    json!({"name": name, "enabled": true, "rules": [rule]})
}
