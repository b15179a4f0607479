//! What may be done about the order. Pure.

use std::fmt;
use std::time::{Duration, Instant};

use crate::chain::{CILIUM_PREFIX, Neighbour, OWN_PREFIX, Owner};
use crate::tc::Filter;

/// How often a place at the head is taken back before it is left to whoever wants it so much.
const TRIES: u32 = 3;
/// How long it is left then.
const BACK_OFF: Duration = Duration::from_secs(600);

/// Limits how often one program is moved to the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Repair {
    tries: u32,
    last: Option<Instant>,
}

impl Repair {
    /// Whether it may be moved now; that counts as done then.
    pub(super) fn may_try(&mut self, now: Instant) -> bool {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= BACK_OFF) {
            self.tries = 0;
        }
        if self.tries == TRIES {
            return false;
        }
        self.tries += 1;
        self.last = Some(now);
        true
    }
}

/// Why a filter of ours cannot be where it would have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Somebody else has our priority and handle.
    Taken { name: String },
    /// A filter of another kind has the priority.
    Kind { kind: String },
    /// Cilium's TCX program decides before ours ever runs.
    Tcx { what: String },
    /// Cilium's filter decides before ours, as long as its is the newer one. This one can be overridden.
    Cilium { what: String },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { name } => write!(f, "the filter {name} has our priority and handle: remove it"),
            Self::Kind { kind } => {
                write!(f, "a filter of kind {kind} has priority 1, where ours must be: give that one a higher number")
            }
            Self::Tcx { what } => {
                write!(f, "{what} is attached by TCX and ends the chain before any filter runs: use --attach tcx")
            }
            Self::Cilium { what } => write!(
                f,
                "{what} would run before ours and end the chain: set Cilium's bpf-filter-priority to 2 or more, or \
                 take the risk with --allow-unsafe-order"
            ),
        }
    }
}

/// Whether `own` may be among `filters`, which are those of its hook in their order; `tcx` runs before all of them.
pub(super) fn judge(own: &Filter, filters: &[Filter], tcx: &[Neighbour]) -> Result<(), Refusal> {
    for filter in filters.iter().filter(|filter| filter.priority == own.priority) {
        if filter.kind != own.kind {
            return Err(Refusal::Kind { kind: filter.kind.clone() });
        }
        if filter.handle == own.handle && filter.name != own.name {
            return Err(Refusal::Taken { name: filter.name.clone().unwrap_or_else(|| "without a name".to_owned()) });
        }
    }
    if let Some(neighbour) = tcx.iter().find(|neighbour| neighbour.owner.ends_chain()) {
        return Err(Refusal::Tcx { what: neighbour.owner.to_string() });
    }
    let ciliums = filters.iter().find(|filter| is_ciliums(filter) && filter.priority <= own.priority);
    ciliums.map_or(Ok(()), |filter| {
        let name = filter.name.as_deref().unwrap_or_default();
        Err(Refusal::Cilium { what: format!("Cilium's filter {name} at priority {}", filter.priority) })
    })
}

/// What of a chain must not be in force beside our `program`, which belongs at `position`. `ours` are the links that may be;
/// `None`: any that we have pinned, while those of another version are retired. Programs whose name the kernel does not tell are nobody's in particular.
pub(super) fn intruder(
    chain: &[Neighbour],
    position: Option<usize>,
    program: u32,
    ours: Option<&[u32]>,
) -> Option<String> {
    let others = chain.iter().enumerate().filter(|(place, _)| Some(*place) != position).map(|(_, other)| other);
    let in_place = position.and_then(|place| chain.get(place));
    if let Some(other) = in_place.filter(|other| other.program != program) {
        return Some(format!("another program (id {}) is in its place", other.program));
    }
    others.into_iter().find_map(|other| match &other.owner {
        _ if other.program == program => Some("it is attached twice".to_owned()),
        Owner::Own if other.link != 0 && ours.is_some_and(|ours| !ours.contains(&other.link)) => Some(format!("program {} of an earlier life is attached as well", other.program)),
        Owner::Former => Some(format!(
            "program {} of an earlier life, whose pins are on another bpffs, is attached as well: remove them there \
             (`rm -r BPFFS/peer/DEVICE`)",
            other.program
        )),
        Owner::Unknown(Some(name)) if name.starts_with(OWN_PREFIX) => Some(format!(
            "{name} (id {}) of another peer is attached as well, whose pins are on another bpffs: stop that peer, or remove them there (`rm -r BPFFS/peer/DEVICE`)",
            other.program
        )),
        _ => None,
    })
}

