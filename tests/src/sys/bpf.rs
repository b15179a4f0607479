//! Programs of somebody else, loaded and attached.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use peer_bpf_sys::link::{self, End, Link, TcxHook};
use peer_bpf_sys::program::{self, Instruction};
use peer_bpf_sys::{map, object};

use super::programs::{Behaviour, COUNTERS, instructions};

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
    link: Link,
}

impl ForeignLink {
    /// Loads and attaches it, in the namespace of the calling thread.
    pub(crate) fn attach(device: &str, name: &str, hook: Hook, behaviour: Behaviour) -> io::Result<Self> {
        let target = interface_index(device)?;
        let loaded = Loaded::load(name, behaviour)?;
        let (hook, end) = match hook {
            Hook::IngressHead => (TcxHook::Ingress, End::First),
            Hook::IngressTail => (TcxHook::Ingress, End::Last),
            Hook::EgressTail => (TcxHook::Egress, End::Last),
        };
        let link = Link::create(loaded.program.as_fd(), target, hook, end, 0)?;
        Ok(Self { map: loaded.map, program: loaded.program, link })
    }

    /// Puts a new program into the link, as an agent does on a restart; counters begin anew.
    pub(crate) fn update(&mut self, name: &str, behaviour: Behaviour) -> io::Result<()> {
        let loaded = Loaded::load(name, behaviour)?;
        self.link.update(loaded.program.as_fd())?;
        (self.map, self.program) = (loaded.map, loaded.program);
        Ok(())
    }

    /// Gives the link a name in a bpffs.
    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        object::pin(self.link.as_fd(), path)
    }

    /// What its counter stands at.
    pub(crate) fn read(&self, key: u32) -> io::Result<u64> {
        read_counter(&self.map, key)
    }
}

impl Drop for ForeignLink {
    fn drop(&mut self) {
        // Closing the last descriptor would do, but a child that is just being started has copies of them all.
        // Its device may be gone, and the link with it.
        let _ = self.link.detach();
    }
}

/// A program that is loaded and nowhere attached.
pub(crate) struct Loaded {
    map: OwnedFd,
    program: OwnedFd,
}

impl Loaded {
    pub(crate) fn load(name: &str, behaviour: Behaviour) -> io::Result<Self> {
        let map = map::create::<u32, u64>(map::Kind::Array, COUNTERS)?;
        let program = load(name, &instructions(behaviour, map.as_raw_fd()))?;
        Ok(Self { map, program })
    }

    /// Gives it a name in a bpffs, by which `tc` finds it.
    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        object::pin(self.program.as_fd(), path)
    }

    /// What its counter stands at.
    pub(crate) fn read(&self, key: u32) -> io::Result<u64> {
        read_counter(&self.map, key)
    }
}

/// Ids of the programs in the TCX ingress chain of a device, first to last.
pub(crate) fn tcx_ingress(device: &str) -> io::Result<Vec<u32>> {
    let chain = link::chain(interface_index(device)?, TcxHook::Ingress)?;
    Ok(chain.entries.iter().map(|&(program, _)| program).collect())
}

pub(crate) fn interface_index(device: &str) -> io::Result<u32> {
    let name = CString::new(device).map_err(io::Error::other)?;
    // SAFETY: a C string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn read_counter(map: &OwnedFd, key: u32) -> io::Result<u64> {
    let value = map::lookup(map.as_fd(), &key)?;
    value.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no counter {key}")))
}

fn load(name: &str, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; 64 * 1024];
    program::load(name, instructions, &mut log).map_err(|error| {
        let text = String::from_utf8_lossy(&log);
        io::Error::new(error.kind(), format!("{error}: {}", text.trim_end_matches('\0')))
    })
}
