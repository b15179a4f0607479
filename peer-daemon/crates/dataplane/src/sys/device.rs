//! Features of network devices and of the TUN driver, by ioctl(2). Reading them needs no capability.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

const SIOCETHTOOL: u64 = 0x8946;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;
const NAME: usize = 32;
/// More than any kernel has.
const MOST: usize = 512;

/// Features of a device by the kernel's names, such as `rx-lro`, and whether they are on.
pub(crate) type Features = BTreeMap<String, bool>;

/// The features of a device, in the network namespace of the calling thread.
pub(crate) fn features(device: &str) -> io::Result<Features> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"))?;
    let mut sets = SetInfo { command: ETHTOOL_GSSET_INFO, reserved: 0, mask: 1 << ETH_SS_FEATURES, count: 0 };
    ethtool(&socket, device, &mut sets)?;
    let count = (sets.count as usize).min(MOST);
    let mut names = Box::new(Strings {
        command: ETHTOOL_GSTRINGS,
        set: ETH_SS_FEATURES,
        count: count as u32,
        names: [[0; NAME]; MOST],
    });
    ethtool(&socket, device, names.as_mut())?;
    let words = count.div_ceil(32);
    let mut values =
        GetFeatures { command: ETHTOOL_GFEATURES, size: words as u32, blocks: [Block::default(); MOST / 32] };
    ethtool(&socket, device, &mut values)?;
    let feature = |index: usize| {
        let bytes: Vec<u8> = names.names[index].iter().copied().take_while(|&byte| byte != 0).collect();
        let on = values.blocks[index / 32].active & (1 << (index % 32)) != 0;
        (String::from_utf8_lossy(&bytes).into_owned(), on)
    };
    Ok((0..count).map(feature).filter(|(name, _)| !name.is_empty()).collect())
}

/// Interface index of a device, in the network namespace of the calling thread.
pub(crate) fn ifindex(device: &str) -> Option<u32> {
    let name = CString::new(device).ok()?;
    // SAFETY: a C string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// Interface indexes of all devices, in the network namespace of the calling thread.
pub(crate) fn ifindexes() -> io::Result<Vec<u32>> {
    // SAFETY: takes nothing; the list is freed below.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut indexes = Vec::new();
    let mut entry = list;
    // SAFETY: the list ends with an index of zero, before which every entry is whole.
    unsafe {
        while (*entry).if_index != 0 {
            indexes.push((*entry).if_index);
            entry = entry.add(1);
        }
        libc::if_freenameindex(list);
    }
    Ok(indexes)
}

/// What the TUN driver can do, as `IFF_…`. No device is made.
pub(crate) fn tun_features() -> io::Result<i32> {
    const TUNGETFEATURES: u64 = 0x8004_54cf;
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut features = 0_i32;
    // SAFETY: the request writes one integer.
    if unsafe { libc::ioctl(tun.as_raw_fd(), TUNGETFEATURES, &raw mut features) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(features)
}

fn ethtool<C: Command>(socket: &UdpSocket, device: &str, command: &mut C) -> io::Result<()> {
    // SAFETY: integers, characters and a pointer, all of which may be zero.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
    // SAFETY: the kernel reads the command's number and writes what belongs to it: each of these structures has the room
    // that its own numbers ask for.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Structures of ethtool's, in their layout.
trait Command {}
impl Command for SetInfo {}
impl Command for Strings {}
impl Command for GetFeatures {}

#[repr(C)]
struct SetInfo {
    command: u32,
    reserved: u32,
    mask: u64,
    count: u32,
}

#[repr(C)]
struct Strings {
    command: u32,
    set: u32,
    count: u32,
    names: [[u8; NAME]; MOST],
}

#[repr(C)]
struct GetFeatures {
    command: u32,
    size: u32,
    blocks: [Block; MOST / 32],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Block {
    available: u32,
    requested: u32,
    active: u32,
    never_changed: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_features() {
        let features = features("lo").expect("any device answers");
        assert_eq!(features.get("loopback"), Some(&true), "{features:?}");
        assert_eq!(features.get("rx-lro"), Some(&false), "{features:?}");
        assert!(super::features("no-such-device").is_err());
    }

    #[test]
    fn loopback_is_among_the_devices() {
        assert_eq!(ifindexes().expect("a list").first(), ifindex("lo").as_ref());
    }
}