/// A filter as something that others run before or after.
pub(super) fn neighbour(filter: &Filter) -> Neighbour {
    let name = filter.name.clone().unwrap_or_else(|| filter.kind.clone());
    let owner = match name.strip_prefix(OWN_PREFIX).and_then(|rest| rest.split_once('/')) {
        Some((_, device)) => Owner::Peer(device.to_owned()),
        None if is_ciliums(filter) => Owner::Cilium(name),
        None => Owner::Unknown(Some(name)),
    };
    Neighbour { program: filter.program.unwrap_or(0), link: 0, owner }
}

fn is_ciliums(filter: &Filter) -> bool {
    filter.name.as_deref().is_some_and(|name| name.starts_with(CILIUM_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_taken_back_three_times_then_left_alone() {
        let start = Instant::now();
        let mut repair = Repair::default();
        let mut at = |seconds| repair.may_try(start + Duration::from_secs(seconds));
        assert_eq!([0, 10, 20, 30, 40, 619].map(&mut at), [true, true, true, false, false, false]);
        assert_eq!([620, 630, 640, 650].map(&mut at), [true, true, true, false]);
    }

    fn filter(priority: u16, handle: u32, kind: &str, name: &str) -> Filter {
        Filter { priority, handle, kind: kind.into(), name: Some(name.into()), program: Some(9) }
    }

    fn own() -> Filter {
        filter(1, 77, "bpf", "peer_uplink_in/wt0")
    }

    #[test]
    fn a_filter_goes_only_where_nobody_is_harmed_and_nobody_decides_before_it() {
        let cases = [
            (vec![], ""),
            (vec![own()], ""),
            (vec![filter(2, 1, "bpf", "cil_from_netdev-eth0")], ""),
            (vec![filter(1, 3, "bpf", "somebody")], ""),
            (vec![filter(1, 77, "bpf", "somebody")], "somebody has our priority and handle"),
            (vec![filter(1, 5, "u32", "")], "kind u32"),
            (vec![filter(1, 1, "bpf", "cil_from_netdev-eth0")], "bpf-filter-priority"),
        ];
        for (filters, expected) in cases {
            let judged = judge(&own(), &filters, &[]).map_err(|refusal| refusal.to_string()).err().unwrap_or_default();
            assert!(judged.contains(expected) && judged.is_empty() == expected.is_empty(), "{filters:?}: {judged}");
        }
    }

    #[test]
    fn what_must_not_be_in_force_beside_ours_is_found() {
        let at = |program, owner| Neighbour { program, link: program + 100, owner };
        let (own, unknown) = (|program| at(program, Owner::Own), |program| at(program, Owner::Unknown(None)));
        let named = |name: &str| at(9, Owner::Unknown(Some(name.to_owned())));
        let found = |chain: &[Neighbour], retiring: bool| {
            let ours = (!retiring).then(|| vec![107, 104]);
            intruder(chain, Some(0), 7, ours.as_deref()).unwrap_or_default()
        };
        assert_eq!(found(&[own(7), own(4)], false), "", "the second of ours on wt0");
        assert_eq!(found(&[own(7), unknown(8), at(5, Owner::Peer("wt1".into()))], false), "");
        assert_eq!(found(&[own(8)], false), "another program (id 8) is in its place");
        assert_eq!(found(&[own(7), unknown(7)], false), "it is attached twice");
        assert_eq!(found(&[own(7), own(6)], false), "program 6 of an earlier life is attached as well");
        assert_eq!(found(&[own(7), own(6)], true), "", "of the version before, for a minute");
        assert!(found(&[own(7), named("peer_uplink_in")], true).contains("another bpffs"));
        assert_eq!(found(&[own(7), named("somebody")], false), "");
    }

    #[test]
    fn a_filter_behind_ciliums_tcx_program_would_never_run() {
        let neighbour = |owner| Neighbour { program: 1, link: 2, owner };
        let cilium = neighbour(Owner::Cilium("cil_from_netdev".into()));
        assert!(matches!(judge(&own(), &[], &[cilium]), Err(Refusal::Tcx { .. })));
        assert_eq!(judge(&own(), &[], &[neighbour(Owner::Unknown(None))]), Ok(()));
    }
}
