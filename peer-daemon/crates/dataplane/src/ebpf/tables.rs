//! The maps, typed, and written by difference only.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use peer_common::layout::map;
use peer_common::route::{MAX_NAT_SOURCES, MAX_PEERS};
use peer_common::{
    Addr, ChosenKey, Config, Counter, Direction, DropReason, LocalAddr, PacketCount, Peer, Route, Uplink,
};

use super::difference::{Difference, difference};
use super::gc::FlowTables;
use super::next_hops::NextHops;
use super::peers::PeerTable;
use super::plan::{Plan, Prefix};
use super::policy::Policy;
use super::policy_tables::PolicyTables;
use super::ports::PortCounts;
use crate::observe::Ended;
use crate::{Error, PeerPrefixes, sys};

/// Longer than any packet takes in a program, which nothing but interrupts can stop.
pub(super) const PACKET: Duration = Duration::from_millis(10);

/// All maps.
pub(super) struct Tables {
    uplinks: HashMap<MapData, u32, Uplink>,
    locals: HashMap<MapData, Addr, LocalAddr>,
    listeners: HashMap<MapData, u32, u32>,
    routes: LpmTrie<MapData, Addr, Route>,
    peers: LpmTrie<MapData, Addr, Peer>,
    policy: PolicyTables,
    policy_in_force: Option<Arc<Policy>>,
    /// When traffic began to read the half that it reads.
    flipped: Option<Instant>,
    config: Array<MapData, Config>,
    counters: PerCpuArray<MapData, u64>,
    drops: PerCpuArray<MapData, PacketCount>,
    route_counters: PerCpuArray<MapData, PacketCount>,
    pub(super) next_hops: NextHops,
    flows: MapData,
    mappings: MapData,
    peer_flows: Array<MapData, u32>,
    nat_sources: Array<MapData, Addr>,
    chosen: LpmTrie<MapData, ChosenKey, Addr>,
    remote_ports: MapData,
    member_ports: MapData,
    /// A second handle of each map that lives, in the order of `map::PINNED`: for its memory and its pin.
    handles: Vec<MapData>,
    /// What the tables hold; `None`: not known, or a write has failed on its way.
    known: Option<Plan>,
    /// The same of the peers.
    known_peers: Option<PeerTable>,
    /// Entries written or removed so far.
    pub(super) writes: u64,
    /// The highest number of a peer that had flows at the last scan; at first: of all.
    highest_peer: u32,
    /// Flows that fit: a pinned map keeps the size that it was made with.
    pub(super) flows_max: u64,
}

