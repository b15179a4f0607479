//! Programs at their places: TCX at the head, by pinned links.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{ProgramError, TcAttachType};
use aya::sys::SyscallError;

use super::load::classifier;
use crate::sys::{self, TcxHook};
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
    links: BTreeMap<Place, Held>,
}

struct Held {
    id: u32,
    // Dropped last: the pin keeps the link, this descriptor only looks at it.
    _link: FdLink,
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
                let held = self.hold(ebpf, place)?;
                self.links.insert(place.clone(), held);
            }
        }
        self.links.retain(|place, _| places.contains(place));
        self.sweep(places)
    }

    /// Attaches again whatever is not in its chain any more.
    pub(super) fn mend(&mut self, ebpf: &mut Ebpf) -> Result<(), Error> {
        let gone: Vec<_> = self.links.iter().filter(|(place, held)| place.position(held.id).0.is_none()).collect();
        let gone: Vec<Place> = gone.into_iter().map(|(place, _)| place.clone()).collect();
        for place in gone {
            tracing::warn!(program = place.program, device = place.device, "program was not in its chain: attaching again");
            self.links.remove(&place);
            let held = self.hold(ebpf, &place)?;
            self.links.insert(place, held);
        }
        Ok(())
    }

    /// Where our programs stand.
    pub(super) fn list(&self) -> Vec<Attachment> {
        let attachment = |(place, held): (&Place, &Held)| {
            let (position, chain) = place.position(held.id);
            Attachment {
                program: place.program,
                device: place.device.clone(),
                ifindex: place.ifindex,
                link_id: held.id,
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

    fn hold(&self, ebpf: &mut Ebpf, place: &Place) -> Result<Held, Error> {
        let failed = |source| Error::Program { what: format!("attach {} to {}", place.program, place.device), source };
        let path = place.pin(&self.dir);
        let link = match self.update_pinned(ebpf, place, &path)? {
            Some(link) => link,
            None => {
                let link = attach(ebpf, place).map_err(failed)?;
                let pin = |source| Error::io(format!("pin {}", path.display()), source);
                link.pin(&path).map_err(|error| pin(io::Error::other(error)))?.into()
            }
        };
        let id = sys::tcx_link_info(link.fd()).map_err(|source| Error::io("read a link", source))?.id;
        Ok(Held { id, _link: link })
    }

    /// Puts our program into the link that is pinned for the place. `None`: there is no such link, or its device is gone.
    fn update_pinned(&self, ebpf: &mut Ebpf, place: &Place, path: &Path) -> Result<Option<FdLink>, Error> {
        let failed = |source| Error::Program { what: format!("update {}", path.display()), source };
        let old = match PinnedLink::from_pin(path) {
            Ok(old) => FdLink::from(old),
            Err(LinkError::SyscallError(SyscallError { io_error, .. }))
                if io_error.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed(error.into())),
        };
        let info = sys::tcx_link_info(old.fd()).map_err(|source| Error::io("read a link", source))?;
        if info.ifindex != place.ifindex {
            // The device was deleted, or another one has its name now: the link holds nothing any more.
            tracing::info!(program = place.program, device = place.device, "the pinned link has lost its device");
            std::fs::remove_file(path).map_err(|source| Error::io(format!("remove {}", path.display()), source))?;
            return Ok(None);
        }
        let program = classifier(ebpf, place.program).map_err(failed)?;
        let link = SchedClassifierLink::try_from(old).map_err(|error| failed(error.into()))?;
        let id = program.attach_to_link(link).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        Ok(Some(link.try_into().map_err(|error: LinkError| failed(error.into()))?))
    }
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

fn attach(ebpf: &mut Ebpf, place: &Place) -> Result<FdLink, ProgramError> {
    let program = classifier(ebpf, place.program)?;
    let direction = if place.egress { TcAttachType::Egress } else { TcAttachType::Ingress };
    // Whoever comes behind us decides about what is not ours; Cilium anchors itself at the tail.
    let head = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&place.device, direction, head)?;
    Ok(program.take_link(id)?.try_into()?)
}
