//! The policy tables: two halves, of which traffic reads one.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError};
use ipnet::Ipv6Net;
use peer_common::layout::map;
use peer_common::policy::ANSWERS;
use peer_common::{Addr, Answer, CellKey, CellValue};

use super::difference::{Difference, difference};
use super::policy::Policy;
use crate::Error;
use crate::sys::{self, LpmKey};

/// Both halves.
pub(super) struct PolicyTables([Half; 2]);

struct Half {
    sources: Table,
    destinations: Table,
    cells: Table,
    answers: Table,
    /// What it holds; `None`: not known, or a write has failed on its way.
    holds: Option<Arc<Policy>>,
}

struct Table {
    name: &'static str,
    data: MapData,
}

impl PolicyTables {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let mut half = |index: usize| {
            Ok::<_, Error>(Half {
                sources: Table::take(ebpf, map::SOURCES[index])?,
                destinations: Table::take(ebpf, map::DESTINATIONS[index])?,
                cells: Table::take(ebpf, map::CELLS[index])?,
                answers: Table::take(ebpf, map::ANSWERS[index])?,
                holds: None,
            })
        };
        Ok(Self([half(0)?, half(1)?]))
    }

    /// Makes the half of `generation` hold `policy`. Traffic must not read it meanwhile. Returns how many entries were written or
    /// removed.
    pub(super) fn write(&mut self, generation: u32, policy: &Arc<Policy>) -> Result<usize, Error> {
        let half = &mut self.0[(generation & 1) as usize];
        let holds = match half.holds.take() {
            Some(holds) => holds,
            None => Arc::new(half.read()?),
        };
        let mut written = half.sources.sync(&holds.sources, &policy.sources, prefix)?;
        written += half.destinations.sync(&holds.destinations, &policy.destinations, prefix)?;
        written += half.cells.sync(&holds.cells, &policy.cells, cell)?;
        written += half.answers.sync_array(&holds.answers, &policy.answers)?;
        half.holds = Some(Arc::clone(policy));
        Ok(written)
    }
}

impl Half {
    fn read(&self) -> Result<Policy, Error> {
        let prefixes = |table: &Table| {
            let entries = table.read::<Addr, u32>()?.into_iter();
            let entry = |((len, addr), atom): ((u32, Addr), u32)| Some((net(len, addr)?, atom));
            Ok::<_, Error>(Arc::new(entries.filter_map(entry).collect()))
        };
        Ok(Policy {
            sources: prefixes(&self.sources)?,
            destinations: prefixes(&self.destinations)?,
            cells: Arc::new(self.cells.read::<CellKey, CellValue>()?),
            // Not looked at: every place is written.
            answers: Arc::new((0..ANSWERS).map(|place| (place, Answer::default())).collect()),
        })
    }
}

fn prefix(net: &Ipv6Net) -> LpmKey<Addr> {
    LpmKey { prefix_len: net.prefix_len().into(), data: net.network().into() }
}

/// The other way round; the tables hold nothing else.
fn net(len: u32, addr: Addr) -> Option<Ipv6Net> {
    let addr = match IpAddr::from(addr) {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    Ipv6Net::new(addr, len.try_into().ok()?).ok()
}

fn cell(&(prefix_len, data): &(u32, CellKey)) -> LpmKey<CellKey> {
    LpmKey { prefix_len, data }
}

impl Table {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        match ebpf.take_map(name) {
            Some(Map::LpmTrie(data) | Map::Array(data)) => Ok(Self { name, data }),
            _ => Err(Error::Map { map: name, source: MapError::InvalidName { name: name.into() } }),
        }
    }

    fn read<K: aya::Pod + Ord, V: aya::Pod>(&self) -> Result<BTreeMap<(u32, K), V>, Error> {
        let entries =
            sys::entries::<LpmKey<K>, V>(self.data.fd().as_fd()).map_err(|source| self.failed("read", source))?;
        Ok(entries.into_iter().map(|(key, value)| ((key.prefix_len, key.data), value)).collect())
    }

    /// Removes first: what the table can hold is what the policy may need. Returns how much was written or removed.
    fn sync<K: Ord, D: aya::Pod, V: aya::Pod + PartialEq>(
        &self,
        holds: &Arc<BTreeMap<K, V>>,
        wanted: &Arc<BTreeMap<K, V>>,
        key: fn(&K) -> LpmKey<D>,
    ) -> Result<usize, Error> {
        if Arc::ptr_eq(holds, wanted) {
            return Ok(0);
        }
        let Difference { gone, new } = difference(holds, wanted);
        let gone: Vec<_> = gone.into_iter().map(key).collect();
        let fd = self.data.fd().as_fd();
        sys::delete_all(fd, &gone).map_err(|source| self.failed("remove from", source))?;
        let (keys, values): (Vec<_>, Vec<V>) = new.into_iter().map(|(held, value)| (key(held), *value)).unzip();
        sys::update_all(fd, &keys, &values).map_err(|source| self.failed("write", source))?;
        Ok(gone.len() + keys.len())
    }

    /// What an array held is overwritten.
    fn sync_array<V: aya::Pod + PartialEq + Default>(
        &self,
        holds: &Arc<BTreeMap<u32, V>>,
        wanted: &Arc<BTreeMap<u32, V>>,
    ) -> Result<usize, Error> {
        if Arc::ptr_eq(holds, wanted) {
            return Ok(0);
        }
        let Difference { gone, new } = difference(holds, wanted);
        let gone = gone.into_iter().map(|&held| (held, V::default()));
        let new = new.into_iter().map(|(held, value)| (*held, *value));
        let (keys, values): (Vec<u32>, Vec<V>) = gone.chain(new).unzip();
        sys::update_all(self.data.fd().as_fd(), &keys, &values).map_err(|source| self.failed("write", source))?;
        Ok(keys.len())
    }

    fn failed(&self, what: &str, source: io::Error) -> Error {
        Error::io(format!("{what} map {}", self.name), source)
    }
}
