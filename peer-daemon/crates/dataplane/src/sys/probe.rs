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
