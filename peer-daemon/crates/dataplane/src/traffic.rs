//! Whether counts agree: what one side hands over, the other side must have taken.
//!
//! Programs and devices count by themselves. Where a program of somebody else's, a full queue or a dead device stands between
//! the two, the figures drift apart. Devices carry other traffic as well, so a device may always count more; what matters is that
//! it counts far less. Pure: counts and times are arguments.

mod sample;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) use self::sample::crossings;
use crate::doctor::{Check, Finding, Severity};

/// Shortest time between two looks that are compared.
const WINDOW: Duration = Duration::from_secs(8);
/// Windows in a row, each of which must show it. A queue that fills in one of them drains in the next.
const WINDOWS: u32 = 2;
/// Packets handed over in a window, without which it says nothing.
const LEAST: u64 = 64;
/// Windows without any packet after which a gap is forgotten: nothing shows any more whether it is still there.
const FORGOTTEN: u32 = 6;
/// Below this share, as a divisor, it is a finding; below the other, packets do not flow.
const FEW: u64 = 2;
const HARDLY_ANY: u64 = 10;

/// A place where packets change hands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Crossing {
    /// From the mesh device to the program at its ingress, in packets.
    IntoPrograms {
        /// The mesh device.
        mesh: String,
    },
    /// From that program out of these uplinks, in bytes.
    OutOfUplinks {
        /// Names; several where routes may leave by either.
        uplinks: Vec<String>,
    },
    /// From the programs at the uplinks through the mesh device, in bytes.
    IntoMesh {
        /// The mesh device.
        mesh: String,
    },
}

/// What both sides of a crossing have counted since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Packets handed over.
    pub(crate) packets: u64,
    /// What was handed over, in the crossing's unit.
    pub(crate) given: u64,
    /// What was taken, in the same unit.
    pub(crate) taken: u64,
    /// Packets that the taking device has dropped itself.
    pub(crate) dropped: u64,
    /// Part of `given` that may wait for destinations which do not answer: a total of what is known now, no counter.
    pub(crate) excused: u64,
}

/// What went wrong at a crossing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Gap {
    /// Windows in a row that showed it.
    windows: u32,
    /// Windows without packets since then.
    quiet: u32,
    /// The last window that showed it, and the one before.
    latest: Window,
    before: Window,
}

/// What was counted in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    packets: u64,
    given: u64,
    taken: u64,
    dropped: u64,
    /// Part of `given` that may rightly be missing.
    excused: u64,
    time: Duration,
}

/// Compares counts from look to look.
#[derive(Debug, Default)]
pub(crate) struct TrafficWatch {
    last: Option<(Instant, BTreeMap<Crossing, Counts>)>,
    gaps: BTreeMap<Crossing, Gap>,
}

impl TrafficWatch {
    /// Takes a look. One that follows too soon is left out.
    pub(crate) fn look(&mut self, now: Instant, counts: BTreeMap<Crossing, Counts>) {
        let Some((then, before)) = &self.last else {
            self.last = Some((now, counts));
            return;
        };
        let time = now.saturating_duration_since(*then);
        if time < WINDOW {
            return;
        }
        let gaps = std::mem::take(&mut self.gaps);
        for (crossing, counts) in &counts {
            // One that is new, or counts anew, begins with the next window.
            let Some(window) = before.get(crossing).and_then(|before| Window::between(before, counts, time)) else {
                continue;
            };
            if let Some(gap) = gaps.get(crossing).copied().unwrap_or_default().after(window) {
                self.gaps.insert(crossing.clone(), gap);
            }
        }
        self.last = Some((now, counts));
    }

    /// Why packets do not flow, if so.
    pub(crate) fn judge(&self) -> Result<(), String> {
        let dead = |(crossing, gap): (&Crossing, &Gap)| {
            is_dead(crossing, gap).then(|| format!("{}; {}", describe(crossing, gap), crossing.remedy()))
        };
        self.gaps.iter().find_map(dead).map_or(Ok(()), Err)
    }

    /// What is found, the same among them.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let finding = |(crossing, gap): (&Crossing, &Gap)| {
            if gap.windows < WINDOWS {
                return None;
            }
            let severity = if is_dead(crossing, gap) { Severity::Problem } else { Severity::Warning };
            let finding = Finding::new(Check::Traffic, severity, describe(crossing, gap));
            Some(finding.about(crossing.devices()).remedy(crossing.remedy()))
        };
        self.gaps.iter().filter_map(finding).collect()
    }
}

