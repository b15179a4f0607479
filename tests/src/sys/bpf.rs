//! Raw bpf(2): a program that somebody else attached, in a few instructions.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_LOOKUP_ELEM: i64 = 1;
const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_QUERY: i64 = 16;
const BPF_LINK_CREATE: i64 = 28;

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// Attach type of TCX ingress.
const BPF_TCX_INGRESS: u32 = 46;

/// Entries of the map: IPv4 protocols, then IPv6 next headers.
const COUNTERS: u32 = 512;
const IPV6_OFFSET: i32 = 256;

/// A program at the tail of TCX ingress that counts packets by protocol and lets all of them pass with `TC_ACT_OK`.
/// Detached when dropped.
pub(crate) struct CountingProgram {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

impl CountingProgram {
    /// Loads and attaches it, in the namespace of the calling thread.
    pub(crate) fn attach(device: &str) -> io::Result<Self> {
        let index = interface_index(device)?;
        let map = create_map()?;
        let program = load(&instructions(map.as_raw_fd()))?;
        let mut attr =
            LinkAttr { program: fd(&program), target: index, attach_type: BPF_TCX_INGRESS, ..LinkAttr::default() };
        let link = bpf_fd(BPF_LINK_CREATE, &mut attr)?;
        Ok(Self { map, _program: program, _link: link })
    }

    /// IPv4 packets of this protocol that reached it.
    pub(crate) fn ipv4(&self, protocol: u8) -> io::Result<u64> {
        self.read(u32::from(protocol))
    }

    /// IPv6 packets with this next header that reached it.
    pub(crate) fn ipv6(&self, next_header: u8) -> io::Result<u64> {
        self.read(u32::from(next_header) + IPV6_OFFSET as u32)
    }

    fn read(&self, key: u32) -> io::Result<u64> {
        let mut value = 0_u64;
        let mut attr = ElementAttr {
            map: fd(&self.map),
            pad: 0,
            key: (&raw const key) as u64,
            value: (&raw mut value) as u64,
            flags: 0,
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attr)?;
        Ok(value)
    }
}

/// How many programs are in the TCX ingress chain of a device.
pub(crate) fn tcx_ingress_count(device: &str) -> io::Result<u32> {
    let mut attr = QueryAttr { target: interface_index(device)?, attach_type: BPF_TCX_INGRESS, ..QueryAttr::default() };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    Ok(attr.count)
}

fn interface_index(device: &str) -> io::Result<u32> {
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

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
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
    };
    bpf_fd(BPF_PROG_LOAD, &mut attr).map_err(|error| {
        let text = String::from_utf8_lossy(&log);
        io::Error::new(error.kind(), format!("{error}: {}", text.trim_end_matches('\0')))
    })
}

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Source register in the high nibble, destination in the low one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn op(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

/// `counter[protocol] += 1; return TC_ACT_OK`. What is shorter than a header, or neither IPv4 nor IPv6, passes uncounted.
fn instructions(map: i32) -> Vec<Instruction> {
    vec![
        op(0xbf, 0x16, 0, 0),           //  0: r6 = r1, the packet, as loads from packets want it
        op(0x28, 0x00, 0, 12),          //  1: r0 = EtherType
        op(0x15, 0x00, 2, 0x0800),      //  2: IPv4 → 5
        op(0x15, 0x00, 4, 0x86dd),      //  3: IPv6 → 8
        op(0x05, 0x00, 15, 0),          //  4: → 20
        op(0x30, 0x00, 0, 14 + 9),      //  5: r0 = protocol
        op(0xbf, 0x07, 0, 0),           //  6: r7 = r0
        op(0x05, 0x00, 3, 0),           //  7: → 11
        op(0x30, 0x00, 0, 14 + 6),      //  8: r0 = next header
        op(0xbf, 0x07, 0, 0),           //  9: r7 = r0
        op(0x07, 0x07, 0, IPV6_OFFSET), // 10: r7 += 256
        op(0x63, 0x7a, -4, 0),          // 11: key = r7
        op(0xbf, 0xa2, 0, 0),           // 12: r2 = frame
        op(0x07, 0x02, 0, -4),          // 13: r2 = &key
        op(0x18, 0x11, 0, map),         // 14: r1 = map, two slots
        op(0x00, 0x00, 0, 0),           // 15
        op(0x85, 0x00, 0, 1),           // 16: r0 = bpf_map_lookup_elem
        op(0x15, 0x00, 2, 0),           // 17: none → 20
        op(0xb7, 0x01, 0, 1),           // 18: r1 = 1
        op(0xdb, 0x10, 0, 0),           // 19: atomic *r0 += r1
        op(0xb7, 0x00, 0, 0),           // 20: r0 = TC_ACT_OK
        op(0x95, 0x00, 0, 0),           // 21: exit
    ]
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
