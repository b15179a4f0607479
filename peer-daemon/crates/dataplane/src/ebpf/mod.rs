//! The eBPF dataplane: TC programs on wt0 and the uplinks, fed by maps that outlive the daemon.

mod ages;
mod attach;
mod describe;
mod difference;
mod events;
pub(crate) mod expiry;
mod gc;
mod load;
mod lock;
mod log;
pub(crate) mod next_hops;
mod peers;
mod pins;
mod plan;
mod policy;
mod policy_tables;
mod ports;
mod tables;

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use ipnet::IpNet;
use peer_common::layout::program;
use peer_common::{Addr, Config, Counter, Direction, DropReason, FlowEvent, FlowKey, Observe};
use peer_core::desired::{Route, Rule};

use self::ages::Ages;
use self::attach::{Attachments, Place};
use self::describe::Describer;
use self::events::Events;
use self::gc::Scan;
use self::pins::PinDirs;
use self::plan::Plan;
use self::policy::Policies;
pub use self::policy::Policy;
use self::ports::PortCounts;
use self::tables::Tables;
use crate::capabilities::Capabilities;
use crate::doctor::{self, Check, Finding, Severity, Subject};
use crate::flows::{self, FlowReader};
use crate::kernel::{Changes, Neighbour, Ways};
use crate::observe::{CloseReason, Ended, Follow, Observer};
use crate::trace::Packet;
use crate::{
    Collected, Configuration, Dataplane, Error, Intent, Mode, PolicyUpdate, ProgramStats, RouteStats, Stats, kernel,
    sys,
};

pub(crate) use self::attach::Trace;
pub(crate) use self::gc::is_mapped;
pub(crate) use self::pins::pin_name;
pub(crate) use self::plan::{absent_sources, default_questions, default_uplinks, keeps_sources, questions, uplinks};

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// By TCX where the kernel has it (6.6), else as clsact filters.
    #[default]
    Auto,
    /// By TCX.
    Tcx,
    /// As clsact filters.
    Clsact,
}

/// What an operator chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Mount point of the bpffs.
    pub bpffs: PathBuf,
    /// Whether to refuse to run without it: programs and flows then end with the process.
    pub require_pins: bool,
    /// Flows that fit. Maps that are pinned already keep their size.
    pub flows: u32,
    /// How programs are attached.
    pub attach: Attach,
    /// As clsact filters: go ahead where Cilium's filter may come before ours.
    pub allow_unsafe_order: bool,
}

/// Longest that one scan holds flows against a changed policy: the rest waits for the next scan.
const SWEEP: Duration = Duration::from_millis(100);

/// The loaded programs and their maps.
pub struct EbpfDataplane {
    ebpf: Ebpf,
    tables: Tables,
    attachments: Attachments,
    dirs: PinDirs,
    /// Nothing of this version was pinned before.
    fresh: bool,
    /// Nothing of any version.
    first: bool,
    plan: Plan,
    routes: Vec<Route>,
    policies: Policies,
    policy_update: PolicyUpdate,
    scan: Scan,
    ages: Ages,
    hardened: bool,
    /// What the kernel's FIB lookups can tell besides.
    fib_flags: u32,
    /// Reads what the programs tell, from the first [`Dataplane::apply`] on.
    log: Option<log::LogTasks>,
    describer: Describer,
    /// From the first [`Dataplane::apply`] on.
    events: Option<Events>,
    observer: Observer,
    /// Whom packets are followed for, and until when; `None`: nobody.
    followed_until: Option<u64>,
    /// Flows that the change of policy still has to be held against, by those that were already.
    sweep: Option<HashSet<FlowKey>>,
    configuration: Configuration,
}

impl EbpfDataplane {
    /// Loads the programs for the device `wt0`. What an earlier life has pinned is taken over; nothing is attached yet.
    /// CAP_PERFMON, if there, is not needed any more after this.
    ///
    /// # Errors
    /// When the directory is no bpffs, capabilities are missing, or the kernel refuses the object.
    pub fn open(options: &Options, wt0: &str) -> Result<Self, Error> {
        if let Some(error) = Error::missing_capabilities() {
            return Err(error);
        }
        let dirs = PinDirs::create(&options.bpffs, wt0, options.require_pins)?;
        if !dirs.is_pinned() {
            let bpffs = options.bpffs.display();
            tracing::warn!(%bpffs, "no BPF file system: nothing is pinned, and flows end with this process; --require-pins refuses that");
        }
        let fresh = dirs.is_fresh();
        let first = fresh && dirs.others().is_empty();
        let loaded = Self::load(&dirs, wt0, options, fresh).map(|dataplane| Self { first, ..dataplane });
        loaded.inspect_err(|_| {
            if fresh && let Err(error) = dirs.remove_version() {
                tracing::warn!(%error, "pins could not be removed");
            }
        })
    }

