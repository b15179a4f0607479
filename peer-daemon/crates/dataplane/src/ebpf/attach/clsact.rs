//! Legacy filters, for kernels without TCX: direct-action, at priority 1, under a handle and a name of our own.
//!
//! A filter belongs to its device and outlives us by itself. What is pinned beside it says, after a restart, that it is
//! there: the program, under the name of its place, and a directory for each clsact qdisc that we made. Without pins its name
//! says so.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;

use aya::programs::ProgramFd;
use peer_common::layout::program;

use super::super::pins::{PinDirs, name, pin_name, remove_pin};
use super::order::{self, Refusal};
use super::{Place, Standing, failed};
use crate::Error;
use crate::chain::{Neighbour, Owner, Owners, entries};
use crate::sys::{self, TcxHook};
use crate::tc::{Filter, Tc};

const PRIORITY: u16 = 1;
const QDISC: &str = "qdisc-";
/// Where programs of ours belong.
const HOOKS: [(&str, TcxHook); 4] = [
    (program::WT0_INGRESS, TcxHook::Ingress),
    (program::WT0_LAST, TcxHook::Ingress),
    (program::WT0_EGRESS, TcxHook::Egress),
    (program::UPLINK_INGRESS, TcxHook::Ingress),
];

/// What the order is judged by.
pub(super) struct Order<'a> {
    pub(super) owners: &'a Owners,
    /// Go ahead although Cilium's filter has the same priority: the newest runs first, until Cilium makes its own anew.
    pub(super) allow_unsafe: bool,
}

/// Attaches, or puts the program into the filter that an earlier life has left; returns whether the qdisc is of our making.
pub(super) fn hold(
    program: &ProgramFd,
    place: &Place,
    dirs: &PinDirs,
    wt0: &str,
    order: &Order<'_>,
) -> Result<bool, Error> {
    let what = || format!("attach {} to {}", place.program, place.device);
    let dir = &dirs.filters;
    if dirs.is_pinned() {
        fs::create_dir_all(dir).map_err(failed(format!("make {}", dir.display())))?;
    }
    let mut tc = Tc::connect().map_err(failed("open a netlink socket"))?;
    let own = own_filter(place, wt0);
    let filters = tc.filters(place.ifindex, place.hook()).map_err(failed(what()))?;
    let tcx = tcx_chain(place, order.owners).map_err(failed(what()))?;
    match order::judge(&own, &filters, &tcx) {
        // What Cilium's filter ends, ours has passed, which is the first.
        Err(Refusal::Cilium { .. }) if place.program == program::WT0_LAST => {}
        Err(Refusal::Cilium { what }) if order.allow_unsafe => {
            tracing::warn!(device = place.device, "{what}: unsafe order, as allowed");
        }
        Err(refusal) => return Err(Error::Order { device: place.device.clone(), why: refusal.to_string() }),
        Ok(()) => {}
    }
    let made = tc.add_clsact(place.ifindex).map_err(failed(what()))?;
    if made && dirs.is_pinned() {
        mark_qdisc(dirs, &pin_name(&place.device))?;
    }
    let replace = filters.iter().any(|filter| is_same(filter, &own));
    tc.set_filter(place.ifindex, place.hook(), &own, program.as_fd(), replace).map_err(failed(what()))?;
    // The kernel alone knows in which order it has put them.
    let id = sys::program_id(program.as_fd()).map_err(failed(what()))?;
    let after = tc.filters(place.ifindex, place.hook()).map_err(failed(what()))?;
    if !after.iter().any(|filter| is_same(filter, &own) && filter.program == Some(id)) {
        return Err(failed(what())(io::Error::other("the filter is not there after it was set")));
    }
    if dirs.is_pinned() {
        let pin = dir.join(place.pin());
        remove_pin(&pin)?;
        sys::pin(program.as_fd(), &pin).map_err(failed(format!("pin {}", pin.display())))?;
    }
    Ok(made)
}

/// Removes the filter, so that it can be put in front again.
pub(super) fn let_go(place: &Place, wt0: &str) -> Result<(), Error> {
    let own = own_filter(place, wt0);
    let removed = Tc::connect().and_then(|mut tc| remove_own(&mut tc, place.ifindex, place.hook(), &own));
    removed.map_err(failed(format!("detach {} from {}", place.program, place.device)))
}

pub(super) fn standing(place: &Place, wt0: &str, owners: &Owners) -> io::Result<Standing> {
    let mut chain = tcx_chain(place, owners)?;
    let filters = Tc::connect()?.filters(place.ifindex, place.hook())?;
    let own = own_filter(place, wt0);
    let position = filters.iter().position(|filter| is_same(filter, &own)).map(|position| chain.len() + position);
    // Our other filter beside this one is no stranger's.
    let peer = Owner::Peer(wt0.to_owned());
    let neighbour = |filter| match order::neighbour(filter) {
        neighbour if neighbour.owner == peer => Neighbour { owner: Owner::Own, ..neighbour },
        neighbour => neighbour,
    };
    chain.extend(filters.iter().map(neighbour));
    Ok(Standing { chain, position })
}

