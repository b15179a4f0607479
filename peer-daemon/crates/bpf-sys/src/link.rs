//! TCX links and the chains they make. CAP_BPF and CAP_NET_ADMIN are enough.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::object::{self, Info};
use super::{bpf, bpf_fd, fd};

const BPF_PROG_QUERY: i64 = 16;
const BPF_LINK_CREATE: i64 = 28;
const BPF_LINK_UPDATE: i64 = 29;
const BPF_LINK_DETACH: i64 = 34;

const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;
/// The relative object is a link.
const BPF_F_LINK: u32 = 1 << 13;
const BPF_LINK_TYPE_TCX: u32 = 11;

/// Which chain of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TcxHook {
    /// What arrives.
    Ingress = 46,
    /// What leaves.
    Egress = 47,
}

/// Where in the chain: without a relative object a flag means its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In front of all others.
    First = BPF_F_BEFORE as isize,
    /// Behind all others.
    Last = BPF_F_AFTER as isize,
}

/// What the kernel says of a TCX link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcxLinkInfo {
    /// The link's id.
    pub id: u32,
    /// The program's id.
    pub program: u32,
    /// 0 once the device is gone.
    pub ifindex: u32,
    /// 46 or 47, see [`TcxHook`].
    pub hook: u32,
}

/// A chain, first to last: ids of program and link; 0 stands for a program without a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Ids of program and link.
    pub entries: Vec<(u32, u32)>,
    /// Changes with every change of the chain.
    pub revision: u64,
}

/// An open link. It holds its program in place as long as this, or a pin, lives.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Puts a program at one end of a chain; only if the chain still has `revision`, when that is not 0.
    ///
    /// # Errors
    /// `ESTALE` when the chain has another revision, `ENODEV`, `EPERM`, `EINVAL` where the kernel has no TCX.
    pub fn create(program: BorrowedFd<'_>, ifindex: u32, hook: TcxHook, end: End, revision: u64) -> io::Result<Self> {
        let mut attr = CreateAttr {
            program: fd(program),
            target: ifindex,
            attach_type: hook as u32,
            flags: end as u32,
            expected_revision: revision,
            ..Default::default()
        };
        Ok(Self(bpf_fd(BPF_LINK_CREATE, &mut attr)?))
    }

    /// Puts a program directly behind that of another link.
    ///
    /// # Errors
    /// `ENOENT` when that link is in no chain of the device, and those of [`Self::create`].
    pub fn create_behind(program: BorrowedFd<'_>, ifindex: u32, hook: TcxHook, first: &Self) -> io::Result<Self> {
        let mut attr = CreateAttr {
            program: fd(program),
            target: ifindex,
            attach_type: hook as u32,
            flags: BPF_F_AFTER | BPF_F_LINK,
            relative: fd(first.as_fd()),
            ..Default::default()
        };
        Ok(Self(bpf_fd(BPF_LINK_CREATE, &mut attr)?))
    }

    /// Puts another program in the place of the link's: no packet passes in between.
    ///
    /// # Errors
    /// `ENOLINK` when its device is gone.
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attr = UpdateAttr { link: fd(self.as_fd()), program: fd(program), ..Default::default() };
        bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
    }

    /// Takes the program out of its chain before this returns; closing the link may take a while.
    ///
    /// # Errors
    /// Those of the kernel; that its device is gone is none.
    pub fn detach(&self) -> io::Result<()> {
        bpf(BPF_LINK_DETACH, &mut DetachAttr { link: fd(self.as_fd()) }).map(drop)
    }

    /// What the kernel says of it.
    ///
    /// # Errors
    /// `InvalidData` when it is no TCX link.
    pub fn info(&self) -> io::Result<TcxLinkInfo> {
        let mut info = LinkInfo::default();
        object::info(self.as_fd(), &mut info)?;
        if info.kind != BPF_LINK_TYPE_TCX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a TCX link"));
        }
        Ok(TcxLinkInfo { id: info.id, program: info.prog_id, ifindex: info.ifindex, hook: info.attach_type })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens a pinned link; `None`: nothing is pinned there.
///
/// # Errors
/// `EPERM`, `EACCES`.
pub fn at(path: &Path) -> io::Result<Option<Link>> {
    Ok(object::open(path)?.map(Link))
}

/// The chain of a device. A device that is gone has an empty one.
///
/// # Errors
/// `EPERM`, and `EINVAL` where the kernel has no TCX.
pub fn chain(ifindex: u32, hook: TcxHook) -> io::Result<Chain> {
    // BPF_MPROG_MAX: the kernel lets no chain be longer.
    const ROOM: usize = 64;
    let mut programs = [0_u32; ROOM];
    let mut links = [0_u32; ROOM];
    let mut attr = QueryAttr {
        target: ifindex,
        attach_type: hook as u32,
        prog_ids: programs.as_mut_ptr() as u64,
        prog_cnt: ROOM as u32,
        link_ids: links.as_mut_ptr() as u64,
        ..Default::default()
    };
    match bpf(BPF_PROG_QUERY, &mut attr) {
        Ok(_) => {
            let count = (attr.prog_cnt as usize).min(ROOM);
            let entries = programs.into_iter().zip(links).take(count).collect();
            Ok(Chain { entries, revision: attr.revision })
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(Chain::default()),
        Err(error) => Err(error),
    }
}

impl Info for LinkInfo {}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct UpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct DetachAttr {
    link: u32,
}

/// `struct bpf_link_info` as far as TCX goes.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    ifindex: u32,
    attach_type: u32,
    rest: [u64; 8],
}
