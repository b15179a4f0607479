//! The policy tables: two halves, of which traffic reads one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError};
use peer_common::layout::map;
use peer_common::policy::ANSWERS;
use peer_common::{Addr, Answer, CellKey, CellValue};

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

    /// Makes the half of `generation` hold `policy`. Traffic must not read it meanwhile.
    pub(super) fn write(&mut self, generation: u32, policy: &Arc<Policy>) -> Result<(), Error> {
        let half = &mut self.0[(generation & 1) as usize];
        let holds = match half.holds.take() {
            Some(holds) => holds,
            None => Arc::new(half.read()?),
        };
        half.sources.sync(&holds.sources, &policy.sources)?;
        half.destinations.sync(&holds.destinations, &policy.destinations)?;
        half.cells.sync(&holds.cells, &policy.cells)?;
        half.answers.sync_array(&holds.answers, &policy.answers)?;
        half.holds = Some(Arc::clone(policy));
        Ok(())
    }
}

impl Half {
    fn read(&self) -> Result<Policy, Error> {
        Ok(Policy {
            sources: self.sources.read::<Addr, u32>()?,
            destinations: self.destinations.read::<Addr, u32>()?,
            cells: self.cells.read::<CellKey, CellValue>()?,
            // Not looked at: every place is written.
            answers: (0..ANSWERS).map(|place| (place, Answer::default())).collect(),
        })
    }
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

    /// Removes first: what the table can hold is what the policy may need.
    fn sync<K: aya::Pod + Ord, V: aya::Pod + PartialEq>(
        &self,
        holds: &BTreeMap<(u32, K), V>,
        wanted: &BTreeMap<(u32, K), V>,
    ) -> Result<(), Error> {
        let key = |&(prefix_len, data): &(u32, K)| LpmKey { prefix_len, data };
        let gone: Vec<_> = holds.keys().filter(|held| !wanted.contains_key(held)).map(key).collect();
        let fd = self.data.fd().as_fd();
        sys::delete_all(fd, &gone).map_err(|source| self.failed("remove from", source))?;
        let new = wanted.iter().filter(|(held, value)| holds.get(held) != Some(value));
        let (keys, values): (Vec<_>, Vec<V>) = new.map(|(held, value)| (key(held), *value)).unzip();
        sys::update_all(fd, &keys, &values).map_err(|source| self.failed("write", source))
    }

    /// What an array held is overwritten.
    fn sync_array<V: aya::Pod + PartialEq + Default>(
        &self,
        holds: &BTreeMap<u32, V>,
        wanted: &BTreeMap<u32, V>,
    ) -> Result<(), Error> {
        let gone = holds.keys().filter(|held| !wanted.contains_key(held)).map(|&held| (held, V::default()));
        let new = wanted.iter().filter(|(held, value)| holds.get(held) != Some(value));
        let (keys, values): (Vec<u32>, Vec<V>) = gone.chain(new.map(|(held, value)| (*held, *value))).unzip();
        sys::update_all(self.data.fd().as_fd(), &keys, &values).map_err(|source| self.failed("write", source))
    }

    fn failed(&self, what: &str, source: io::Error) -> Error {
        Error::io(format!("{what} map {}", self.name), source)
    }
}