/// Removes filters, and qdiscs that we made and nobody uses, which no place of `places` needs: of every version.
pub(super) fn sweep(dirs: &PinDirs, wt0: &str, places: &[Place]) -> Result<(), Error> {
    let own = &dirs.filters;
    let versions = dirs.others().into_iter().map(|version| version.join("filters")).chain([own.clone()]);
    let mut unused = Vec::new();
    for path in versions.flat_map(|dir| entries(&dir)) {
        let pin = name(&path);
        let is_own = path.parent() == Some(own);
        if let Some(device) = pin.strip_prefix(QDISC) {
            if !places.iter().any(|place| pin_name(&place.device) == device) {
                unused.push((path, device.replace(':', ".")));
            } else if !is_own {
                mark_qdisc(dirs, device)?;
            }
            continue;
        }
        let needed = places.iter().any(|place| place.pin().as_os_str() == pin.as_str());
        if !needed {
            remove_filter(&pin, wt0)?;
        }
        if !(needed && is_own) {
            remove_pin(&path)?;
        }
    }
    for (marker, device) in unused {
        remove_qdisc(&device).map_err(failed(format!("clean {device}")))?;
        fs::remove_dir(&marker).map_err(failed(format!("remove {}", marker.display())))?;
    }
    Ok(())
}

/// Removes filters of ours that no place of `places` needs from all devices, by their names: of a life whose pins are not seen.
pub(super) fn sweep_devices(wt0: &str, places: &[Place]) -> Result<(), Error> {
    let look = || {
        let mut tc = Tc::connect()?;
        for ifindex in sys::ifindexes()? {
            for (program, hook) in HOOKS {
                let needed = places.iter().any(|place| (place.program, place.ifindex) == (program, ifindex));
                if !needed {
                    remove_own(&mut tc, ifindex, hook, &filter_named(program, wt0))?;
                }
            }
        }
        Ok(())
    };
    look().map_err(failed("remove filters of an earlier life"))
}

/// Removes the qdisc of a device, unless somebody uses it.
pub(super) fn drop_qdisc(device: &str) -> Result<(), Error> {
    remove_qdisc(device).map_err(failed(format!("clean {device}")))
}

/// Remembers that the qdisc of a device, by its name in pins, is of our making.
fn mark_qdisc(dirs: &PinDirs, device: &str) -> Result<(), Error> {
    let marker = dirs.filters.join(format!("{QDISC}{device}"));
    fs::create_dir_all(&marker).map_err(failed(format!("make {}", marker.display())))
}

/// By the name of its pin. A device that is gone has taken it along.
fn remove_filter(pin: &str, wt0: &str) -> Result<(), Error> {
    for (program, hook) in HOOKS {
        let device = pin.strip_prefix(program).and_then(|rest| rest.strip_prefix('-'));
        let Some(device) = device.map(|device| device.replace(':', ".")) else { continue };
        let Some(ifindex) = sys::ifindex(&device) else { continue };
        let own = filter_named(program, wt0);
        let removed = Tc::connect().and_then(|mut tc| remove_own(&mut tc, ifindex, hook, &own));
        removed.map_err(failed(format!("detach {program} from {device}")))?;
    }
    Ok(())
}

fn remove_own(tc: &mut Tc, ifindex: u32, hook: TcxHook, own: &Filter) -> io::Result<()> {
    if tc.filters(ifindex, hook)?.iter().any(|filter| is_same(filter, own)) {
        tc.remove_filter(ifindex, hook, own)?;
    }
    Ok(())
}

fn remove_qdisc(device: &str) -> io::Result<()> {
    let Some(ifindex) = sys::ifindex(device) else { return Ok(()) };
    let mut tc = Tc::connect()?;
    let used = !tc.filters(ifindex, TcxHook::Ingress)?.is_empty() || !tc.filters(ifindex, TcxHook::Egress)?.is_empty();
    if used { Ok(()) } else { tc.remove_clsact(ifindex) }
}

/// TCX programs, which run before any filter; none where the kernel has no TCX.
fn tcx_chain(place: &Place, owners: &Owners) -> io::Result<Vec<Neighbour>> {
    match owners.chain(place.ifindex, place.hook()) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        chain => Ok(chain?.0),
    }
}

fn own_filter(place: &Place, wt0: &str) -> Filter {
    filter_named(place.program, wt0)
}

/// Two peers on one node share uplinks: the name, and the handle made from it, tell their filters apart.
fn filter_named(program: &str, wt0: &str) -> Filter {
    let name = format!("{program}/{wt0}");
    let handle = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // Small numbers are what others choose by hand, and 0 stands for any. The kernel takes 31 bits.
    let handle = (handle | 0x0100_0000) & 0x7fff_ffff;
    let priority = if program == program::WT0_LAST { PRIORITY + 1 } else { PRIORITY };
    Filter { priority, handle, kind: "bpf".into(), name: Some(name), program: None }
}

fn is_same(filter: &Filter, own: &Filter) -> bool {
    (filter.priority, filter.handle, &filter.name) == (own.priority, own.handle, &own.name)
}
