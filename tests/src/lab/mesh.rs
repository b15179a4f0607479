//! The lab with a control plane: servers at one wire, the node and members that join.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use peer_test_control::account::{
    Account, Action, Destination, Network, Policy, Protocol, Resource, Router, Routers, SetupKey,
};
use peer_test_control::member::Habits;
use peer_test_control::{Options, Server};

use super::addresses::{BEHIND_NETWORK, BEHIND_NETWORK6, LAN, LAN6, SERVERS};
use super::binaries::Binaries;
use super::config::NodeConfig;
use super::gateway::{Gateway, HTTP_PORT};
use super::http::get_within;
use super::internet::Internet;
use super::member::{Joining, Member};
use super::namespace::Namespace;
use super::node::{Capabilities, Node, NodeJoining};
use super::topology::lan;
use super::traffic::wait_for;
use super::tunnel::Tunnel;

/// Port of management, and of signal and relay unless they are apart.
const PORT: u16 = 8080;
/// Port of signal and relay when they are apart.
const CARRIER_PORT: u16 = 8081;
/// The node's number at the wire; members follow.
const NODE: u8 = 1;
/// Time of one attempt to connect.
const ATTEMPT: Duration = Duration::from_millis(250);
/// Group of the node.
pub const ROUTERS: &str = "routers";
/// Group of members.
pub const MEMBERS: &str = "members";
/// Group of what is on the LAN.
pub const SERVICES: &str = "lan";

/// What a mesh should be like.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeshPlan {
    /// What the daemon may do.
    pub capabilities: Capabilities,
    /// Signal and relay are a server of their own, which lives on when management ends.
    pub carriers_apart: bool,
}

/// Servers, node, service and members. Nothing of it is left when it is dropped.
pub struct Mesh {
    /// Members that have joined.
    pub members: Vec<Member>,
    /// The node.
    pub node: Node,
    /// The service.
    pub gateway: Gateway,
    /// Management; signal and relay, unless they are apart.
    pub server: Server,
    /// Signal and relay, if they are apart.
    pub carriers: Option<Server>,
    /// The wire.
    pub internet: Internet,
    /// Lets members in.
    pub member_key: String,
    /// What makes the members' tunnels.
    pub tunnel: Tunnel,
    next: u8,
}

