//! Keeps the table of next hops in step with the node. Programs make entries; the daemon writes into them what becomes of
//! neighbours and uplinks, makes flows resolve their ways anew where routes have changed, and frees what no flow names.

use std::collections::{BTreeMap, BTreeSet, HashMap as StdHashMap, HashSet};
use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::thread;

use aya::Ebpf;
use aya::maps::{MapData, Queue};
use peer_common::layout::map;
use peer_common::next_hop::{LINK_PARTS, MAX_NEXT_HOPS};
use peer_common::{Addr, NextHop, NextHopKey};

use super::tables::{PACKET, map_data, take};
use crate::kernel::{Hardware as Found, Neighbour, Ways};
use crate::{Error, sys};

/// Neighbours that the kernel is made to ask for at once: each takes a place in its table for as long as it asks.
const SILENT_AT_ONCE: usize = 16;

/// Ethernet addresses of uplinks by interface index.
pub(super) type Hardware = BTreeMap<u32, [u8; 6]>;

/// The table, and what else the daemon knows of it.
pub(super) struct NextHops {
    entries: MapData,
    numbers: MapData,
    free: Queue<MapData, u64>,
    /// Entries that no flow named at the last scan.
    idle: HashSet<NextHopKey>,
    /// Numbers of entries whose neighbour does not answer.
    silent: BTreeSet<u64>,
    /// The last of them that [`NextHops::silent`] has named.
    named: u64,
    /// Entries at the last scan.
    pub(super) used: u64,
    /// Entries written so far because something has changed on the node.
    pub(super) updates: u64,
}

