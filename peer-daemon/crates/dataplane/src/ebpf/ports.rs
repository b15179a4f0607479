//! Ports of source NAT in use towards each remote, and each peer's part of them, counted anew by every scan.

use std::os::fd::BorrowedFd;

use peer_common::layout::map;
use peer_common::route::PORT_COUNTS;
use peer_common::{Config, Flow, FlowKey, FlowKind, ports};

use crate::{Error, sys};

/// Counts, by place.
#[derive(Default)]
pub(super) struct PortCounts {
    hash_key: [u64; 2],
    range: u32,
    remotes: Vec<u32>,
    members: Vec<u32>,
}

impl PortCounts {
    /// No port is in use yet.
    pub(super) fn new(config: &Config) -> Self {
        let none = vec![0; PORT_COUNTS as usize];
        Self { hash_key: config.hash_key, range: config.nat_port_count.into(), remotes: none.clone(), members: none }
    }

    /// Counts the port of a flow, if it has one.
    pub(super) fn add(&mut self, key: &FlowKey, flow: &Flow) {
        if flow.kind != FlowKind::Masqueraded as u8 {
            return;
        }
        let remote = ports::remote_hash(self.hash_key, key, &flow.nat_addr);
        let places = [
            (&mut self.remotes, ports::remote_place(remote)),
            (&mut self.members, ports::member_place(remote, flow.peer_id)),
        ];
        for (counts, place) in places {
            if let Some(count) = counts.get_mut(place as usize) {
                *count += 1;
            }
        }
    }

    /// Whether ports towards the remote of a flow are scarce.
    pub(super) fn is_scarce(&self, key: &FlowKey, flow: &Flow) -> bool {
        if flow.kind != FlowKind::Masqueraded as u8 {
            return false;
        }
        let remote = ports::remote_hash(self.hash_key, key, &flow.nat_addr);
        let used = self.remotes.get(ports::remote_place(remote) as usize);
        used.is_some_and(|&used| used > 0 && ports::scarce(used, self.range))
    }

    /// Ports in use towards the remote that has most.
    pub(super) fn busiest(&self) -> u32 {
        self.remotes.iter().copied().max().unwrap_or(0)
    }

    /// Makes the tables of counters hold these counts. What the programs have counted meanwhile is lost until the next scan.
    pub(super) fn write(&self, remotes: BorrowedFd<'_>, members: BorrowedFd<'_>) -> Result<(), Error> {
        write(remotes, &self.remotes).map_err(|source| Error::io(format!("write {}", map::REMOTE_PORTS), source))?;
        write(members, &self.members).map_err(|source| Error::io(format!("write {}", map::MEMBER_PORTS), source))
    }
}

/// Writes the counts that differ: few do.
fn write(table: BorrowedFd<'_>, counts: &[u32]) -> std::io::Result<()> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let mut batches = sys::Batches::<u32, u32>::new(counts.len().max(1));
    loop {
        let mut ended = true;
        for (&place, &known) in batches.next(table)? {
            ended = false;
            if let Some(&count) = counts.get(place as usize).filter(|&&count| count != known) {
                keys.push(place);
                values.push(count);
            }
        }
        if ended {
            return sys::update_all(table, &keys, &values);
        }
    }
}

#[cfg(test)]
mod tests {
    use peer_common::Addr;

    use super::*;

    fn flow(peer_id: u32, port: u16) -> (FlowKey, Flow) {
        let key = FlowKey { dst: Addr::from_v4_be(7), dst_port: port.to_be(), protocol: 6, ..FlowKey::default() };
        (key, Flow { peer_id, kind: FlowKind::Masqueraded as u8, ..Flow::default() })
    }

    #[test]
    fn a_remote_is_scarce_from_three_quarters_on_and_others_are_not() {
        let config = Config { hash_key: [1, 2], nat_port_count: 7, ..Config::default() };
        let mut counts = PortCounts::new(&config);
        let ((busy, one), (idle, two)) = (flow(1, 443), flow(2, 444));
        for used in 1..=6 {
            assert!(!counts.is_scarce(&busy, &one));
            counts.add(&busy, &one);
            assert_eq!(counts.busiest(), used);
        }
        assert!(counts.is_scarce(&busy, &two) && !counts.is_scarce(&idle, &two));
        counts.add(&busy, &Flow { kind: FlowKind::Routed as u8, ..one });
        assert_eq!(counts.busiest(), 6, "what keeps its source takes no port");
        assert!(!PortCounts::default().is_scarce(&busy, &one), "nothing is known before the first scan");
    }
}
