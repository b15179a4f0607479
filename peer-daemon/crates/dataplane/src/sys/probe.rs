//! What this kernel can do: asked, not concluded from its version.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use peer_bpf_sys::map::{self, Kind};
use peer_bpf_sys::program::{self, Instruction};

use super::{Batches, c_path};

/// Whether TC programs may call the helper of that number. A program that calls it with nonsense is refused either way;
/// the verifier says why.
pub(crate) fn helper(number: i32) -> io::Result<bool> {
    let code = [Instruction::new(0x85, 0, 0, number), Instruction::new(0x95, 0, 0, 0)];
    let mut log = vec![0_u8; 16 * 1024];
    match program::load("", &code, &mut log) {
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
/// lookup: the kernel checks its flags before anything else.
pub(crate) fn fib_flags() -> io::Result<u32> {
    const FIB_LOOKUP: i32 = 69;
    const FIB_LOOKUP_SRC: i32 = 16;
    const AF_INET: i32 = 2;
    const LOOPBACK: i32 = 1;
    /// Of `struct bpf_fib_lookup`.
    const SIZE: i16 = 64;
    /// The register that points behind the stack.
    const FRAME: u8 = 10;
    let clear = |word: i16| Instruction::new(0x7a, FRAME, -8 * word, 0);
    let mut code: Vec<Instruction> = (1..=SIZE / 8).map(clear).collect();
    code.extend([
        // The family, and the interface index.
        Instruction::new(0x72, FRAME, -SIZE, AF_INET),
        Instruction::new(0x62, FRAME, 8 - SIZE, LOOPBACK),
        // The structure, its size, the flags.
        Instruction::new(0xbf, FRAME << 4 | 2, 0, 0),
        Instruction::new(0x07, 2, 0, -i32::from(SIZE)),
        Instruction::new(0xb7, 3, 0, SIZE.into()),
        Instruction::new(0xb7, 4, 0, FIB_LOOKUP_SRC),
        Instruction::new(0x85, 0, 0, FIB_LOOKUP),
        Instruction::new(0x95, 0, 0, 0),
    ]);
    let program = program::load("", &code, &mut [])?;
    // As long as an Ethernet frame has to be.
    let result = program::run(program.as_fd(), &[0; 64])?;
    Ok(if result as i32 == -libc::EINVAL { 0 } else { FIB_LOOKUP_SRC as u32 })
}

/// Whether hash maps can be read in batches.
pub(crate) fn batch_operations() -> io::Result<bool> {
    let map = map::create::<u32, u32>(Kind::Hash, 1)?;
    match Batches::<u32, u32>::new(1).next(map.as_fd()) {
        Ok(_) => Ok(true),
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