impl NextHops {
    /// Takes the maps out of the loaded object; makes all entries free if nobody has done so before.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let mut table = Self {
            entries: map_data(ebpf, map::NEXT_HOPS)?,
            numbers: map_data(ebpf, map::NEXT_HOP_NUMBERS)?,
            free: take(ebpf, map::FREE_NEXT_HOPS)?,
            idle: HashSet::new(),
            silent: BTreeSet::new(),
            named: 0,
            used: 0,
            updates: 0,
        };
        table.fill()?;
        Ok(table)
    }

    /// The entry of each number is free at first. Entry 0 is nobody's: its generation says that this was done, wholly, and
    /// before any program was attached.
    fn fill(&mut self) -> Result<(), Error> {
        if self.entry(0)?.generation != 0 {
            return Ok(());
        }
        let failed = |source| Error::Map { map: map::FREE_NEXT_HOPS, source };
        while self.free.pop(0).is_ok() {}
        for number in 1..u64::from(MAX_NEXT_HOPS) {
            self.free.push(number, 0).map_err(failed)?;
        }
        self.set(0, NextHop { generation: 1, ..NextHop::default() })
    }

    /// Descriptor of the entries, for readers.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.entries.fd().as_fd()
    }

    /// Writes what has become of neighbours.
    pub(super) fn neighbours(&mut self, changed: &[Neighbour], hardware: &Hardware) -> Result<(), Error> {
        // The last word on each counts.
        let changed: StdHashMap<(u32, Addr), Found> = changed
            .iter()
            .filter(|neighbour| hardware.contains_key(&neighbour.link))
            .map(|neighbour| ((neighbour.link, neighbour.addr.into()), neighbour.hardware))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        self.write(|entry| {
            changed.get(&(entry.uplink, entry.addr)).map(|found| follow_neighbour(entry, *found, hardware))
        })
    }

    /// Writes the uplinks' own Ethernet addresses.
    pub(super) fn own_hardware(&mut self, hardware: &Hardware) -> Result<(), Error> {
        self.write(|entry| {
            let [destination, ..] = LINK_PARTS;
            let there = <[u8; 6]>::try_from(&entry.header[destination]).ok();
            let found = there.map_or(Found::Unknown, Found::At);
            (entry.flags & NextHop::HEADER != 0).then(|| follow_neighbour(entry, found, hardware))
        })
    }

    /// As [`NextHops::neighbours`], where `all` are all that there are.
    pub(super) fn all_neighbours(&mut self, all: &[Neighbour], hardware: &Hardware) -> Result<(), Error> {
        let all: StdHashMap<(u32, Addr), Found> =
            all.iter().map(|neighbour| ((neighbour.link, neighbour.addr.into()), neighbour.hardware)).collect();
        self.write(|entry| {
            let found = all.get(&(entry.uplink, entry.addr)).copied().unwrap_or(Found::Unknown);
            Some(follow_neighbour(entry, found, hardware))
        })
    }

    /// Neighbours that do not answer: a bounded number at each call, all of them in turn.
    pub(super) fn silent(&mut self) -> Result<Vec<(u32, IpAddr)>, Error> {
        let behind = self.silent.range(self.named + 1..);
        let numbers: Vec<u64> = behind.chain(self.silent.range(..=self.named)).take(SILENT_AT_ONCE).copied().collect();
        self.named = numbers.last().copied().unwrap_or(0);
        let entries = numbers.iter().map(|number| self.entry(*number));
        entries.map(|entry| entry.map(|entry| (entry.uplink, IpAddr::from(entry.addr)))).collect()
    }

    /// Makes flows resolve ways anew that may be others now. What leads to a gateway, or to a neighbour that the kernel finds
    /// for each packet, may carry any destination; other entries are for their own address alone.
    pub(super) fn resolve_again(&mut self, ways: &Ways) -> Result<(), Error> {
        let concerned = |entry: &NextHop| match ways {
            Ways::All => true,
            Ways::To(prefixes) => {
                let addr = IpAddr::from(entry.addr);
                let any = entry.flags & NextHop::GATEWAY != 0 || entry.addr.is_none();
                !prefixes.is_empty() && (any || prefixes.iter().any(|prefix| prefix.contains(&addr)))
            }
        };
        self.write(|entry| concerned(entry).then(|| NextHop { generation: entry.generation.wrapping_add(1), ..*entry }))
    }

    /// Frees entries that no flow has named for a whole scan. `named` are those that some flow names.
    pub(super) fn collect(&mut self, named: &[bool]) -> Result<(), Error> {
        let all = self.all()?;
        let unnamed =
            |number: u64| !usize::try_from(number).ok().and_then(|at| named.get(at)).is_some_and(|named| *named);
        let idle: HashSet<NextHopKey> =
            all.iter().filter(|(_, number)| unnamed(*number)).map(|(key, _)| *key).collect();
        let before = mem::take(&mut self.idle);
        let mut freed = Vec::new();
        for (key, number) in all.iter().filter(|(key, _)| idle.contains(key) && before.contains(key)) {
            let failed = |source| Error::io("free a next hop", source);
            if sys::delete(self.numbers.fd().as_fd(), key).map_err(failed)? {
                // A flow that was opened just now must not take what comes next for its own.
                let entry = self.entry(*number)?;
                self.set(*number, NextHop { generation: entry.generation.wrapping_add(1), ..entry })?;
                freed.push(*number);
            }
        }
        if !freed.is_empty() {
            // A packet may be on its way by one of them. A daemon that is killed here loses these numbers.
            thread::sleep(PACKET);
        }
        for number in &freed {
            self.silent.remove(number);
            self.free.push(*number, 0).map_err(|source| Error::Map { map: map::FREE_NEXT_HOPS, source })?;
        }
        self.used = (all.len() - freed.len()) as u64;
        self.idle = idle;
        Ok(())
    }

    /// Writes entries for which `change` has another content.
    fn write(&mut self, change: impl Fn(&NextHop) -> Option<NextHop>) -> Result<(), Error> {
        let mut changed = Vec::new();
        for (_, number) in self.all()? {
            let entry = self.entry(number)?;
            let wanted = change(&entry).unwrap_or(entry);
            if wanted.flags & NextHop::FAILED == 0 {
                self.silent.remove(&number);
            } else {
                self.silent.insert(number);
            }
            if wanted != entry {
                changed.push((number, entry, wanted));
            }
        }
        // A program that reads a header while it is written must not see half of each: for a moment the entry has none.
        let moves = |entry: &NextHop, wanted: &NextHop| {
            entry.flags & wanted.flags & NextHop::HEADER != 0 && entry.header != wanted.header
        };
        let mut any_moves = false;
        for (number, entry, wanted) in &changed {
            if moves(entry, wanted) {
                self.set(*number, NextHop { flags: entry.flags & !NextHop::HEADER, ..*entry })?;
                any_moves = true;
            }
        }
        if any_moves {
            thread::sleep(PACKET);
        }
        for (number, _, wanted) in changed {
            self.set(number, wanted)?;
            self.updates += 1;
        }
        Ok(())
    }

    fn all(&self) -> Result<Vec<(NextHopKey, u64)>, Error> {
        let failed = |source| Error::io("list next hops", source);
        let mut all = Vec::new();
        let mut batches = sys::Batches::<NextHopKey, u64>::new(MAX_NEXT_HOPS as usize);
        loop {
            let before = all.len();
            let batch = batches.next(self.numbers.fd().as_fd()).map_err(failed)?;
            all.extend(batch.map(|(key, number)| (*key, *number)));
            if all.len() == before {
                return Ok(all);
            }
        }
    }

    fn entry(&self, number: u64) -> Result<NextHop, Error> {
        let number = u32::try_from(number).unwrap_or(0);
        let entry = sys::lookup(self.fd(), &number).map_err(|source| Error::io("read a next hop", source))?;
        Ok(entry.unwrap_or_default())
    }

    fn set(&mut self, number: u64, entry: NextHop) -> Result<(), Error> {
        let number = u32::try_from(number).unwrap_or(0);
        sys::update_all(self.fd(), &[number], &[entry]).map_err(|source| Error::io("write a next hop", source))
    }
}