    /// Tells `observer` what happens to flows and packets, from the first [`Dataplane::apply`] on.
    #[must_use]
    pub fn observed_by(mut self, observer: Observer) -> Self {
        self.observer = observer;
        self
    }

    /// What remedies may name.
    #[must_use]
    pub fn configured_by(mut self, configuration: Configuration) -> Self {
        self.configuration = configuration;
        self
    }

    /// Whether nothing was pinned for the device before: programs on a device that is there belong to a peer whose pins are
    /// elsewhere.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Takes away what [`EbpfDataplane::open`] has made, and nothing that was there before.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn abandon(self) -> Result<(), Error> {
        if self.fresh { self.dirs.remove_version() } else { Ok(()) }
    }

    fn load(dirs: &PinDirs, wt0: &str, options: &Options, fresh: bool) -> Result<Self, Error> {
        let mut ebpf = load::load(dirs, options.flows)?;
        let mut tables = Tables::take(&mut ebpf)?;
        if let Some(hash_key) = dirs.inherited_hash_key().filter(|_| fresh) {
            tables.set_config(|config| config.hash_key = hash_key)?;
        }
        let attachments = Attachments::new(dirs, wt0, options)?;
        Ok(Self {
            fresh,
            first: fresh,
            tables,
            attachments,
            dirs: dirs.clone(),
            plan: Plan::default(),
            routes: Vec::new(),
            policies: Policies::default(),
            policy_update: PolicyUpdate::default(),
            scan: Scan::default(),
            ages: Ages::new(sys::monotonic_coarse(), sys::since_boot()),
            hardened: !Capabilities::current().perfmon,
            fib_flags: sys::fib_flags().map_err(|source| Error::io("ask what FIB lookups tell", source))?,
            log: None,
            describer: Describer::take(&mut ebpf)?,
            events: None,
            observer: Observer::default(),
            followed_until: None,
            sweep: None,
            configuration: Configuration::default(),
            ebpf,
        })
    }

    /// Figures that every packet depends on. The hash key is made once and stays with the maps.
    fn write_config(&mut self, intent: &Intent) -> Result<(), Error> {
        let ports = &intent.nat_ports;
        let count = largest_prime(ports.len());
        let quarter = u32::try_from(self.tables.flows_max / 4).unwrap_or(u32::MAX);
        let quota = intent.peer_quota.unwrap_or(quarter);
        let (observe, interval) = self.observed();
        let fib_flags = self.fib_flags;
        self.tables.set_config(|config| {
            if config.hash_key == [0, 0] {
                config.hash_key = rand::random();
            }
            config.wt0 = intent.wt0.index;
            config.wt0_mtu = intent.wt0.mtu;
            config.nat_port_min = *ports.start();
            config.nat_port_count = count;
            config.fib_flags = fib_flags;
            config.peer_quota = quota;
            config.answers = if intent.reject { Config::REJECT } else { 0 };
            (config.observe, config.event_interval) = (observe, interval);
            (config.overlay4, config.overlay6) = (plan::overlay(intent, true), plan::overlay(intent, false));
        })
    }

    /// What the programs tell, and how often.
    fn observed(&self) -> (u32, u32) {
        let limits = self.observer.limits();
        let wanted = |wanted: bool, bit| if wanted { bit } else { 0 };
        let log = self.observer.has_sink();
        let observe = wanted(log, Observe::FLOWS)
            | wanted(log || limits.denied > 0, Observe::DROPS)
            | wanted(self.followed_until.is_some(), Observe::TRACE);
        (observe, 1_000_000_000 / limits.events_per_second.max(1))
    }

    /// Lets the programs tell what is wanted now.
    fn set_observed(&mut self) -> Result<(), Error> {
        let (observe, interval) = self.observed();
        self.tables.set_config(|config| (config.observe, config.event_interval) = (observe, interval))
    }

    /// Removes flows that the policy in force, routes or peers do not permit any more: all but a bounded number at once. The programs
    /// end TCP connections that stand, by the next packet of either end.
    fn sweep(&mut self) -> Result<(), Error> {
        let Some(asked) = &mut self.sweep else { return Ok(()) };
        let generation = self.tables.config()?.policy_generation;
        let pressure = expiry::pressure(self.scan.flows, self.tables.flows_max);
        let told = |ended: &Ended<'_>| self.observer.ended(ended);
        let tables = self.tables.flow_tables(&told);
        let revoked = |key: &FlowKey| self.describer.revoked(&self.ebpf, key);
        if tables.sweep(generation, (asked, Instant::now() + SWEEP), pressure, revoked)? {
            self.sweep = None;
        }
        Ok(())
    }

    /// Ends what nobody has ended: whoever followed is gone.
    fn end_following(&mut self) -> Result<(), Error> {
        if self.followed_until.is_some_and(|until| sys::monotonic_coarse() >= until) {
            self.followed_until = None;
            self.set_observed()?;
        }
        Ok(())
    }

    fn compile(&mut self, rules: &Arc<[Arc<Rule>]>) -> Result<Arc<Policy>, Error> {
        let started = Instant::now();
        let policy = self.policies.next(rules)?;
        if !Arc::ptr_eq(&policy, &self.plan.policy) {
            self.policy_update.compiled = started.elapsed();
        }
        Ok(policy)
    }

    /// Lets packets be judged by the plan's policy, or judged again by the same one.
    fn put_in_force(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let policy = &self.plan.policy;
        let rules = self.policies.rules();
        self.sweep = Some(HashSet::new());
        if self.tables.set_policy(policy)? {
            self.policy_update.written = started.elapsed();
            let PolicyUpdate { compiled, written } = self.policy_update;
            tracing::info!(rules, entries = policy.cells.len(), ?compiled, ?written, "rules in force");
        }
        Ok(())
    }

    /// Forgets flows that use an address which the node has lost.
    fn flush(&self, gone: &BTreeSet<Addr>) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        let told = |ended: &Ended<'_>| self.observer.ended(ended);
        let flushed = self.tables.flow_tables(&told).flush(gone).map_err(|source| Error::io("flush flows", source))?;
        tracing::info!(flows = flushed, "flows of addresses that are gone were forgotten");
        Ok(())
    }

    /// What numbers in flows stand for.
    fn names(&self, routes: &[Route]) -> flows::Names {
        let routes = routes.iter().zip(&self.plan.service).map(|(route, service)| (service.id, route.destination));
        flows::Names { uplinks: self.plan.names.clone(), routes: routes.collect() }
    }

    fn places(&self, intent: &Intent) -> Vec<Place> {
        let place =
            |program, device: &str, ifindex, egress| Place { program, device: device.to_owned(), ifindex, egress };
        let wt0 = &intent.wt0;
        let mut places = vec![
            place(program::WT0_INGRESS, &wt0.name, wt0.index, false),
            // After the first: before that runs it would drop everything.
            place(program::WT0_LAST, &wt0.name, wt0.index, false),
            place(program::WT0_EGRESS, &wt0.name, wt0.index, true),
        ];
        places.extend(self.plan.names.iter().map(|(index, name)| place(program::UPLINK_INGRESS, name, *index, false)));
        places
    }

    fn program_stats(&self) -> Result<Vec<ProgramStats>, Error> {
        let stats = |&name: &&'static str| {
            let failed = |source| Error::Program { what: format!("look at {name}"), source };
            let program = self.ebpf.program(name).ok_or(aya::programs::ProgramError::NotLoaded).map_err(failed)?;
            let info = program.info().map_err(failed)?;
            Ok(ProgramStats { program: name, runs: info.run_count(), time: info.run_time() })
        };
        load::PROGRAMS.iter().map(stats).collect()
    }

    fn route_stats(&self) -> Result<Vec<RouteStats>, Error> {
        let stats = |(route, service): (&Route, &plan::Service)| {
            let name = |index| self.plan.names.get(index).cloned();
            Ok(RouteStats {
                id: service.id,
                destination: route.destination,
                masquerade: route.masquerade,
                uplinks: service.uplinks.iter().filter_map(name).collect(),
                by_kernel: service.by_kernel.clone(),
                unserved: service.unserved.clone(),
                out: self.tables.route(service.id, Direction::Out)?,
                back: self.tables.route(service.id, Direction::In)?,
            })
        };
        self.routes.iter().zip(&self.plan.service).map(stats).collect()
    }
}

