//! The default range of ports of source NAT: the widest in which nothing of the node's own, of Kubernetes' or of Cilium's is.
//!
//! [`choose`] is pure; [`look`] reads what it needs. The choice is made once, at start; where the range of the run before is still
//! free, and has most of the ports that a new choice would have, it stays.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use peer_common::layout::{self, map};

use crate::doctor::procfs;
use crate::{DEFAULT_NAT_PORTS, ebpf, sys};

/// Between the ports of Kubernetes' own services (10248–10259; Cilium's are lower) and NodePorts (30000–32767). From 32768 on Cilium
/// tracks and rewrites what it sees.
pub const WIDEST: RangeInclusive<u16> = 11_000..=29_999;
/// A range with fewer ports than this is not worth having: then [`DEFAULT_NAT_PORTS`] is used, and `doctor` says what is in it.
const LEAST: usize = 1024;
/// The range of the run before stays if it has this part of the ports that a new choice would have.
const KEEP: (usize, usize) = (4, 5);
/// Processes named in an explanation.
const NAMED: usize = 8;

/// What a range depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupied {
    /// `net.ipv4.ip_local_port_range`: the node's own connections take them.
    pub local_ports: Option<RangeInclusive<u16>>,
    /// `net.ipv4.ip_local_reserved_ports`: those of them that they do not take; beyond them, ports that somebody waits for.
    pub reserved_ports: Vec<RangeInclusive<u16>>,
    /// Ports that somebody listens on, or has bound, with what they are for people.
    pub sockets: BTreeMap<u16, String>,
    /// The range of the run before.
    pub before: Option<RangeInclusive<u16>>,
}

/// A range, and what has bounded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The ports.
    pub ports: RangeInclusive<u16>,
    /// What is in the way of a wider range, for people; nothing: it is the widest.
    pub bounds: Vec<String>,
}

/// Chooses a range. The same facts give the same range.
#[must_use]
pub fn choose(occupied: &Occupied) -> Choice {
    let free = |port: &u16| occupied.reason(*port).is_none();
    let widest = widest(free);
    let mut bounds = occupied.bounds();
    let len = widest.as_ref().map_or(0, ExactSizeIterator::len);
    if let Some(before) =
        occupied.before.clone().filter(|ports| ports.clone().all(|port| WIDEST.contains(&port) && free(&port)))
        && before.len() * KEEP.1 >= len * KEEP.0
    {
        if before.len() < len {
            bounds.push(format!(
                "{}-{} was the range before: it stays, so that flows keep their ports",
                before.start(),
                before.end()
            ));
        }
        return Choice { ports: before, bounds };
    }
    match widest.filter(|ports| ports.len() >= LEAST) {
        Some(ports) => Choice { ports, bounds },
        None => {
            let (first, last) = (DEFAULT_NAT_PORTS.start(), DEFAULT_NAT_PORTS.end());
            bounds.push(format!("fewer than {LEAST} ports in a row are free: {first}-{last} is used all the same"));
            Choice { ports: DEFAULT_NAT_PORTS, bounds }
        }
    }
}

/// Chooses a range for the mesh device `wt0` in the namespaces of the calling thread.
#[must_use]
pub fn look(bpffs: &Path, wt0: &str) -> Choice {
    let sysctl = procfs::sysctl;
    choose(&Occupied {
        local_ports: sysctl("net/ipv4/ip_local_port_range").and_then(|text| procfs::port_range(&text)),
        reserved_ports: sysctl("net/ipv4/ip_local_reserved_ports")
            .map(|text| procfs::port_list(&text))
            .unwrap_or_default(),
        sockets: sockets(),
        before: before(bpffs, wt0),
    })
}

impl Occupied {
    /// Why a port is not to be had.
    fn reason(&self, port: u16) -> Option<String> {
        let within = |range: &RangeInclusive<u16>| range.contains(&port);
        let local = self.local_ports.as_ref().filter(|range| within(range));
        let reserved = self.reserved_ports.iter().find(|range| within(range));
        match (self.sockets.get(&port), local, reserved) {
            (Some(socket), ..) => Some(socket.clone()),
            (None, Some(local), None) => Some(format!(
                "net.ipv4.ip_local_port_range is {}-{}: the node's own connections take these ports",
                local.start(),
                local.end()
            )),
            (None, None, Some(range)) => {
                Some(format!("net.ipv4.ip_local_reserved_ports keeps {}-{} for somebody", range.start(), range.end()))
            }
            _ => None,
        }
    }

    fn bounds(&self) -> Vec<String> {
        let mut bounds: Vec<String> = Vec::new();
        for reason in WIDEST.filter_map(|port| self.reason(port)) {
            if bounds.len() < NAMED && !bounds.contains(&reason) {
                bounds.push(reason);
            }
        }
        bounds
    }
}