/// Interface index of the uplink that a next hop leads to; `None`: it has no entry, or is none.
///
/// # Errors
/// When the table cannot be read.
pub(crate) fn uplink(entries: BorrowedFd<'_>, number: u32) -> io::Result<Option<u32>> {
    if number == 0 || number >= MAX_NEXT_HOPS {
        return Ok(None);
    }
    let entry = sys::lookup::<_, NextHop>(entries, &number)?;
    Ok(entry.map(|entry| entry.uplink).filter(|uplink| *uplink != 0))
}

/// Whether a next hop is a destination itself that does not answer now: whom members may ask for is theirs to choose. A gateway
/// that does not answer is a fault of the node's.
///
/// # Errors
/// When the table cannot be read.
pub(super) fn is_silent(entries: BorrowedFd<'_>, number: u32) -> io::Result<bool> {
    let entry = sys::lookup::<_, NextHop>(entries, &number)?;
    Ok(entry.is_some_and(|entry| entry.flags & (NextHop::HEADER | NextHop::GATEWAY) == 0))
}

/// The entry of a neighbour of which this is known now.
fn follow_neighbour(entry: &NextHop, found: Found, hardware: &Hardware) -> NextHop {
    let mut entry = *entry;
    // Until it answers, or is forgotten: the kernel asks again meanwhile.
    let fails = match found {
        Found::Failed => true,
        Found::Asked => entry.flags & NextHop::FAILED != 0,
        Found::At(_) | Found::Unknown => false,
    };
    entry.flags &= !NextHop::FAILED;
    let (Found::At(found), Some(own)) = (found, hardware.get(&entry.uplink)) else {
        entry.flags &= !NextHop::HEADER;
        // A gateway that does not answer is a fault of the node's: packets go on to it, and readiness misses them.
        if fails && entry.flags & NextHop::GATEWAY == 0 && !entry.addr.is_none() {
            entry.flags |= NextHop::FAILED;
        }
        return entry;
    };
    const ETH_P_IP: u16 = 0x0800;
    const ETH_P_IPV6: u16 = 0x86dd;
    let [destination, source, kind] = LINK_PARTS;
    entry.header[destination].copy_from_slice(&found);
    entry.header[source].copy_from_slice(own);
    let ethertype = if entry.flags & NextHop::V4 != 0 { ETH_P_IP } else { ETH_P_IPV6 };
    entry.header[kind].copy_from_slice(&ethertype.to_be_bytes());
    entry.flags |= NextHop::HEADER;
    if entry.flags & NextHop::MTU_GUESSED != 0 {
        // Asked again, the kernel tells the MTU of the route.
        entry.flags &= !NextHop::MTU_GUESSED;
        entry.generation = entry.generation.wrapping_add(1);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THERE: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn entry(addr: &str) -> NextHop {
        let addr: IpAddr = addr.parse().expect("an address");
        let flags = if addr.is_ipv4() { NextHop::V4 } else { 0 };
        NextHop { addr: addr.into(), uplink: 3, mtu: 1500, flags, ..NextHop::default() }
    }

    #[test]
    fn a_neighbour_gives_its_header_and_takes_it_away() {
        let hardware = Hardware::from([(3, OWN)]);
        let known = follow_neighbour(&entry("192.0.2.9"), Found::At(THERE), &hardware);
        assert_eq!(known.header, [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!((known.flags, known.generation), (NextHop::HEADER | NextHop::V4, 0));
        assert_eq!(follow_neighbour(&known, Found::Unknown, &hardware).flags, NextHop::V4);
        let gone = follow_neighbour(&known, Found::At(THERE), &Hardware::new());
        assert_eq!(gone.flags, NextHop::V4, "an uplink that is gone");
        let v6 = follow_neighbour(&entry("2001:db8::9"), Found::At(THERE), &hardware);
        assert_eq!(v6.header[12..], [0x86, 0xdd]);
        let v4_by_v6 = NextHop { flags: NextHop::V4, ..entry("fe80::9") };
        assert_eq!(follow_neighbour(&v4_by_v6, Found::At(THERE), &hardware).header[12..], [8, 0]);
    }

    #[test]
    fn a_neighbour_that_does_not_answer_is_marked_until_it_does_or_is_forgotten() {
        let hardware = Hardware::from([(3, OWN)]);
        for addr in ["192.0.2.9", "2001:db8::9"] {
            let plain = entry(addr);
            let failed = follow_neighbour(&plain, Found::Failed, &hardware);
            assert_eq!(failed.flags, plain.flags | NextHop::FAILED);
            assert_eq!(follow_neighbour(&failed, Found::Asked, &hardware), failed);
            assert_eq!(follow_neighbour(&plain, Found::Asked, &hardware), plain);
            assert_eq!(follow_neighbour(&failed, Found::At(THERE), &hardware).flags, plain.flags | NextHop::HEADER);
            assert_eq!(follow_neighbour(&failed, Found::Unknown, &hardware), plain);
        }
        let gateway = NextHop { flags: NextHop::V4 | NextHop::GATEWAY, ..entry("192.0.2.9") };
        assert_eq!(
            follow_neighbour(&gateway, Found::Failed, &hardware),
            gateway,
            "the readiness part `traffic` reports it"
        );
        let any = NextHop { addr: Addr::NONE, ..entry("192.0.2.9") };
        assert_eq!(follow_neighbour(&any, Found::Failed, &hardware), any, "the kernel finds it for each packet");
    }

    #[test]
    fn a_guessed_mtu_is_asked_for_once_the_neighbour_is_known() {
        let hardware = Hardware::from([(3, OWN)]);
        let plain = entry("192.0.2.9");
        let guessed = NextHop { flags: plain.flags | NextHop::MTU_GUESSED, ..plain };
        let known = follow_neighbour(&guessed, Found::At(THERE), &hardware);
        assert_eq!((known.flags, known.generation), (NextHop::HEADER | NextHop::V4, 1));
        assert_eq!(follow_neighbour(&known, Found::At(THERE), &hardware), known, "once");
    }
}