impl Mesh {
    /// Builds it. The servers run; neither does the daemon, nor has anybody joined.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn prepare(plan: &MeshPlan, binaries: &Binaries) -> Result<Self> {
        Self::prepare_with(plan, binaries, |_, _| ())
    }

    /// As [`Self::prepare`], with other options or another account.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn prepare_with(
        plan: &MeshPlan,
        binaries: &Binaries,
        change: impl FnOnce(&mut Options, &mut Account),
    ) -> Result<Self> {
        let internet = Internet::new()?;
        let mut options = Options::new(&format!("{SERVERS}:{PORT}"));
        let mut carriers = None;
        if plan.carriers_apart {
            let address = format!("{SERVERS}:{CARRIER_PORT}");
            options.signal = Some(address.clone());
            options.relays = Some(vec![format!("rel://{address}")]);
            let bind = internet.listener(CARRIER_PORT);
            carriers = Some(Server::start(Options::new(&address), Account::default(), bind)?);
        }
        let mut account = account_serving_lan()?;
        let key = |group: &str| SetupKey { auto_groups: vec![group.to_owned()], ..SetupKey::reusable() };
        let member_key = account.add_setup_key(key(MEMBERS));
        let node_key = account.add_setup_key(key(ROUTERS));
        change(&mut options, &mut account);
        let joining = NodeJoining {
            url: options.url(),
            setup_key: Some(node_key),
            hostname: "node".to_owned(),
            ephemeral: "no",
            environment: Vec::new(),
        };
        let server = Server::start(options, account, internet.listener(PORT))?;
        let (namespace, gateway) = lan("node")?;
        internet.attach(&namespace, "eth1", NODE)?;
        let config = NodeConfig::serving_lan(String::new(), 51820);
        let mut node = Node::new(namespace, config, plan.capabilities, &binaries.daemon)?;
        node.joining = Some(joining);
        let tunnel = binaries.tunnel.clone();
        Ok(Self { members: Vec::new(), node, gateway, server, carriers, internet, member_key, tunnel, next: NODE + 1 })
    }

    /// Builds it, starts the daemon, and lets one member join.
    ///
    /// # Errors
    /// As [`Self::prepare`] and [`Node::start`].
    pub fn start(plan: &MeshPlan) -> Result<Self> {
        let mut mesh = Self::prepare(plan, &Binaries::find()?)?;
        mesh.node.start()?;
        mesh.join(Habits::default())?;
        Ok(mesh)
    }

    /// Lets one more member join.
    ///
    /// # Errors
    /// A program fails.
    pub fn join(&mut self, habits: Habits) -> Result<&Member> {
        let (namespace, joining) = self.newcomer(habits)?;
        self.members.push(Member::join(namespace, &self.tunnel, joining)?);
        self.members.last().context("joined")
    }

    /// A namespace that reaches the servers, and what somebody in it needs to join.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn newcomer(&mut self, habits: Habits) -> Result<(Namespace, Joining)> {
        let hostname = format!("member{}", self.next - NODE);
        let namespace = Namespace::new(&hostname)?;
        self.internet.attach(&namespace, "eth0", self.next)?;
        self.next += 1;
        let joining = Joining { url: self.server.url(), setup_key: self.member_key.clone(), hostname, habits };
        Ok((namespace, joining))
    }

    /// The only member, or the first.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.members[0]
    }

    /// The server that carries signal and relay.
    #[must_use]
    pub fn carrier(&self) -> &Server {
        self.carriers.as_ref().unwrap_or(&self.server)
    }

    /// The node's public key, as management knows it.
    ///
    /// # Errors
    /// It has not registered.
    pub fn node_peer(&self) -> Result<String> {
        let key = self.server.look(|account| account.peer_named("node").map(|peer| peer.key.clone()));
        key.context("the node has not registered")
    }

    /// Inodes of all network namespaces.
    ///
    /// # Errors
    /// As [`Namespace::id`].
    pub fn namespace_ids(&self) -> Result<Vec<u64>> {
        let members = self.members.iter().map(|member| &member.namespace);
        let others = [&self.node.namespace, &self.gateway.namespace, &self.internet.namespace];
        members.chain(others).map(Namespace::id).collect()
    }
}

/// Asks for a service's page until it comes, and returns it. Each attempt is short: what is measured by it must not
/// wait for TCP's own repetitions.
///
/// # Errors
/// It does not come in time, or is another page.
pub fn page_within(limit: Duration, from: &Namespace, service: IpAddr) -> Result<String> {
    let mut answer = None;
    let mut trouble = String::new();
    wait_for(limit, || match get_within(ATTEMPT, from, (service, HTTP_PORT).into(), "/") {
        Ok(page) => {
            answer = Some(page);
            true
        }
        Err(error) => {
            trouble = format!("{error:#}");
            false
        }
    });
    let (status, page) = answer.with_context(|| format!("no page within {limit:?}: {trouble}"))?;
    ensure!(status == 200, "status {status}");
    Ok(page)
}

/// Members may use everything on the LAN; nobody may talk to the node itself.
fn account_serving_lan() -> Result<Account> {
    let mut account = Account { groups: BTreeMap::new(), policies: Vec::new(), ..Account::default() };
    let mut network = Network { id: "lan".to_owned(), ..Network::default() };
    for (name, prefix) in [("lan4", LAN), ("lan6", LAN6), ("behind4", BEHIND_NETWORK), ("behind6", BEHIND_NETWORK6)] {
        network.resources.push(Resource {
            id: format!("resource-{name}"),
            name: name.to_owned(),
            destination: Destination::Prefix(prefix.parse()?),
            groups: vec![SERVICES.to_owned()],
            enabled: true,
        });
    }
    let routers = Routers::Groups(vec![ROUTERS.to_owned()]);
    network.routers.push(Router { routers, metric: 9999, masquerade: true, enabled: true });
    account.networks.push(network);
    account.policies.push(Policy::new("members-lan", Action::Accept, Protocol::All, &[MEMBERS], &[SERVICES]));
    Ok(account)
}