/// The longest run of free ports, the first of equals.
fn widest(free: impl Fn(&u16) -> bool) -> Option<RangeInclusive<u16>> {
    let mut best: Option<RangeInclusive<u16>> = None;
    let mut first = None;
    for port in WIDEST {
        if !free(&port) {
            first = None;
            continue;
        }
        let run = *first.get_or_insert(port)..=port;
        if best.as_ref().is_none_or(|best| run.len() > best.len()) {
            best = Some(run);
        }
    }
    best
}

/// Who has bound ports of the widest range.
fn sockets() -> BTreeMap<u16, String> {
    let mut sockets = BTreeMap::new();
    for (table, protocol) in [("tcp", "TCP"), ("tcp6", "TCP"), ("udp", "UDP"), ("udp6", "UDP")] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        for (port, inode) in text.lines().skip(1).filter_map(|line| procfs::bound(line, protocol == "TCP")) {
            if WIDEST.contains(&port) && !sockets.contains_key(&port) {
                let owner = (sockets.len() < NAMED).then(|| procfs::process_with(&[inode])).flatten();
                let owner = owner.unwrap_or_else(|| "somebody".to_owned());
                sockets.insert(port, format!("{owner} has {protocol} port {port}"));
            }
        }
    }
    sockets
}

/// The range of the run before, as the pinned configuration has it.
fn before(bpffs: &Path, wt0: &str) -> Option<RangeInclusive<u16>> {
    let maps = bpffs.join("peer").join(ebpf::pin_name(wt0)).join(format!("v{}", layout::ABI)).join("maps");
    const SIZE: usize = size_of::<peer_common::Config>();
    let config = sys::pinned_map_head::<SIZE>(&maps.join(map::CONFIG)).ok()??;
    let number = |at: usize| u16::from_ne_bytes([config[at], config[at + 1]]);
    let first = number(std::mem::offset_of!(peer_common::Config, nat_port_min));
    let count = number(std::mem::offset_of!(peer_common::Config, nat_port_count));
    (count >= 2).then(|| Some(first..=first.checked_add(count - 1)?)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian, Kubernetes, Cilium: nothing special.
    fn usual() -> Occupied {
        Occupied { local_ports: Some(32_768..=60_999), ..Occupied::default() }
    }

    #[test]
    fn an_ordinary_node_gives_the_widest_range() {
        assert_eq!(choose(&usual()), Choice { ports: WIDEST, bounds: Vec::new() });
        assert_eq!(choose(&Occupied::default()).ports, WIDEST, "nor does a kernel that tells nothing");
        assert!(WIDEST.len() > 2 * 9_000);
    }

    #[test]
    fn a_listener_splits_the_range_and_is_named() {
        let sockets = [(15_000, "redis-server (pid 7) has TCP port 15000".to_owned()), (9_000, "below".to_owned())];
        let choice = choose(&Occupied { sockets: sockets.clone().into(), ..usual() });
        assert_eq!(choice, Choice { ports: 15_001..=29_999, bounds: vec![sockets[0].1.clone()] });
    }

    #[test]
    fn local_ports_bound_it_but_for_those_that_are_reserved() {
        let low = Occupied { local_ports: Some(24_000..=60_999), ..usual() };
        assert_eq!(choose(&low).ports, 11_000..=23_999);
        assert!(choose(&low).bounds[0].contains("ip_local_port_range is 24000-60999"));
        let all = Occupied { local_ports: Some(1024..=65_535), ..usual() };
        let choice = choose(&all);
        assert_eq!((choice.ports, choice.bounds.len()), (DEFAULT_NAT_PORTS, 2), "no room: said, and as it always was");
        let reserved = Occupied { reserved_ports: vec![20_480..=29_999], ..all };
        assert_eq!(choose(&reserved).ports, 20_480..=29_999, "the node's connections leave these alone");
        let awaited = Occupied { reserved_ports: vec![12_000..=12_000], ..usual() };
        assert_eq!(
            choose(&awaited).ports,
            12_001..=29_999,
            "nobody reserves what the kernel does not give away, but for use"
        );
    }

    #[test]
    fn the_range_before_stays_unless_something_has_come_into_it_or_much_more_can_be_had() {
        let before = |before, occupied: Occupied| choose(&Occupied { before: Some(before), ..occupied }).ports;
        assert_eq!(before(11_000..=29_972, usual()), 11_000..=29_972, "a prime of ports");
        let narrower = 15_001..=29_989;
        assert_eq!(before(narrower.clone(), usual()), WIDEST, "a quarter more");
        assert_eq!(before(12_001..=29_989, usual()), 12_001..=29_989);
        let taken = Occupied { sockets: [(29_000, "somebody".to_owned())].into(), ..usual() };
        assert_eq!(before(12_001..=29_989, taken), 11_000..=28_999);
        assert_eq!(before(40_000..=49_000, usual()), WIDEST, "never where Cilium is");
        assert_eq!(before(20_480..=29_990, usual()), WIDEST, "the default of earlier versions");
    }
}