impl Dataplane for EbpfDataplane {
    fn mode(&self) -> Mode {
        let fences = if self.hardened { "; without CAP_PERFMON they carry Spectre fences" } else { "" };
        let pins = if self.dirs.is_pinned() { "" } else { "; nothing is pinned, for want of a BPF file system" };
        let why = format!("the kernel takes our programs, attached by {}{fences}{pins}", self.attachments.method());
        Mode { name: "ebpf", why, hardened: self.hardened }
    }

    fn apply(&mut self, intent: &Intent, node: &kernel::Snapshot) -> Result<(), Error> {
        if self.log.is_none() {
            self.log = Some(log::spawn(&mut self.ebpf)?);
        }
        if self.events.is_none() {
            self.events = Some(Events::start(&mut self.ebpf, self.observer.clone())?);
        }
        let known = self.tables.routes_in_force()?;
        let policy = self.compile(&intent.rules)?;
        let plan = plan::plan(intent, &policy, node, &known)?;
        for (prefix, route) in &plan.routes {
            if known.get(prefix).is_none_or(|known| known.id != route.id) {
                self.tables.forget_route(route.id)?;
            }
        }
        let gone: BTreeSet<_> = self.plan.sources().difference(&plan.sources()).copied().collect();
        let judged = self.tables.write(&plan, &intent.peers)?;
        let moved = self.plan.uplinks != plan.uplinks
            || self.plan.nat_sources != plan.nat_sources
            || self.plan.chosen != plan.chosen
            || self.plan.routes != plan.routes
            || self.plan.links != plan.links;
        let rewired = self.plan.hardware != plan.hardware;
        self.plan = plan;
        self.write_config(intent)?;
        if rewired {
            self.tables.next_hops.own_hardware(&self.plan.hardware)?;
        }
        if moved {
            self.tables.next_hops.resolve_again(&Ways::All)?;
        }
        self.observer.set_view(self.observer.view().next(self.names(&intent.routes), intent));
        if judged {
            self.put_in_force()?;
        }
        self.flush(&gone)?;
        self.routes.clone_from(&intent.routes);
        let places = self.places(intent);
        self.attachments.set(&mut self.ebpf, &places)
    }