impl Gap {
    /// What is left of it after another window; `None`: there is none.
    fn after(self, window: Window) -> Option<Self> {
        let known = self.windows > 0;
        match window.packets {
            0 => (known && self.quiet + 1 < FORGOTTEN).then_some(Self { quiet: self.quiet + 1, ..self }),
            _ if !window.lacks(FEW) => None,
            // It agrees with what was seen before, and is too little to show it by itself.
            packets if packets < LEAST || !window.lacks_beyond_excuse() => known.then_some(Self { quiet: 0, ..self }),
            _ => Some(Self { windows: self.windows + 1, quiet: 0, latest: window, before: self.latest }),
        }
    }

    /// Of its last two windows.
    fn figures(&self) -> Window {
        let (one, other) = (&self.before, &self.latest);
        Window {
            packets: one.packets + other.packets,
            given: one.given + other.given,
            taken: one.taken + other.taken,
            dropped: one.dropped + other.dropped,
            excused: one.excused + other.excused,
            time: one.time + other.time,
        }
    }
}

impl Window {
    /// `None`: something counts anew.
    fn between(before: &Counts, now: &Counts, time: Duration) -> Option<Self> {
        Some(Self {
            packets: now.packets.checked_sub(before.packets)?,
            given: now.given.checked_sub(before.given)?,
            excused: now.excused,
            taken: now.taken.checked_sub(before.taken)?,
            dropped: now.dropped.checked_sub(before.dropped)?,
            time,
        })
    }

    /// Whether less was taken than one part in `share` of what was given.
    fn lacks(&self, share: u64) -> bool {
        self.taken.saturating_mul(share) < self.given
    }

    /// Whether it is a gap even without what may rightly be missing.
    fn lacks_beyond_excuse(&self) -> bool {
        Self { given: self.given.saturating_sub(self.excused), ..*self }.lacks(FEW)
    }
}

impl Crossing {
    fn devices(&self) -> String {
        match self {
            Self::IntoPrograms { mesh } | Self::IntoMesh { mesh } => mesh.clone(),
            Self::OutOfUplinks { uplinks } => uplinks.join(", "),
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::IntoPrograms { mesh } => {
                format!(
                    "find the program that takes them ahead of ours: bpftool net show dev {mesh}, tc filter show dev {mesh} ingress"
                )
            }
            Self::OutOfUplinks { uplinks } => {
                let device = uplinks.first().map_or("DEVICE", String::as_str);
                format!(
                    "look for programs at its egress (bpftool net show dev {device}, tc filter show dev {device} egress), \
                     a full queue (tc -s qdisc show dev {device}) and the cable"
                )
            }
            Self::IntoMesh { mesh } => {
                format!(
                    "look for programs at its egress (bpftool net show dev {mesh}), and whether the daemon has CPU time left"
                )
            }
        }
    }
}

/// Packets that the mesh device drops itself come faster than the daemon reads: that is a load, and no reason to send it elsewhere.
fn is_dead(crossing: &Crossing, gap: &Gap) -> bool {
    let figures = gap.figures();
    let loaded =
        matches!(crossing, Crossing::IntoMesh { .. }) && figures.dropped.saturating_mul(FEW) >= figures.packets;
    gap.windows >= WINDOWS && figures.lacks(HARDLY_ANY) && !loaded
}

fn describe(crossing: &Crossing, gap: &Gap) -> String {
    let Window { packets, given, taken, dropped, time, .. } = gap.figures();
    let (devices, seconds) = (crossing.devices(), time.as_secs());
    let mut what = match crossing {
        Crossing::IntoPrograms { .. } => {
            format!("{devices} took in {given} packets in {seconds} s, and our program there saw {taken}")
        }
        Crossing::OutOfUplinks { .. } => format!(
            "we redirected {packets} packets ({given} bytes) to {devices} in {seconds} s, and it sent {taken} bytes in all"
        ),
        Crossing::IntoMesh { .. } => format!(
            "we redirected {packets} packets ({given} bytes) to {devices} in {seconds} s, and {taken} bytes passed it in all"
        ),
    };
    if dropped > 0 {
        what.push_str(&format!("; the device itself dropped {dropped} packets"));
    }
    what
}

#[cfg(test)]
mod tests;
