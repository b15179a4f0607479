//! TCX links and the chains they make. CAP_BPF and CAP_NET_ADMIN are enough, but for the names of foreign programs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::{bpf, bpf_fd, c_path, fd};

const BPF_MAP_LOOKUP_ELEM: i64 = 1;
const BPF_OBJ_PIN: i64 = 6;
const BPF_OBJ_GET: i64 = 7;
const BPF_PROG_GET_FD_BY_ID: i64 = 13;
const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;
const BPF_PROG_QUERY: i64 = 16;
const BPF_LINK_CREATE: i64 = 28;
const BPF_LINK_UPDATE: i64 = 29;
const BPF_LINK_DETACH: i64 = 34;

/// Without a relative object: in front of all.
const BPF_F_BEFORE: u32 = 1 << 3;
/// Behind the relative object.
const BPF_F_AFTER: u32 = 1 << 4;
/// The relative object is a link.
const BPF_F_LINK: u32 = 1 << 13;
const BPF_LINK_TYPE_TCX: u32 = 11;

/// Which chain of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TcxHook {
    Ingress = 46,
    Egress = 47,
}

/// What the kernel says of a TCX link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcxLinkInfo {
    pub(crate) id: u32,
    pub(crate) program: u32,
    /// 0 once the device is gone.
    pub(crate) ifindex: u32,
    /// 46 or 47, see [`TcxHook`].
    pub(crate) hook: u32,
}

/// A chain, first to last: ids of program and link; 0 stands for a program without a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) entries: Vec<(u32, u32)>,
    /// Changes with every change of the chain.
    pub(crate) revision: u64,
}

/// An open link. It holds its program in place as long as this, or a pin, lives.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

impl Link {
    /// Puts a program in front of all others; only if the chain still has `revision`, when that is not 0.
    pub(crate) fn create(program: BorrowedFd<'_>, ifindex: u32, hook: TcxHook, revision: u64) -> io::Result<Self> {
        let mut attr = CreateAttr {
            program: fd(program),
            target: ifindex,
            attach_type: hook as u32,
            flags: BPF_F_BEFORE,
            expected_revision: revision,
            ..Default::default()
        };
        Ok(Self(bpf_fd(BPF_LINK_CREATE, &mut attr)?))
    }

    /// Puts a program behind that of another link.
    pub(crate) fn create_behind(
        program: BorrowedFd<'_>,
        ifindex: u32,
        hook: TcxHook,
        first: &Self,
    ) -> io::Result<Self> {
        let mut attr = CreateAttr {
            program: fd(program),
            target: ifindex,
            attach_type: hook as u32,
            flags: BPF_F_AFTER | BPF_F_LINK,
            relative: fd(first.0.as_fd()),
            ..Default::default()
        };
        Ok(Self(bpf_fd(BPF_LINK_CREATE, &mut attr)?))
    }

    /// Puts another program in the place of the link's: no packet passes in between.
    pub(crate) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attr = UpdateAttr { link: fd(self.0.as_fd()), program: fd(program), ..Default::default() };
        bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
    }

    /// Takes the program out of its chain before this returns; closing the link may take a while.
    pub(crate) fn detach(&self) -> io::Result<()> {
        bpf(BPF_LINK_DETACH, &mut DetachAttr { link: fd(self.0.as_fd()) }).map(drop)
    }

    /// What the kernel says of it.
    pub(crate) fn info(&self) -> io::Result<TcxLinkInfo> {
        let mut info = LinkInfo::default();
        info_of(self.0.as_fd(), &mut info)?;
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
pub(crate) fn link_at(path: &Path) -> io::Result<Option<Link>> {
    Ok(object_at(path)?.map(Link))
}

/// Gives a link or a program a name that outlives us.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: fd(object), flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// The chain of a device. A device that is gone has an empty one.
pub(crate) fn chain(ifindex: u32, hook: TcxHook) -> io::Result<Chain> {
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

/// The name of a program of anybody's. Needs CAP_SYS_ADMIN.
pub(crate) fn program_name(id: u32) -> io::Result<String> {
    let mut attr = IdAttr { id, ..Default::default() };
    let program = bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    let mut info = ProgramInfo::default();
    info_of(program.as_fd(), &mut info)?;
    let name = info.name.iter().map_while(|&byte| (byte != 0).then_some(byte)).collect::<Vec<_>>();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// The id of a program.
pub(crate) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = ProgramInfo::default();
    info_of(program, &mut info)?;
    Ok(info.id)
}

/// The first bytes of entry 0 of a pinned array, whatever the size of its values; `None`: nothing is pinned there.
pub(crate) fn pinned_map_head<const N: usize>(path: &Path) -> io::Result<Option<[u8; N]>> {
    let Some(map) = object_at(path)? else { return Ok(None) };
    let mut info = MapInfo::default();
    info_of(map.as_fd(), &mut info)?;
    let key = 0_u32;
    let mut value = vec![0_u8; (info.value_size as usize).max(N)];
    let mut attr = super::ElementAttr {
        map_fd: fd(map.as_fd()),
        key: super::address(&key),
        value: value.as_mut_ptr() as u64,
        ..Default::default()
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    let mut head = [0; N];
    head.copy_from_slice(&value[..N]);
    Ok(Some(head))
}

fn object_at(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, ..Default::default() };
    match bpf_fd(BPF_OBJ_GET, &mut attr) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `I` is the head of a kernel structure, in its layout; the kernel fills as much as it has room for.
fn info_of<I: Info>(object: BorrowedFd<'_>, info: &mut I) -> io::Result<()> {
    let mut attr = InfoAttr { fd: fd(object), info_len: size_of::<I>() as u32, info: std::ptr::from_mut(info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// Structures of integers that `BPF_OBJ_GET_INFO_BY_FD` may fill.
trait Info {}
impl Info for LinkInfo {}
impl Info for ProgramInfo {}
impl Info for MapInfo {}

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

#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    info_len: u32,
    info: u64,
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

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    code: [u64; 2],
    load_time: u64,
    uid: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// `struct bpf_map_info` up to the size of values.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}