impl Tables {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let handle = |&name: &&'static str| second_handle(ebpf, name);
        let handles = map::PINNED.iter().map(handle).collect::<Result<_, _>>()?;
        let flows = map_data(ebpf, map::FLOWS)?;
        let info = flows.info().map_err(|source| Error::Map { map: map::FLOWS, source })?;
        Ok(Self {
            uplinks: take(ebpf, map::UPLINKS)?,
            locals: take(ebpf, map::LOCALS)?,
            listeners: take(ebpf, map::LISTENERS)?,
            routes: take(ebpf, map::ROUTES)?,
            peers: take(ebpf, map::PEERS)?,
            policy: PolicyTables::take(ebpf)?,
            next_hops: NextHops::take(ebpf)?,
            policy_in_force: None,
            flipped: None,
            config: take(ebpf, map::CONFIG)?,
            counters: take(ebpf, map::COUNTERS)?,
            drops: take(ebpf, map::DROPS)?,
            route_counters: take(ebpf, map::ROUTE_COUNTERS)?,
            known: None,
            known_peers: None,
            writes: 0,
            highest_peer: MAX_PEERS - 1,
            flows_max: info.max_entries().into(),
            flows,
            handles,
            peer_flows: take(ebpf, map::PEER_FLOWS)?,
            nat_sources: take(ebpf, map::NAT_SOURCES)?,
            chosen: take(ebpf, map::CHOSEN_SOURCES)?,
            remote_ports: map_data(ebpf, map::REMOTE_PORTS)?,
            member_ports: map_data(ebpf, map::MEMBER_PORTS)?,
            mappings: map_data(ebpf, map::MAPPINGS)?,
        })
    }

    /// Pins again what is not pinned any more: the next start would find no flows.
    ///
    /// # Errors
    /// When another table is pinned in the place of one of ours.
    pub(super) fn keep_pins(&self, pins: &Path) -> Result<(), Error> {
        for (&name, handle) in map::PINNED.iter().zip(&self.handles) {
            let failed = |source| Error::Map { map: name, source };
            let path = pins.join(name);
            if !path.exists() {
                tracing::warn!(table = name, "the table was not pinned any more: pinning it again");
                fs::create_dir_all(pins).map_err(|source| Error::io(format!("make {}", pins.display()), source))?;
                let pinned = sys::pin(handle.fd().as_fd(), &path);
                pinned.map_err(|source| Error::io(format!("pin {}", path.display()), source))?;
                continue;
            }
            let own = handle.info().map_err(failed)?.id();
            let there = MapData::from_pin(&path).and_then(|there| there.info());
            if !there.is_ok_and(|there| there.id() == own) {
                return Err(Error::ForeignTable { map: name, path });
            }
        }
        Ok(())
    }

    /// Writes what differs from `plan` and `peers`, but for the rules. Returns whether anything that judges packets differs: then
    /// flows must be judged again, by [`Tables::set_policy`].
    pub(super) fn write(&mut self, plan: &Plan, peers: &Arc<[PeerPrefixes]>) -> Result<bool, Error> {
        // Nobody else writes: the kernel is asked once, and again after a failure. Nodes change all day, plans seldom do.
        let known = match self.known.take() {
            Some(known) => known,
            None => self.read()?,
        };
        // Before the uplinks that name them.
        let mut written = self.write_sources(&known.nat_sources, &plan.nat_sources)?;
        written += sync_trie(&mut self.chosen, &known.chosen, &plan.chosen, map::CHOSEN_SOURCES)?;
        written += sync_hash(&mut self.uplinks, &known.uplinks, &plan.uplinks, map::UPLINKS)?;
        let mut judging = sync_hash(&mut self.locals, &known.locals, &plan.locals, map::LOCALS)?;
        judging += sync_hash(&mut self.listeners, &known.listeners, &plan.listeners, map::LISTENERS)?;
        judging += sync_trie(&mut self.routes, &known.routes, &plan.routes, map::ROUTES)?;
        judging += self.write_peers(peers)?;
        written += judging;
        self.writes += written as u64;
        // After a start the policy in force is not known: flows are judged once more.
        let judged = judging > 0 || self.policy_in_force.as_ref() != Some(&plan.policy);
        self.known = Some(plan.clone());
        Ok(judged)
    }

    fn write_sources(&mut self, known: &[Addr], wanted: &[Addr]) -> Result<usize, Error> {
        let at = |list: &[Addr], index: u32| list.get(index as usize).copied().unwrap_or(Addr::NONE);
        let mut written = 0;
        for index in (0..MAX_NAT_SOURCES).filter(|&index| at(known, index) != at(wanted, index)) {
            let set = self.nat_sources.set(index, at(wanted, index), 0);
            set.map_err(|source| Error::Map { map: map::NAT_SOURCES, source })?;
            written += 1;
        }
        Ok(written)
    }

    fn write_peers(&mut self, peers: &Arc<[PeerPrefixes]>) -> Result<usize, Error> {
        let mut known = match self.known_peers.take() {
            Some(known) => known,
            None => PeerTable::new(read_trie(&self.peers, map::PEERS)?),
        };
        let change = known.change(peers);
        change_trie(&mut self.peers, &change.difference(), map::PEERS)?;
        let written = change.len();
        known.apply(change, peers);
        self.known_peers = Some(known);
        Ok(written)
    }

    /// Puts `policy` in force: into the half that is not read, and the generation last. Traffic sees the old policy or the
    /// new one. Returns whether it is another than before.
    pub(super) fn set_policy(&mut self, policy: &Arc<Policy>) -> Result<bool, Error> {
        let generation = self.config()?.policy_generation.wrapping_add(1);
        // A packet that began under the generation before the last one may still read what is written now.
        if let Some(rest) = self.flipped.and_then(|flipped| PACKET.checked_sub(flipped.elapsed())) {
            std::thread::sleep(rest);
        }
        self.writes += self.policy.write(generation, policy)? as u64;
        let cells = u32::try_from(policy.cells.len()).unwrap_or(u32::MAX);
        self.set_config(|config| config.policy_len[(generation & 1) as usize] = cells)?;
        self.set_config(|config| config.policy_generation = generation)?;
        self.flipped = Some(Instant::now());
        let changed = self.policy_in_force.as_ref() != Some(policy);
        self.policy_in_force = Some(Arc::clone(policy));
        Ok(changed)
    }

    /// Makes the half that is not read hold what is in force, too: then the next policy differs from it in little. While packets
    /// may still read that half nothing is done.
    pub(super) fn prepare(&mut self) -> Result<(), Error> {
        let Some(policy) = self.policy_in_force.clone() else { return Ok(()) };
        if self.flipped.is_none_or(|flipped| flipped.elapsed() < PACKET) {
            return Ok(());
        }
        let generation = self.config()?.policy_generation.wrapping_add(1);
        self.writes += self.policy.write(generation, &policy)? as u64;
        Ok(())
    }

    /// What is in force, as the kernel has it.
    fn read(&self) -> Result<Plan, Error> {
        let source =
            |index| self.nat_sources.get(&index, 0).map_err(|source| Error::Map { map: map::NAT_SOURCES, source });
        Ok(Plan {
            nat_sources: (0..MAX_NAT_SOURCES).map(source).collect::<Result<_, _>>()?,
            chosen: read_trie(&self.chosen, map::CHOSEN_SOURCES)?,
            uplinks: read_hash(&self.uplinks, map::UPLINKS)?,
            locals: read_hash(&self.locals, map::LOCALS)?,
            listeners: read_hash(&self.listeners, map::LISTENERS)?,
            routes: read_trie(&self.routes, map::ROUTES)?,
            ..Plan::default()
        })
    }

    pub(super) fn config(&self) -> Result<Config, Error> {
        self.config.get(&0, 0).map_err(|source| Error::Map { map: map::CONFIG, source })
    }

    pub(super) fn set_config(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), Error> {
        let mut config = self.config()?;
        let before = config;
        change(&mut config);
        if config == before {
            return Ok(());
        }
        self.config.set(0, config, 0).map_err(|source| Error::Map { map: map::CONFIG, source })
    }

    pub(super) fn counter(&self, counter: Counter) -> Result<u64, Error> {
        let values = self.counters.get(&(counter as u32), 0);
        Ok(values.map_err(|source| Error::Map { map: map::COUNTERS, source })?.iter().sum())
    }

    pub(super) fn drops(&self, reason: DropReason) -> Result<PacketCount, Error> {
        let values = self.drops.get(&(reason as u32), 0);
        Ok(sum(values.map_err(|source| Error::Map { map: map::DROPS, source })?.iter()))
    }

    pub(super) fn route(&self, id: u32, direction: Direction) -> Result<PacketCount, Error> {
        let values = self.route_counters.get(&(id * 2 + direction as u32), 0);
        Ok(sum(values.map_err(|source| Error::Map { map: map::ROUTE_COUNTERS, source })?.iter()))
    }

    /// Sets the count of flows that each peer has; `counts` names those that have any.
    pub(super) fn set_peer_flows(&mut self, counts: &BTreeMap<u32, u32>) -> Result<(), Error> {
        let failed = |source| Error::Map { map: map::PEER_FLOWS, source };
        let highest = counts.keys().next_back().copied().unwrap_or(0).max(self.highest_peer);
        self.highest_peer = counts.keys().next_back().copied().unwrap_or(0);
        for peer in 0..=highest.min(MAX_PEERS - 1) {
            let count = counts.get(&peer).copied().unwrap_or(0);
            if self.peer_flows.get(&peer, 0).map_err(failed)? != count {
                self.peer_flows.set(peer, count, 0).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Sets the counts of ports in use.
    pub(super) fn set_ports(&self, counts: &PortCounts) -> Result<(), Error> {
        counts.write(self.remote_ports.fd().as_fd(), self.member_ports.fd().as_fd())
    }

    pub(super) fn flow_tables<'a>(&'a self, told: &'a dyn Fn(&Ended<'_>)) -> FlowTables<'a> {
        FlowTables {
            flows: self.flows.fd().as_fd(),
            mappings: self.mappings.fd().as_fd(),
            next_hops: self.next_hops.fd(),
            max: self.flows_max,
            told,
        }
    }

    /// Memory of all maps as the kernel accounts it, bytes.
    pub(super) fn bytes(&self) -> Result<u64, Error> {
        let memory = |handle: &MapData| sys::map_memory(handle.fd().as_fd());
        let bytes: Result<Vec<u64>, _> = self.handles.iter().map(memory).collect();
        Ok(bytes.map_err(|source| Error::io("read the memory of a map", source))?.iter().sum())
    }

    /// Routes as they are in force, with the ids they have.
    pub(super) fn routes_in_force(&self) -> Result<BTreeMap<Prefix, Route>, Error> {
        match &self.known {
            Some(known) => Ok(known.routes.clone()),
            None => read_trie(&self.routes, map::ROUTES),
        }
    }

    /// Sets the counters of a route back to zero: its id has another meaning from now on.
    pub(super) fn forget_route(&mut self, id: u32) -> Result<(), Error> {
        let failed = |source| Error::Map { map: map::ROUTE_COUNTERS, source };
        let cpus = aya::util::nr_cpus().map_err(|(what, source)| Error::io(what, source))?;
        for direction in [Direction::Out, Direction::In] {
            let zero = PerCpuValues::try_from(vec![PacketCount::default(); cpus])
                .map_err(|source| Error::io("clear a counter", source))?;
            self.route_counters.set(id * 2 + direction as u32, zero, 0).map_err(failed)?;
        }
        Ok(())
    }
}

