//! Programs at their places: TCX at the head, by pinned links.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};

use super::load::classifier;
use crate::sys::{self, TcxHook, TcxLinkInfo};
use crate::{Attachment, Error};

/// A place for a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) program: &'static str,
    pub(super) device: String,
    pub(super) ifindex: u32,
    pub(super) egress: bool,
}

/// The links that hold our programs.
pub(super) struct Attachments {
    dir: PathBuf,
    /// Ids of the links. The pins keep them, no descriptor of ours does.
    links: BTreeMap<Place, u32>,
}

impl Attachments {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), links: BTreeMap::new() }
    }

    /// Attaches at all of `places` and nowhere else. A pinned link of an earlier life is updated in place: no packet
    /// passes without a program in between.
    pub(super) fn set(&mut self, ebpf: &mut Ebpf, places: &[Place]) -> Result<(), Error> {
        for place in places {
            if !self.links.contains_key(place) {
                let id = self.hold(ebpf, place)?;
                self.links.insert(place.clone(), id);
            }
        }
        self.links.retain(|place, _| places.contains(place));
        self.sweep(places)
    }

    /// Attaches again whatever is not in its chain any more.
    pub(super) fn mend(&mut self, ebpf: &mut Ebpf) -> Result<(), Error> {
        let gone = self.links.iter().filter(|(place, id)| place.position(**id).0.is_none());
        let gone: Vec<Place> = gone.map(|(place, _)| place.clone()).collect();
        for place in gone {
            tracing::warn!(
                program = place.program,
                device = place.device,
                "program was not in its chain: attaching again"
            );
            self.links.remove(&place);
            let id = self.hold(ebpf, &place)?;
            self.links.insert(place, id);
        }
        Ok(())
    }

    /// Where our programs stand.
    pub(super) fn list(&self) -> Vec<Attachment> {
        let attachment = |(place, &id): (&Place, &u32)| {
            let (position, chain) = place.position(id);
            Attachment {
                program: place.program,
                device: place.device.clone(),
                ifindex: place.ifindex,
                link_id: id,
                position,
                chain,
            }
        };
        self.links.iter().map(attachment).collect()
    }

    /// Detaches everything: the pins go, and with them the links.
    pub(super) fn remove(mut self) -> Result<(), Error> {
        self.links.clear();
        self.sweep(&[])
    }

    /// Removes pins, ours all of them, that belong to none of `places`.
    fn sweep(&self, places: &[Place]) -> Result<(), Error> {
        let failed = |source| Error::io(format!("clean {}", self.dir.display()), source);
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !places.iter().any(|place| place.pin(&self.dir) == path) {
                std::fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Sees to it that the program is attached at its place and pinned; returns the link's id.
    fn hold(&self, ebpf: &mut Ebpf, place: &Place) -> Result<u32, Error> {
        let path = place.pin(&self.dir);
        if !update_pinned(ebpf, place, &path)? {
            let link = attach(ebpf, place)?;
            link.pin(&path).map_err(|error| Error::io(format!("pin {}", path.display()), io::Error::other(error)))?;
        }
        let gone = || Error::io(format!("read {}", path.display()), io::ErrorKind::NotFound.into());
        let info = pinned(&path)?.ok_or_else(gone)?;
        Ok(info.id)
    }
}

/// Puts our program into the link that is pinned for the place. `false`: there is no such link, or its device is gone.
fn update_pinned(ebpf: &mut Ebpf, place: &Place, path: &Path) -> Result<bool, Error> {
    let Some(info) = pinned(path)? else { return Ok(false) };
    if info.ifindex != place.ifindex {
        // The device was deleted, or another one has its name now: the link holds nothing any more.
        tracing::info!(program = place.program, device = place.device, "the pinned link has lost its device");
        std::fs::remove_file(path).map_err(|source| Error::io(format!("remove {}", path.display()), source))?;
        return Ok(false);
    }
    let what = || format!("update {}", path.display());
    let failed = |source| Error::Program { what: what(), source };
    let old = PinnedLink::from_pin(path).map_err(|error| link_error(what(), error))?;
    let program = classifier(ebpf, place.program).map_err(failed)?;
    let link = SchedClassifierLink::try_from(FdLink::from(old)).map_err(|error| link_error(what(), error))?;
    let id = program.attach_to_link(link).map_err(failed)?;
    // Out of aya's hands, which would detach it with the program.
    program.take_link(id).map_err(failed)?;
    Ok(true)
}

fn pinned(path: &Path) -> Result<Option<TcxLinkInfo>, Error> {
    sys::pinned_tcx_link(path).map_err(|source| Error::io(format!("read {}", path.display()), source))
}

impl Place {
    fn pin(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}-{}", self.program, self.device.replace('.', "-")))
    }

    fn hook(&self) -> TcxHook {
        if self.egress { TcxHook::Egress } else { TcxHook::Ingress }
    }

    /// Position of the link in its chain, and the chain's length.
    fn position(&self, id: u32) -> (Option<usize>, usize) {
        let chain = sys::tcx_links(self.ifindex, self.hook()).unwrap_or_default();
        (chain.iter().position(|&link| link == id), chain.len())
    }
}

fn attach(ebpf: &mut Ebpf, place: &Place) -> Result<FdLink, Error> {
    let what = || format!("attach {} to {}", place.program, place.device);
    let failed = |source: ProgramError| Error::Program { what: what(), source };
    let program = classifier(ebpf, place.program).map_err(failed)?;
    let direction = if place.egress { TcAttachType::Egress } else { TcAttachType::Ingress };
    // Whoever comes behind us decides about what is not ours; Cilium anchors itself at the tail.
    let head = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&place.device, direction, head).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    link.try_into().map_err(|error| link_error(what(), error))
}

fn link_error(what: String, error: LinkError) -> Error {
    Error::io(what, io::Error::other(error))
}
