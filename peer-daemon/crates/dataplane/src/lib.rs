//! Dataplanes: what forwards packets between wt0 and the uplinks.
//!
//! - [`Dataplane`]: the trait that each of them implements, [`Intent`] what it is told, [`Stats`] what it tells;
//! - [`ebpf`]: TC programs in the kernel;
//! - [`kernel`]: links, addresses and routes of the node, by netlink;
//! - [`flows`]: the flows that it holds, for those who want to see them;
//! - [`observe`]: what happens to flows and packets, for those who want to know;
//! - [`trace`]: what becomes of a packet, stage by stage;
//! - [`nat_ports`]: the ports that source NAT takes where nobody says which;
//! - [`doctor`]: what stands in the way, with its owner and the remedy;
//! - [`driver`]: the task that keeps a dataplane in step with the kernel.

mod capabilities;
pub mod chain;
mod configuration;
pub mod doctor;
pub mod driver;
pub mod ebpf;
mod error;
pub mod flows;
mod intent;
pub mod kernel;
pub mod metrics;
pub mod nat_ports;
mod netfilter;
pub mod observe;
mod readiness;
mod stats;
mod sys;
pub mod tc;
pub mod trace;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

pub use capabilities::Capabilities;
pub use configuration::Configuration;
pub use error::Error;
pub use intent::{DEFAULT_NAT_PORTS, Intent, Listener, PeerPrefixes, Wt0};
pub use readiness::{Latches, ReadyRoutes};
pub use stats::{Attachment, Collected, Mode, PolicyUpdate, ProgramStats, Repairs, RouteStats, Stats};

/// What forwards packets.
pub trait Dataplane: Send + 'static {
    /// Which one this is, and why it was chosen.
    fn mode(&self) -> Mode;

    /// Makes the dataplane do what `intent` asks, given the node's links, addresses and routes. Only differences are
    /// written; nothing that stays is interrupted. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses; what was in force stays in force.
    fn apply(&mut self, intent: &Intent, node: &kernel::Snapshot) -> Result<(), Error>;

    /// Follows what has changed on the node: neighbours, and ways that may be others now. Links and addresses come by
    /// [`Dataplane::apply`], before this.
    ///
    /// # Errors
    /// When the tables cannot be written.
    fn follow_ways(&mut self, changes: &kernel::Changes) -> Result<(), Error>;

    /// Makes up for changes of neighbours that may have been missed; `all` are those that the kernel knows.
    ///
    /// # Errors
    /// When the tables cannot be written.
    fn follow_neighbours(&mut self, all: &[kernel::Neighbour]) -> Result<(), Error>;

    /// Neighbours that flows need, and that have not answered the kernel: some of them at each call, all in turn. Each an
    /// interface index and an address.
    ///
    /// # Errors
    /// When the tables cannot be read.
    fn silent_neighbours(&mut self) -> Result<Vec<(u32, std::net::IpAddr)>, Error>;

    /// Removes expired flows.
    ///
    /// # Errors
    /// When the tables cannot be read.
    fn collect_garbage(&mut self) -> Result<Collected, Error>;

    /// Looks whether all is still in place, and mends what is ours.
    ///
    /// # Errors
    /// When something is missing and cannot be put back.
    fn reconcile(&mut self) -> Result<(), Error>;

    /// What stands in the way on this node. Reads only.
    fn examine(&self, intent: &Intent, node: &kernel::Snapshot) -> Vec<doctor::Finding>;

    /// Figures.
    ///
    /// # Errors
    /// When the tables cannot be read.
    fn stats(&self) -> Result<Stats, Error>;

    /// A reader of the flows held under `intent`, the one in force.
    ///
    /// # Errors
    /// When the tables cannot be shared.
    fn flows(&self, intent: &Arc<Intent>) -> Result<flows::FlowReader, Error>;

    /// What would become of a packet from the mesh: nothing is sent, and nothing is changed.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn describe(&self, packet: &trace::Packet) -> Result<peer_common::FlowEvent, Error>;

    /// Follows packets for so long, or follows none any more. They go to the observer.
    ///
    /// # Errors
    /// When the programs cannot be told.
    fn follow(&mut self, follow: Option<(&observe::Follow, Duration)>) -> Result<(), Error>;

    /// Ends. With `keep` everything goes on forwarding; without, nothing of ours is left.
    ///
    /// # Errors
    /// When something could not be removed.
    fn shutdown(self: Box<Self>, keep: bool) -> Result<(), Error>;
}
