//! The control plane as a program, for trying things by hand: in a namespace, say, by `ip netns exec`.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context as _, Result};
use clap::Parser;
use ipnet::IpNet;
use peer_test_control::account::{Action, Network, Policy, Protocol, Routers, SetupKey};
use peer_test_control::{Account, Options, Server, StunServer, TurnServer};
use tokio::runtime::Builder;
use tokio::signal::ctrl_c;

/// NetBird servers for tests: management, signal and relay on one port, without TLS and without a store.
#[derive(Parser)]
struct Cli {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Host and port by which peers reach it; what it listens at, unless told.
    #[arg(long)]
    exposed: Option<String>,
    /// A prefix that nodes route for: everybody may use it.
    #[arg(long)]
    lan: Vec<IpNet>,
    /// Where to run a STUN server; peers get it.
    #[arg(long)]
    stun: Vec<SocketAddr>,
    /// Where to run a TURN server, which relays from the same address; peers get it.
    #[arg(long)]
    turn: Vec<SocketAddr>,
    /// Nodes go for good when they have been away for ten minutes.
    #[arg(long)]
    ephemeral: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut account = Account::default();
    let nodes = SetupKey { auto_groups: vec!["routers".to_owned()], ephemeral: cli.ephemeral, ..SetupKey::reusable() };
    let (nodes, members) = (account.add_setup_key(nodes), account.add_setup_key(SetupKey::reusable()));
    for prefix in &cli.lan {
        let id = prefix.to_string();
        account.networks.push(Network::of_prefix(&id, *prefix, Routers::Groups(vec!["routers".to_owned()])));
        account.policies.push(Policy::new(&id, Action::Accept, Protocol::All, &["All"], &[&id]));
    }
    let exposed = cli.exposed.unwrap_or_else(|| cli.listen.to_string());
    let listen = cli.listen;
    let mut options = Options::new(&exposed);
    let stun = |at: &SocketAddr| {
        let at = *at;
        StunServer::start(move || UdpSocket::bind(at))
    };
    let stuns = cli.stun.iter().map(stun).collect::<Result<Vec<_>>>()?;
    options.stuns = stuns.iter().map(StunServer::uri).collect();
    let turn = |at: &SocketAddr| TurnServer::start(*at, &[at.ip()], &options.turns.secret, UdpSocket::bind);
    let turns = cli.turn.iter().map(turn).collect::<Result<Vec<_>>>()?;
    options.turns.uris = turns.iter().map(TurnServer::uri).collect();
    let server = Server::start(options, account, move || TcpListener::bind(listen))?;
    println!("management {}\nsetup key of nodes {nodes}\nsetup key of members {members}", server.url());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ctrl_c()).context("wait for the end")
}
