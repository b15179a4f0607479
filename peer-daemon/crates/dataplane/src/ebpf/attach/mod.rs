//! Programs at their places: TCX at the head, by pinned links; legacy filters where there is no TCX.

mod clsact;
mod order;
mod tcx;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aya::Ebpf;
use peer_common::layout::program;

use self::order::Repair;
pub(crate) use self::trace::Trace;
use super::load::{self, classifier};
use super::pins::{self, PinDirs};
use super::{Attach, Options};
use crate::chain::{Neighbour, Owner, Owners};
use crate::sys::{self, Link, TcxHook};
use crate::{Attachment, Error, Repairs};

/// How long programs of another version stay behind ours on the uplinks after a takeover. Replies to flows that only
/// their tables know still find their way, until the next packet of each flow has made it known to ours.
const RETIRE_AFTER: Duration = Duration::from_secs(60);

/// A place for a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) program: &'static str,
    pub(super) device: String,
    pub(super) ifindex: u32,
    pub(super) egress: bool,
}

/// How programs are held in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Tcx,
    Clsact,
}

/// What is attached.
pub(super) struct Attachments {
    dirs: PinDirs,
    wt0: String,
    method: Method,
    allow_unsafe_order: bool,
    /// What is held where. The pins keep it; only where there are none descriptors of ours do.
    held: BTreeMap<Place, Held>,
    repairs: Repairs,
    /// Devices whose clsact qdisc this life has made, where no pin says so.
    qdiscs: BTreeSet<String>,
    /// Whether filters without a pin have been searched for.
    swept: bool,
    /// Programs of earlier lives that may still be attached somewhere.
    left: BTreeSet<u32>,
    /// What the mesh device's alias says, by interface index.
    traced: Option<(u32, Trace)>,
    /// When what other versions have left goes; `None`: they have left nothing, or nothing of ours is in force yet.
    retire: Option<Instant>,
}

#[derive(Debug, Default)]
struct Held {
    /// The link, 0 for a filter.
    link: u32,
    /// The program that we have put there.
    program: u32,
    /// The link itself, where it is not pinned.
    open: Option<Link>,
    repair: Repair,
}

/// Where a program stands.
#[derive(Default)]
struct Standing {
    /// All that runs there, first to last.
    chain: Vec<Neighbour>,
    /// Its place among them; `None`: it is not in place.
    position: Option<usize>,
}

impl Standing {
    /// What runs before it, without what is ours.
    fn ahead(&self) -> impl Iterator<Item = &Neighbour> {
        let ahead = &self.chain[..self.position.unwrap_or(0)];
        ahead.iter().filter(|neighbour| neighbour.owner != Owner::Own)
    }

    /// The program in its place.
    fn program(&self) -> Option<u32> {
        Some(self.chain.get(self.position?)?.program)
    }
}

impl Attachments {
    pub(super) fn new(dirs: &PinDirs, wt0: &str, options: &Options) -> Result<Self, Error> {
        let method = match options.attach {
            Attach::Tcx => Method::Tcx,
            Attach::Clsact => Method::Clsact,
            Attach::Auto if has_tcx()? => Method::Tcx,
            Attach::Auto => Method::Clsact,
        };
        // The device may be made anew before the first program is attached.
        let Trace { runs, left } = Trace::read(wt0);
        Ok(Self {
            left: &runs | &left,
            traced: None,
            dirs: dirs.clone(),
            wt0: wt0.to_owned(),
            method,
            allow_unsafe_order: options.allow_unsafe_order,
            held: BTreeMap::new(),
            repairs: Repairs::default(),
            qdiscs: BTreeSet::new(),
            swept: !dirs.is_fresh(),
            retire: None,
        })
    }