    fn follow_ways(&mut self, changes: &Changes) -> Result<(), Error> {
        self.tables.next_hops.neighbours(&changes.neighbours, &self.plan.hardware)?;
        let served = |prefix: &IpNet| self.routes.iter().any(|route| overlap(&route.destination, prefix));
        let ways = match &changes.ways {
            Ways::All => Ways::All,
            Ways::To(prefixes) => Ways::To(prefixes.iter().filter(|prefix| served(prefix)).copied().collect()),
        };
        self.tables.next_hops.resolve_again(&ways)
    }

    fn follow_neighbours(&mut self, all: &[Neighbour]) -> Result<(), Error> {
        self.tables.next_hops.all_neighbours(all, &self.plan.hardware)
    }

    fn silent_neighbours(&mut self) -> Result<Vec<(u32, IpAddr)>, Error> {
        self.tables.next_hops.silent()
    }

    fn collect_garbage(&mut self) -> Result<Collected, Error> {
        self.observer.expire();
        self.end_following()?;
        self.sweep()?;
        let told = |ended: &Ended<'_>| self.observer.ended(ended);
        let (known, counts) = (&self.scan.port_counts, PortCounts::new(&self.tables.config()?));
        let tables = self.tables.flow_tables(&told);
        let now = self.ages.look(sys::monotonic_coarse(), sys::since_boot());
        let scanned = tables.collect(now, self.scan.flows, known, counts);
        self.scan = scanned.map_err(|source| Error::io("scan the flow tables", source))?;
        self.tables.set_ports(&self.scan.port_counts)?;
        self.tables.set_peer_flows(&self.scan.peers)?;
        self.tables.next_hops.collect(&self.scan.next_hops)?;
        self.tables.prepare()?;
        Ok(self.scan.collected)
    }

    fn reconcile(&mut self) -> Result<(), Error> {
        self.attachments.mend(&mut self.ebpf, Instant::now())?;
        if self.dirs.is_pinned() { self.tables.keep_pins(&self.dirs.maps) } else { Ok(()) }
    }

    fn examine(&self, intent: &Intent, node: &kernel::Snapshot) -> Vec<Finding> {
        let subject = Subject {
            bpffs: self.dirs.bpffs.clone(),
            wt0: intent.wt0.name.clone(),
            nat_ports: intent.nat_ports.clone(),
            nat_bounds: Vec::new(),
            uplinks: Vec::new(),
            intent: Some(intent),
            addresses: intent.addresses.clone(),
            listen_port: None,
            probe: false,
            configuration: self.configuration,
        };
        let mut found = doctor::examine(&subject, node);
        // Loading is what it was for: since then it is given up, whether there was any or not.
        found.retain(|finding| {
            self.hardened || (finding.check, finding.severity) != (Check::Capabilities, Severity::Note)
        });
        if !self.dirs.is_pinned() {
            found.retain(|finding| finding.check != Check::Bpffs);
            found.push(doctor::unpinned(&self.dirs.bpffs));
        }
        found
    }

