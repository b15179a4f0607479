//! Programs of a few instructions, and what the kernel says of others.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::object::{self, Info};
use super::{bpf, bpf_fd, fd};

const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_TEST_RUN: i64 = 10;
const BPF_PROG_GET_FD_BY_ID: i64 = 13;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const NAME: usize = 16;

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// `registers`: the source in the high nibble, the destination in the low one.
    #[must_use]
    pub const fn new(code: u8, registers: u8, offset: i16, immediate: i32) -> Self {
        Self { code, registers, offset, immediate }
    }
}

/// Loads a TC program; what the verifier says is written to `log`, from its beginning, unless it has no room at all. A name
/// that is too long is cut.
///
/// # Errors
/// `EPERM`, and what the verifier has against it.
pub fn load(name: &str, code: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut padded = [0; NAME];
    let len = name.len().min(NAME - 1);
    padded[..len].copy_from_slice(&name.as_bytes()[..len]);
    let mut attr = LoadAttr {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        count: code.len() as u32,
        code: code.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        name: padded,
        ..Default::default()
    };
    if !log.is_empty() {
        (attr.log_level, attr.log_size, attr.log) = (1, log.len() as u32, log.as_mut_ptr() as u64);
    }
    bpf_fd(BPF_PROG_LOAD, &mut attr)
}

/// Runs a program once on a packet; what it returned.
///
/// # Errors
/// When the kernel does not run it: the packet is shorter than an Ethernet header, for one.
pub fn run(program: BorrowedFd<'_>, packet: &[u8]) -> io::Result<u32> {
    let mut attr = RunAttr {
        program: fd(program),
        data_len: packet.len() as u32,
        data: packet.as_ptr() as u64,
        repeat: 1,
        ..RunAttr::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(attr.result)
}

/// The id of a program.
///
/// # Errors
/// When it is no program.
pub fn id(program: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(head(program)?.id)
}

/// The name of a program of anybody's. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// `EPERM`, and `ENOENT` when there is no such program.
pub fn name(id: u32) -> io::Result<String> {
    let program = bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut IdAttr { id, ..Default::default() })?;
    let name = head(program.as_fd())?.name;
    let name = name.iter().map_while(|&byte| (byte != 0).then_some(byte)).collect::<Vec<_>>();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

fn head(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut info = ProgramInfo::default();
    object::info(program, &mut info)?;
    Ok(info)
}

impl Info for ProgramInfo {}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME],
}

#[repr(C)]
#[derive(Default)]
struct RunAttr {
    program: u32,
    result: u32,
    data_len: u32,
    data_len_out: u32,
    data: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
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
    name: [u8; NAME],
}