    /// How programs are held in place, for people.
    pub(super) fn method(&self) -> &'static str {
        match self.method {
            Method::Tcx => "TCX",
            Method::Clsact => "clsact filters",
        }
    }

    /// Attaches at all of `places` and nowhere else. What an earlier life has left is updated in place: no packet passes
    /// without a program in between.
    pub(super) fn set(&mut self, ebpf: &mut Ebpf, places: &[Place]) -> Result<(), Error> {
        self.leave_trace(ebpf, places)?;
        for place in places {
            if !self.held.contains_key(place) {
                let held = self.hold(ebpf, place)?;
                self.held.insert(place.clone(), held);
            }
        }
        let gone = self.held.extract_if(.., |place, _| !places.contains(place)).collect::<Vec<_>>();
        if !self.dirs.is_pinned() {
            gone.iter().try_for_each(|(place, held)| self.let_go(place, held))?;
        }
        self.sweep(places)?;
        if self.retire.is_none() && !self.dirs.others().is_empty() {
            tracing::info!("another version's programs were taken over; what is left of it goes in {RETIRE_AFTER:?}");
            self.retire = Some(Instant::now() + RETIRE_AFTER);
        }
        Ok(())
    }

    /// Attaches again what is not in its chain any more, and goes ahead of whatever is known to end the chain before us.
    pub(super) fn mend(&mut self, ebpf: &mut Ebpf, now: Instant) -> Result<(), Error> {
        let owners = self.owners();
        let mut result = Ok(());
        for place in self.held.keys().cloned().collect::<Vec<_>>() {
            // One that cannot be mended is no reason to leave the others.
            result = result.and(self.mend_place(ebpf, &place, &owners, now));
        }
        if self.retire.is_some_and(|at| at <= now) {
            self.drop_others()?;
            self.retire = None;
        }
        result
    }

    /// Where our programs stand.
    pub(super) fn list(&self) -> Vec<Attachment> {
        let owners = self.owners();
        let ours = self.ours();
        let attachment = |(place, held): (&Place, &Held)| {
            let standing = self.standing(place, held.link, &owners).unwrap_or_else(|error| {
                tracing::warn!(device = place.device, %error, "a chain cannot be read");
                Standing::default()
            });
            Attachment {
                program: place.program,
                device: place.device.clone(),
                ifindex: place.ifindex,
                link_id: held.link,
                position: standing.position.map(|_| standing.ahead().count()),
                chain: standing.chain.len(),
                ahead: standing.ahead().cloned().collect(),
                intruder: order::intruder(&standing.chain, standing.position, held.program, ours.as_deref()),
            }
        };
        self.held.iter().map(attachment).collect()
    }

    /// Links that may be in force; `None`: those of another version as well.
    fn ours(&self) -> Option<Vec<u32>> {
        self.retire.is_none().then(|| self.held.values().map(|held| held.link).collect())
    }

    /// What had to be mended.
    pub(super) fn repairs(&self) -> Repairs {
        self.repairs
    }

    /// Detaches everything: pins of all versions go, and with them the links.
    pub(super) fn remove(mut self) -> Result<(), Error> {
        let held = std::mem::take(&mut self.held);
        if !self.dirs.is_pinned() {
            held.iter().try_for_each(|(place, held)| self.let_go(place, held))?;
            self.qdiscs.iter().try_for_each(|device| clsact::drop_qdisc(device))?;
        }
        self.sweep(&[])?;
        self.drop_others()
    }

    /// Removes what other versions have left.
    fn drop_others(&self) -> Result<(), Error> {
        let kept: Vec<u32> = self.held.values().map(|held| held.link).collect();
        for version in self.dirs.others() {
            tcx::drop_links(&version.join("links"), &kept)?;
        }
        self.dirs.remove_others()
    }

    fn owners(&self) -> Owners {
        Owners::read(&self.dirs.bpffs, &self.wt0).and_own(self.held.values().map(|held| held.link))
    }

    /// Writes into the mesh device's alias which programs are ours, before they are attached, and which earlier ones still run at
    /// one of the node's devices.
    fn leave_trace(&mut self, ebpf: &mut Ebpf, places: &[Place]) -> Result<(), Error> {
        let Some(wt0) = places.iter().find(|place| place.device == self.wt0).map(|place| place.ifindex) else {
            return Ok(());
        };
        let mut runs = BTreeSet::new();
        for name in load::PROGRAMS {
            let what = || format!("look at {name}");
            let program = classifier(ebpf, name).map_err(|source| Error::Program { what: what(), source })?;
            let program = program.fd().map_err(|source| Error::Program { what: what(), source })?;
            runs.insert(sys::program_id(program.as_fd()).map_err(failed(what()))?);
        }
        if !self.left.is_empty() {
            let attached = sys::ifindexes().map_err(failed("list devices"))?.into_iter().flat_map(attached_to);
            let attached: BTreeSet<u32> = attached.collect();
            self.left = self.left.iter().copied().filter(|id| attached.contains(id) && !runs.contains(id)).collect();
        }
        let trace = (wt0, Trace { runs, left: self.left.clone() });
        if self.traced.as_ref() != Some(&trace) {
            if let Err(error) = trace.1.write(wt0) {
                tracing::warn!(%error, device = self.wt0, "no alias: a start with another bpffs will not know these programs");
            }
            self.traced = Some(trace);
        }
        Ok(())
    }

    fn mend_place(&mut self, ebpf: &mut Ebpf, place: &Place, owners: &Owners, now: Instant) -> Result<(), Error> {
        let Some(held) = self.held.get(place) else { return Ok(()) };
        let (program, device) = (place.program, place.device.as_str());
        let standing = self.standing(place, held.link, owners)?;
        let Some(in_place) = standing.program() else {
            tracing::warn!(program, device, "program was not in its chain: attaching again");
            self.repairs.attached += 1;
            return self.hold_again(ebpf, place);
        };
        if in_place != held.program && self.held.get_mut(place).is_some_and(|held| held.repair.may_try(now)) {
            tracing::warn!(program, device, id = in_place, "another program was put in its place: putting ours back");
            self.repairs.attached += 1;
            return self.hold_again(ebpf, place);
        }
        let Some(first) = standing.ahead().find(|neighbour| neighbour.owner.ends_chain()) else { return Ok(()) };
        let Some(held) = self.held.get_mut(place) else { return Ok(()) };
        if !held.repair.may_try(now) {
            self.repairs.given_up += 1;
            tracing::warn!(program, device, ahead = %first, "still behind a program that ends the chain: not fought now");
            return Ok(());
        }
        tracing::warn!(program, device, ahead = %first, "behind a program that ends the chain: going ahead of it");
        // One takeover of the head is one repair, also where a second program follows the first.
        self.repairs.reordered += u64::from(place.behind().is_none());
        if let Some(held) = self.held.get(place) {
            self.let_go(place, held)?;
        }
        self.hold_again(ebpf, place)
    }

    fn hold_again(&mut self, ebpf: &mut Ebpf, place: &Place) -> Result<(), Error> {
        let again = self.hold(ebpf, place)?;
        if let Some(held) = self.held.get_mut(place) {
            *held = Held { repair: held.repair, ..again };
        }
        Ok(())
    }

    /// Takes a program out of its chain at once.
    fn let_go(&self, place: &Place, held: &Held) -> Result<(), Error> {
        match (self.method, &held.open) {
            // Fails when its device goes at this moment: then it is out of every chain.
            (Method::Tcx, Some(link)) => _ = link.detach(),
            (Method::Tcx, None) => tcx::let_go(place, &self.dirs)?,
            (Method::Clsact, _) => clsact::let_go(place, &self.wt0)?,
        }
        Ok(())
    }

    fn standing(&self, place: &Place, link: u32, owners: &Owners) -> Result<Standing, Error> {
        match self.method {
            Method::Tcx => tcx::standing(place, link, owners),
            Method::Clsact => clsact::standing(place, &self.wt0, owners),
        }
        .map_err(|source| Error::io(format!("look at the programs on {}", place.device), source))
    }

    /// Sees to it that the program is attached at its place, and pinned where there are pins.
    fn hold(&mut self, ebpf: &mut Ebpf, place: &Place) -> Result<Held, Error> {
        let what = || format!("attach {} to {}", place.program, place.device);
        let program = classifier(ebpf, place.program).map_err(|source| Error::Program { what: what(), source })?;
        let program = program.fd().map_err(|source| Error::Program { what: what(), source })?;
        let id = sys::program_id(program.as_fd()).map_err(failed(what()))?;
        let held = Held { program: id, ..Held::default() };
        match self.method {
            Method::Tcx => {
                let (link, open) = if self.dirs.is_pinned() {
                    (tcx::hold(program, place, &self.dirs)?, None)
                } else {
                    let first = self.held.iter().find(|(other, _)| other.program == program::WT0_INGRESS);
                    let (link, open) =
                        tcx::hold_unpinned(program, place, first.and_then(|(_, held)| held.open.as_ref()))?;
                    (link, Some(open))
                };
                // Of a life whose pins are elsewhere: it would judge once more what ours has passed.
                clsact::let_go(place, &self.wt0)?;
                Ok(Held { link, open, ..held })
            }
            Method::Clsact => {
                let order = clsact::Order { owners: &self.owners(), allow_unsafe: self.allow_unsafe_order };
                let made = clsact::hold(program, place, &self.dirs, &self.wt0, &order)?;
                if made && !self.dirs.is_pinned() {
                    self.qdiscs.insert(place.device.clone());
                }
                Ok(held)
            }
        }
    }

    /// Removes what is ours and belongs to none of `places`: links of this version, and filters of every version.
    fn sweep(&mut self, places: &[Place]) -> Result<(), Error> {
        let links: &[Place] = if self.method == Method::Tcx { places } else { &[] };
        tcx::sweep(&self.dirs.links, links)?;
        let filters: &[Place] = if self.method == Method::Clsact { places } else { &[] };
        if !std::mem::replace(&mut self.swept, true) {
            clsact::sweep_devices(&self.wt0, filters)?;
        }
        clsact::sweep(&self.dirs, &self.wt0, filters)
    }
}

impl Place {
    fn pin(&self) -> PathBuf {
        format!("{}-{}", self.program, pins::pin_name(&self.device)).into()
    }

    /// The pin of the program that this one must be behind.
    fn behind(&self) -> Option<PathBuf> {
        let first = Self { program: program::WT0_INGRESS, ..self.clone() };
        (self.program == program::WT0_LAST).then(|| first.pin())
    }

    fn hook(&self) -> TcxHook {
        if self.egress { TcxHook::Egress } else { TcxHook::Ingress }
    }
}

/// Ids of the programs that TCX has at a device.
fn attached_to(ifindex: u32) -> Vec<u32> {
    let programs = |hook| sys::chain(ifindex, hook).map(|chain| chain.entries).unwrap_or_default();
    [TcxHook::Ingress, TcxHook::Egress].into_iter().flat_map(programs).map(|(program, _)| program).collect()
}

/// Asked of the kernel, which refuses the question as such when it has no TCX (before 6.6).
fn has_tcx() -> Result<bool, Error> {
    const LOOPBACK: u32 = 1;
    match sys::chain(LOOPBACK, TcxHook::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(source) => Err(failed("ask for TCX")(source)),
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::io(what, source)
}