    fn stats(&self) -> Result<Stats, Error> {
        let config = self.tables.config()?;
        let counter = |&counter: &Counter| self.tables.counter(counter).map(|value| (counter, value));
        let drop = |&reason: &DropReason| self.tables.drops(reason).map(|value| (reason, value));
        Ok(Stats {
            counters: Counter::ALL.iter().map(counter).collect::<Result<_, _>>()?,
            drops: DropReason::ALL.iter().map(drop).collect::<Result<_, _>>()?,
            routes: self.route_stats()?,
            attachments: self.attachments.list(),
            repairs: self.attachments.repairs(),
            findings: Vec::new(),
            flows: self.scan.flows,
            mappings: self.scan.mappings,
            flows_max: self.tables.flows_max,
            ports_used: self.scan.ports,
            ports_max: config.nat_port_count.into(),
            busiest_remote_ports: self.scan.port_counts.busiest(),
            peer_quota: config.peer_quota,
            busiest_peer_flows: self.scan.peers.values().copied().max().unwrap_or(0),
            pressure: expiry::pressure(self.scan.flows, self.tables.flows_max),
            programs: self.program_stats()?,
            silent_bytes: self.scan.silent_bytes,
            map_bytes: self.tables.bytes()?,
            policy_generation: config.policy_generation,
            policy_entries: config.policy_len[(config.policy_generation & 1) as usize],
            policy_update: self.policy_update,
            policy_work: self.policies.work(),
            table_writes: self.tables.writes,
            next_hops: self.tables.next_hops.used,
            next_hop_updates: self.tables.next_hops.updates,
            collected: self.scan.collected,
        })
    }

    fn flows(&self, intent: &Arc<Intent>) -> Result<FlowReader, Error> {
        let names = self.names(&self.routes);
        let pressure = expiry::pressure(self.scan.flows, self.tables.flows_max);
        let tables = self.tables.flow_tables(&|_| {}).share(pressure);
        let tables = tables.map_err(|source| Error::io("share the flow tables", source))?;
        Ok(FlowReader { tables, names, intent: Arc::clone(intent) })
    }

    fn describe(&self, packet: &Packet) -> Result<FlowEvent, Error> {
        let frame = packet.frame().ok_or(Error::Families)?;
        self.describer.ask(&self.ebpf, &frame)
    }

    fn follow(&mut self, follow: Option<(&Follow, Duration)>) -> Result<(), Error> {
        let Some(events) = &mut self.events else { return Ok(()) };
        self.followed_until = None;
        if let Some((follow, time)) = follow {
            let until = sys::monotonic_coarse() + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2);
            self.observer.begin_following();
            events.follow(&follow.filter(until))?;
            self.followed_until = Some(until);
        }
        self.set_observed()
    }

    fn shutdown(mut self: Box<Self>, keep: bool) -> Result<(), Error> {
        if keep {
            // Nobody reads from now on what is told.
            return self.tables.set_config(|config| config.observe = 0);
        }
        self.attachments.remove()?;
        let told = |ended: &Ended<'_>| self.observer.ended(ended);
        let all = self.tables.flow_tables(&told).tell_all(CloseReason::Stopped);
        all.map_err(|source| Error::io("tell of flows", source))?;
        self.dirs.remove()
    }
}

/// Name of the pin, and thus of the program, that belongs at a place.
pub(crate) fn pins_at(device: &str, egress: bool, is_wt0: bool) -> Option<String> {
    let program = match (is_wt0, egress) {
        (true, false) => program::WT0_INGRESS,
        (true, true) => program::WT0_EGRESS,
        (false, false) => program::UPLINK_INGRESS,
        (false, true) => return None,
    };
    Some(format!("{program}-{}", pin_name(device)))
}

/// Whether two prefixes have addresses in common.
fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The largest prime up to `limit`: then every probe step of port allocation visits the whole range.
fn largest_prime(limit: usize) -> u16 {
    let limit = u16::try_from(limit).unwrap_or(u16::MAX);
    let is_prime = |n: &u16| (2..=n.isqrt()).all(|divisor| !n.is_multiple_of(divisor));
    (2..=limit).rev().find(is_prime).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_counts_are_prime() {
        assert_eq!([0, 1, 2, 3, 4, 100, 9520, 65_536].map(largest_prime), [0, 0, 2, 3, 3, 97, 9511, 65_521]);
    }
}
