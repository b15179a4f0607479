//! TCX: a pinned link for each place, at the head of its chain.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use aya::programs::ProgramFd;
use peer_common::layout::program::UPLINK_INGRESS;

use super::super::pins::{PinDirs, remove_pin};
use super::{Place, Standing, failed};
use crate::Error;
use crate::chain::{Owners, entries, file_name};
use crate::sys::{self, End, Link, TcxHook};

/// How often a chain may change under our hands before we attach whatever its state.
const TRIES: usize = 3;

/// Attaches, or puts the program into the link that an earlier life has left; returns the link's id.
pub(super) fn hold(program: &ProgramFd, place: &Place, dirs: &PinDirs) -> Result<u32, Error> {
    let program = program.as_fd();
    let path = dirs.links.join(place.pin());
    fs::create_dir_all(&dirs.links).map_err(failed(format!("make {}", dirs.links.display())))?;
    // On an uplink the other version's link stays for a while, behind ours: see `RETIRE_AFTER`.
    let beside = place.program == UPLINK_INGRESS && !dirs.others().is_empty();
    if !beside {
        if let Some(id) = update_pinned(program, place, &path)? {
            return Ok(id);
        }
        if let Some(id) = take_over(program, place, dirs, &path)? {
            return Ok(id);
        }
    }
    attach(program, place, &path, dirs)
}

/// Attaches where nothing is pinned: it holds as long as the link lives. `first` is that of the program to be behind.
pub(super) fn hold_unpinned(program: &ProgramFd, place: &Place, first: Option<&Link>) -> Result<(u32, Link), Error> {
    let what = || format!("attach {} to {}", place.program, place.device);
    let link = match first.filter(|_| place.behind().is_some()) {
        Some(first) => Link::create_behind(program.as_fd(), place.ifindex, place.hook(), first),
        None => create(program.as_fd(), place.ifindex, place.hook()),
    };
    let link = link.map_err(failed(what()))?;
    Ok((link.info().map_err(failed(what()))?.id, link))
}

/// Ends the links of a directory that belong to none of `places`.
pub(super) fn sweep(dir: &Path, places: &[Place]) -> Result<(), Error> {
    let needed = |path: &Path| places.iter().any(|place| dir.join(place.pin()) == path);
    entries(dir).iter().filter(|path| !needed(path)).try_for_each(|path| end(path, &[]))
}

/// Ends the links of a directory, but for those in `kept`, which have another pin.
pub(super) fn drop_links(dir: &Path, kept: &[u32]) -> Result<(), Error> {
    entries(dir).iter().try_for_each(|path| end(path, kept))
}

/// Takes a program out of its chain and removes the pin. The loss of its pin alone ends a link, too, but at a time of the
/// kernel's choice.
fn end(path: &Path, kept: &[u32]) -> Result<(), Error> {
    if let Ok(Some(link)) = sys::link_at(path)
        && link.info().is_ok_and(|info| info.ifindex != 0 && !kept.contains(&info.id))
    {
        // Fails when its device goes at this moment: then it is out of every chain.
        let _ = link.detach();
    }
    remove_pin(path)
}

/// Detaches at once, so that the program can be attached again elsewhere in the chain. To be used only where nothing
/// reaches it anyway.
pub(super) fn let_go(place: &Place, dirs: &PinDirs) -> Result<(), Error> {
    let path = dirs.links.join(place.pin());
    if let Some(link) = sys::link_at(&path).map_err(failed(format!("read {}", path.display())))? {
        link.detach().map_err(failed(format!("detach {}", path.display())))?;
    }
    remove_pin(&path)
}

pub(super) fn standing(place: &Place, link: u32, owners: &Owners) -> io::Result<Standing> {
    let (chain, _) = owners.chain(place.ifindex, place.hook())?;
    let position = chain.iter().position(|neighbour| neighbour.link == link);
    Ok(Standing { chain, position })
}

/// Attaches at the head. A link of ours that is there goes only then: no packet passes without a program.
fn attach(program: BorrowedFd<'_>, place: &Place, path: &Path, dirs: &PinDirs) -> Result<u32, Error> {
    let what = || format!("attach {} to {}", place.program, place.device);
    let first = match place.behind() {
        Some(first) => sys::link_at(&dirs.links.join(&first)).map_err(failed(format!("read {}", first.display())))?,
        None => None,
    };
    let link = match &first {
        Some(first) => Link::create_behind(program, place.ifindex, place.hook(), first),
        None => create(program, place.ifindex, place.hook()),
    };
    let link = link.map_err(failed(what()))?;
    let old = sys::link_at(path).map_err(failed(format!("read {}", path.display())))?;
    let new = path.with_file_name(format!("{}:new", place.pin().display()));
    remove_pin(&new)?;
    sys::pin(link.as_fd(), &new).map_err(failed(format!("pin {}", new.display())))?;
    fs::rename(&new, path).map_err(failed(format!("rename {}", new.display())))?;
    if let Some(old) = old {
        let _ = old.detach();
    }
    Ok(link.info().map_err(failed(what()))?.id)
}

/// Puts our program into the link that is pinned for the place. `None`: there is no such link, or its device is gone.
fn update_pinned(program: BorrowedFd<'_>, place: &Place, path: &Path) -> Result<Option<u32>, Error> {
    let read = || format!("read {}", path.display());
    let Some(link) = sys::link_at(path).map_err(failed(read()))? else { return Ok(None) };
    let info = link.info().map_err(failed(read()))?;
    if info.ifindex == place.ifindex && info.hook == place.hook() as u32 {
        match link.update(program) {
            Ok(()) => return Ok(Some(info.id)),
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            Err(error) => return Err(failed(format!("update {}", path.display()))(error)),
        }
    }
    // The device was deleted, or another one has its name now: the link holds nothing any more.
    tracing::info!(program = place.program, device = place.device, "the pinned link has lost its device");
    remove_pin(path)?;
    Ok(None)
}

/// Takes over the link that another version holds at this place: our program goes into it, and it gets our name.
fn take_over(program: BorrowedFd<'_>, place: &Place, dirs: &PinDirs, path: &Path) -> Result<Option<u32>, Error> {
    for old in dirs.others().iter().flat_map(|version| entries(&version.join("links"))) {
        if file_name(&old) != place.pin().as_os_str().to_string_lossy() {
            continue;
        }
        let Ok(Some(link)) = sys::link_at(&old) else { continue };
        let Ok(info) = link.info() else { continue };
        if (info.ifindex, info.hook) != (place.ifindex, place.hook() as u32) {
            continue;
        }
        link.update(program).map_err(failed(format!("update {}", old.display())))?;
        sys::pin(link.as_fd(), path).map_err(failed(format!("pin {}", path.display())))?;
        remove_pin(&old)?;
        return Ok(Some(info.id));
    }
    Ok(None)
}

/// At the head: whoever comes behind us decides about what is not ours; Cilium anchors itself at the tail.
fn create(program: BorrowedFd<'_>, ifindex: u32, hook: TcxHook) -> io::Result<Link> {
    for _ in 0..TRIES {
        let revision = sys::chain(ifindex, hook)?.revision;
        match Link::create(program, ifindex, hook, End::First, revision) {
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {}
            result => return result,
        }
    }
    Link::create(program, ifindex, hook, End::First, 0)
}