/// Returns how many entries were written or removed.
fn sync_hash<K: aya::Pod + Ord, V: aya::Pod + PartialEq>(
    table: &mut HashMap<MapData, K, V>,
    known: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
    name: &'static str,
) -> Result<usize, Error> {
    let failed = |source| Error::Map { map: name, source };
    let Difference { gone, new } = difference(known, wanted);
    for &(key, value) in &new {
        table.insert(key, value, 0).map_err(failed)?;
    }
    for &key in &gone {
        table.remove(key).map_err(failed)?;
    }
    Ok(gone.len() + new.len())
}

/// As [`sync_hash`].
fn sync_trie<K: aya::Pod + Ord, V: aya::Pod + PartialEq>(
    table: &mut LpmTrie<MapData, K, V>,
    known: &BTreeMap<(u32, K), V>,
    wanted: &BTreeMap<(u32, K), V>,
    name: &'static str,
) -> Result<usize, Error> {
    let difference = difference(known, wanted);
    change_trie(table, &difference, name)?;
    Ok(difference.gone.len() + difference.new.len())
}

fn change_trie<K: aya::Pod, V: aya::Pod>(
    table: &mut LpmTrie<MapData, K, V>,
    difference: &Difference<'_, (u32, K), V>,
    name: &'static str,
) -> Result<(), Error> {
    let failed = |source| Error::Map { map: name, source };
    for &((len, addr), value) in &difference.new {
        table.insert(&Key::new(*len, *addr), value, 0).map_err(failed)?;
    }
    for &(len, addr) in &difference.gone {
        table.remove(&Key::new(*len, *addr)).map_err(failed)?;
    }
    Ok(())
}

