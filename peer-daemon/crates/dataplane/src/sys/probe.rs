//! What this kernel can do: asked, not concluded from its version.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::{BPF_MAP_LOOKUP_BATCH, BatchAttr, bpf, bpf_fd, c_path, fd};

const BPF_MAP_CREATE: i64 = 0;
const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_TEST_RUN: i64 = 10;
const BPF_FUNC_FIB_LOOKUP: i32 = 69;
const BPF_FIB_LOOKUP_SRC: u32 = 16;
/// The register that points behind the stack.
const FRAME: i32 = 10;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// Whether TC programs may call the helper of that number. A program that calls it with nonsense is refused either way;
/// the verifier says why.
pub(crate) fn helper(number: i32) -> io::Result<bool> {
    let code = [Instruction { code: 0x85, immediate: number, ..EMPTY }, Instruction { code: 0x95, ..EMPTY }];
    let mut log = vec![0_u8; 16 * 1024];
    let mut attr = LoadAttr {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        count: code.len() as u32,
        code: code.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
    };
    match bpf_fd(BPF_PROG_LOAD, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
        Err(error) => {
            let text = String::from_utf8_lossy(&log);
            if text.trim_matches('\0').is_empty() {
                return Err(error);
            }
            let unknown = ["unknown func", "invalid func", "cannot use helper"];
            Ok(!unknown.iter().any(|message| text.contains(message)))
        }
    }
}

/// `BPF_FIB_LOOKUP_SRC`, if FIB lookups can tell the source that the kernel would choose (Linux 6.7), else 0. Asked by such a
/// lookup, whose flags are looked at first.
pub(crate) fn fib_flags() -> io::Result<u32> {
    const AF_INET: i32 = 2;
    const LOOPBACK: i32 = 1;
    const SIZE: i32 = 64;
    let mut code: Vec<Instruction> = (1..=SIZE / 8)
        // *(u64 *)(r10 - 8 * n) = 0
        .map(|n| Instruction { code: 0x7a, registers: FRAME as u8, offset: -8 * n as i16, immediate: 0 })
        .collect();
    code.extend([
        // The family, and the interface index.
        Instruction { code: 0x72, registers: FRAME as u8, offset: -SIZE as i16, immediate: AF_INET },
        Instruction { code: 0x62, registers: FRAME as u8, offset: 8 - SIZE as i16, immediate: LOOPBACK },
        // r2 = r10 - SIZE, r3 = SIZE, r4 = flags
        Instruction { code: 0xbf, registers: FRAME as u8 * 16 + 2, ..EMPTY },
        Instruction { code: 0x07, registers: 2, immediate: -SIZE, ..EMPTY },
        Instruction { code: 0xb7, registers: 3, immediate: SIZE, ..EMPTY },
        Instruction { code: 0xb7, registers: 4, immediate: BPF_FIB_LOOKUP_SRC as i32, ..EMPTY },
        Instruction { code: 0x85, immediate: BPF_FUNC_FIB_LOOKUP, ..EMPTY },
        Instruction { code: 0x95, ..EMPTY },
    ]);
    let mut attr = LoadAttr {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        count: code.len() as u32,
        code: code.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        ..LoadAttr::default()
    };
    let program = bpf_fd(BPF_PROG_LOAD, &mut attr)?;
    // Of an Ethernet header and some more: what a test run asks for.
    let packet = [0_u8; 64];
    let mut attr = RunAttr {
        program: fd(program.as_fd()),
        data_len: packet.len() as u32,
        data: packet.as_ptr() as u64,
        repeat: 1,
        ..RunAttr::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(if attr.result as i32 == -libc::EINVAL { 0 } else { BPF_FIB_LOOKUP_SRC })
}

/// Whether hash maps can be read in batches.
pub(crate) fn batch_operations() -> io::Result<bool> {
    let mut attr = MapAttr { kind: BPF_MAP_TYPE_HASH, key_size: 4, value_size: 4, max_entries: 1 };
    let map = bpf_fd(BPF_MAP_CREATE, &mut attr)?;
    let (mut cursor, mut key, mut value) = (0_u32, 0_u32, 0_u32);
    let mut attr = BatchAttr {
        out_batch: (&raw mut cursor) as u64,
        keys: (&raw mut key) as u64,
        values: (&raw mut value) as u64,
        count: 1,
        map_fd: fd(map.as_fd()),
        ..Default::default()
    };
    match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => Ok(true),
        // The end of an empty map.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Whether we may write there, by permissions and by the mount.
pub(crate) fn may_write(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    // SAFETY: a C string. By the effective ids, which is what a later write goes by.
    match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK, libc::AT_EACCESS) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EROFS | libc::EPERM)) => Ok(false),
            error => Err(error),
        },
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const EMPTY: Instruction = Instruction { code: 0, registers: 0, offset: 0, immediate: 0 };

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
struct LoadAttr {
    kind: u32,
    count: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[repr(C)]
struct MapAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}
