//! Opening /dev/net/tun and attaching to the device.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use super::network::Network;
use super::read::Found;
use crate::tun::Offloads;
use crate::{Error, sys};

const FLAGS: i32 = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
const TCP_OFFLOADS: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const UDP_OFFLOADS: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;
/// `sizeof(struct virtio_net_hdr)`.
const VNET_HEADER: i32 = 10;

/// Attached queues of a device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) adopted: bool,
    pub(super) offloads: Offloads,
    pub(super) queues: Vec<OwnedFd>,
}

impl Device {
    /// Makes the device, or adopts the one that is there unless it shall be made anew, with so many queues attached.
    pub(super) async fn open(network: &Network, name: &str, queues: usize, adopt: bool) -> Result<Self, Error> {
        let mut found = network.find(name).await?;
        if let Some(device) = &found {
            may_adopt(name, device)?;
            if !adopt {
                tracing::warn!("{name} is of an earlier life, whose programs may still be on it: it is made anew");
                network.delete(device.index).await?;
                found = None;
            }
        }
        let adopted = found.is_some();
        let first = attach(name, if adopted { FLAGS } else { FLAGS | libc::IFF_TUN_EXCL })?;
        let mut device = Self { index: 0, adopted, offloads: Offloads::default(), queues: vec![first] };
        match device.complete(network, name, queues).await {
            Ok(()) => Ok(device),
            Err(error) => {
                device.abandon();
                Err(error)
            }
        }
    }

    /// Takes a device that was made just now away again.
    pub(super) fn abandon(self) {
        if let (false, Some(queue)) = (self.adopted, self.queues.first())
            && let Err(error) = sys::set_persistent(queue.as_fd(), false)
        {
            tracing::warn!("a device that could not be set up stays behind: {error}");
        }
    }

    async fn complete(&mut self, network: &Network, name: &str, queues: usize) -> Result<(), Error> {
        while self.queues.len() < queues {
            self.queues.push(attach(name, FLAGS)?);
        }
        // Several queues may be attached by several processes: the kernel does not mind, we do. Looked at once more, since
        // another daemon may have come at the same moment.
        let found = network.find(name).await?.ok_or(Error::Busy { name: name.into() })?;
        if found.queues != Some(queues as u32) {
            return Err(Error::Busy { name: name.into() });
        }
        self.index = found.index;
        let first = self.queues[0].as_fd();
        let failed = |what: &str| Error::io(format!("{what} {name}"));
        sys::set_vnet_header_len(first, VNET_HEADER).map_err(failed("setting the vnet header of"))?;
        self.offloads = set_offloads(name, first)?;
        sys::set_persistent(first, true).map_err(failed("making persistent the device"))
    }
}

/// Whether what bears our name can be from an earlier life of ours.
fn may_adopt(name: &str, found: &Found) -> Result<(), Error> {
    let name = || name.to_owned();
    if found.kind != "tun" {
        return Err(Error::NotTun { name: name(), kind: found.kind.clone() });
    }
    if found.tap {
        return Err(Error::NotTun { name: name(), kind: "tap".into() });
    }
    // One queue only: someone else's, in use or not.
    let Some(queues) = found.queues else {
        return Err(Error::ForeignTun { name: name(), what: "it has a single queue" });
    };
    if queues > 0 {
        return Err(Error::Busy { name: name() });
    }
    Ok(())
}

fn attach(name: &str, flags: i32) -> Result<OwnedFd, Error> {
    let tun = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let tun: OwnedFd = tun.map_err(|source| Error::NoTunDriver { source })?.into();
    match sys::attach_tun(tun.as_fd(), name, flags) {
        Ok(()) => Ok(tun),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::EPERM) => Error::NotAdmin { name: name.into() },
            Some(libc::EBUSY | libc::EEXIST) => Error::Busy { name: name.into() },
            Some(libc::EINVAL) => Error::ForeignTun { name: name.into(), what: "it has other flags" },
            _ => Error::Io { what: format!("attaching to the device {name}"), source: error },
        }),
    }
}

/// The most that the kernel has. Older ones refuse what they do not know.
fn set_offloads(name: &str, tun: std::os::fd::BorrowedFd<'_>) -> Result<Offloads, Error> {
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    for (flags, offloads) in [
        (TCP_OFFLOADS | UDP_OFFLOADS, Offloads { tcp: true, udp: true }),
        (TCP_OFFLOADS, Offloads { tcp: true, udp: false }),
        (0, Offloads::default()),
    ] {
        match sys::set_offloads(tun, flags) {
            Ok(()) => return Ok(offloads),
            Err(error) if refused(&error) => tracing::info!("{name}: the kernel refuses offloads {flags:#x}"),
            Err(error) => return Err(Error::Io { what: format!("setting offloads of {name}"), source: error }),
        }
    }
    Ok(Offloads::default())
}