fn read_hash<K: aya::Pod + Ord, V: aya::Pod>(
    table: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<BTreeMap<K, V>, Error> {
    table.iter().collect::<Result<_, MapError>>().map_err(|source| Error::Map { map: name, source })
}

fn read_trie<K: aya::Pod + Ord, V: aya::Pod>(
    table: &LpmTrie<MapData, K, V>,
    name: &'static str,
) -> Result<BTreeMap<(u32, K), V>, Error> {
    let entry =
        |entry: Result<(Key<K>, V), MapError>| entry.map(|(key, value)| ((key.prefix_len(), key.data()), value));
    table.iter().map(entry).collect::<Result<_, _>>().map_err(|source| Error::Map { map: name, source })
}

pub(super) fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error> {
    let failed = |source| Error::Map { map: name, source };
    let map = ebpf.take_map(name).ok_or_else(|| failed(MapError::InvalidName { name: name.into() }))?;
    T::try_from(map).map_err(failed)
}

/// The same map once more.
fn second_handle(ebpf: &Ebpf, name: &'static str) -> Result<MapData, Error> {
    let failed = |source| Error::Map { map: name, source };
    let data = match ebpf.map(name) {
        Some(
            Map::Array(data)
            | Map::HashMap(data)
            | Map::LpmTrie(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::Queue(data),
        ) => data,
        _ => return Err(failed(MapError::InvalidName { name: name.into() })),
    };
    let fd = data.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(|source| Error::io(format!("share the table {name}"), source))?;
    MapData::from_fd(fd).map_err(failed)
}

pub(super) fn map_data(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, Error> {
    match ebpf.take_map(name) {
        Some(Map::HashMap(data) | Map::Array(data)) => Ok(data),
        _ => Err(Error::Map { map: name, source: MapError::InvalidName { name: name.into() } }),
    }
}

fn sum<'a>(counts: impl Iterator<Item = &'a PacketCount>) -> PacketCount {
    counts.fold(PacketCount::default(), |sum, count| PacketCount {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}
