//! Raw bpf(2): programs of somebody else, loaded and attached.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::programs::{Behaviour, COUNTERS, Instruction, instructions};

const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_LOOKUP_ELEM: i64 = 1;
const BPF_PROG_LOAD: i64 = 5;
const BPF_OBJ_PIN: i64 = 6;
const BPF_PROG_GET_NEXT_ID: i64 = 11;
const BPF_MAP_GET_NEXT_ID: i64 = 12;
const BPF_PROG_QUERY: i64 = 16;
const BPF_LINK_CREATE: i64 = 28;
const BPF_LINK_UPDATE: i64 = 29;
const BPF_LINK_GET_NEXT_ID: i64 = 31;
const BPF_LINK_DETACH: i64 = 34;

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// Attach types of TCX, and flags that say where in the chain.
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;

/// Which chain, and which end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// First of those that see what arrives.
    IngressHead,
    /// Last of those that see what arrives: where Cilium anchors itself.
    IngressTail,
    /// Last of those that see what leaves.
    EgressTail,
}

/// A program of somebody else's, attached by a link. Detached when dropped.
pub(crate) struct ForeignLink {
    map: OwnedFd,
    program: OwnedFd,
    link: OwnedFd,
}

impl ForeignLink {
    /// Loads and attaches it, in the namespace of the calling thread.
    pub(crate) fn attach(device: &str, name: &str, hook: Hook, behaviour: Behaviour) -> io::Result<Self> {
        let target = interface_index(device)?;
        let loaded = Loaded::load(name, behaviour)?;
        let (attach_type, flags) = match hook {
            Hook::IngressHead => (BPF_TCX_INGRESS, BPF_F_BEFORE),
            Hook::IngressTail => (BPF_TCX_INGRESS, BPF_F_AFTER),
            Hook::EgressTail => (BPF_TCX_EGRESS, BPF_F_AFTER),
        };
        let mut attr = LinkAttr { program: fd(&loaded.program), target, attach_type, flags, ..LinkAttr::default() };
        let link = bpf_fd(BPF_LINK_CREATE, &mut attr)?;
        Ok(Self { map: loaded.map, program: loaded.program, link })
    }

    /// Puts a new program into the link, as an agent does on a restart; counters begin anew.
    pub(crate) fn update(&mut self, name: &str, behaviour: Behaviour) -> io::Result<()> {
        let loaded = Loaded::load(name, behaviour)?;
        let mut attr = UpdateAttr { link: fd(&self.link), program: fd(&loaded.program), flags: 0, old: 0 };
        bpf(BPF_LINK_UPDATE, &mut attr)?;
        (self.map, self.program) = (loaded.map, loaded.program);
        Ok(())
    }

    /// Gives the link a name in a bpffs.
    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(&self.link, path)
    }

    /// What its counter stands at.
    pub(crate) fn read(&self, key: u32) -> io::Result<u64> {
        read_counter(&self.map, key)
    }
}

impl Drop for ForeignLink {
    fn drop(&mut self) {
        // Closing the last descriptor would do, but a child that is just being started has copies of them all.
        let mut attr = DetachAttr { link: fd(&self.link) };
        // Its device may be gone, and the link with it.
        let _ = bpf(BPF_LINK_DETACH, &mut attr);
    }
}

/// A program that is loaded and nowhere attached.
pub(crate) struct Loaded {
    map: OwnedFd,
    program: OwnedFd,
}

impl Loaded {
    pub(crate) fn load(name: &str, behaviour: Behaviour) -> io::Result<Self> {
        let map = create_map()?;
        let program = load(name, &instructions(behaviour, map.as_raw_fd()))?;
        Ok(Self { map, program })
    }

    /// Gives it a name in a bpffs, by which `tc` finds it.
    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(&self.program, path)
    }

    /// What its counter stands at.
    pub(crate) fn read(&self, key: u32) -> io::Result<u64> {
        read_counter(&self.map, key)
    }
}

fn pin(object: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut attr = PinAttr { path: path.as_ptr() as u64, object: fd(object), flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr)?;
    Ok(())
}

fn read_counter(map: &OwnedFd, key: u32) -> io::Result<u64> {
    let mut value = 0_u64;
    let mut attr =
        ElementAttr { map: fd(map), pad: 0, key: (&raw const key) as u64, value: (&raw mut value) as u64, flags: 0 };
    bpf(BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    Ok(value)
}

/// Ids of the programs in the TCX ingress chain of a device, first to last.
pub(crate) fn tcx_ingress(device: &str) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    let mut attr = QueryAttr {
        target: interface_index(device)?,
        attach_type: BPF_TCX_INGRESS,
        program_ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..QueryAttr::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}

/// Objects of all of the machine: programs, maps, links.
pub(crate) fn objects() -> io::Result<[usize; 3]> {
    let count = |command| {
        let (mut id, mut count) = (0, 0);
        loop {
            let mut attr = NextIdAttr { start: id, next: 0, flags: 0 };
            match bpf(command, &mut attr) {
                Ok(_) => (id, count) = (attr.next, count + 1),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(count),
                Err(error) => return Err(error),
            }
        }
    };
    Ok([count(BPF_PROG_GET_NEXT_ID)?, count(BPF_MAP_GET_NEXT_ID)?, count(BPF_LINK_GET_NEXT_ID)?])
}

pub(crate) fn interface_index(device: &str) -> io::Result<u32> {
    let name = CString::new(device).map_err(io::Error::other)?;
    // SAFETY: a C string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn create_map() -> io::Result<OwnedFd> {
    let mut attr = MapAttr { kind: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 8, max_entries: COUNTERS };
    bpf_fd(BPF_MAP_CREATE, &mut attr)
}

fn load(name: &str, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut program_name = [0; 16];
    let length = name.len().min(program_name.len() - 1);
    program_name[..length].copy_from_slice(&name.as_bytes()[..length]);
    let licence = c"GPL";
    let mut log = vec![0_u8; 64 * 1024];
    let mut attr = ProgramAttr {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        licence: licence.as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags: 0,
        name: program_name,
    };
    bpf_fd(BPF_PROG_LOAD, &mut attr).map_err(|error| {
        let text = String::from_utf8_lossy(&log);
        io::Error::new(error.kind(), format!("{error}: {}", text.trim_end_matches('\0')))
    })
}

#[repr(C)]
struct MapAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct LinkAttr {
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
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    pad: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
struct UpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

#[repr(C)]
struct DetachAttr {
    link: u32,
}

#[repr(C)]
struct PinAttr {
    path: u64,
    object: u32,
    flags: u32,
}

#[repr(C)]
struct NextIdAttr {
    start: u32,
    next: u32,
    flags: u32,
}

fn fd(descriptor: &OwnedFd) -> u32 {
    descriptor.as_raw_fd().unsigned_abs()
}

fn bpf<T>(command: i64, attr: &mut T) -> io::Result<i64> {
    // SAFETY: `attr` is a structure of bpf(2) for this command; the pointers in it live through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn bpf_fd<T>(command: i64, attr: &mut T) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(bpf(command, attr)?).map_err(io::Error::other)?;
    // SAFETY: these commands return a new descriptor, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
