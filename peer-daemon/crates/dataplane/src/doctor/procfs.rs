//! What /proc tells: settings, sockets, mounts.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A setting of the network namespace; `None`: there is none of that name.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok().map(|text| text.trim().to_owned())
}

pub(crate) fn number<T: FromStr>(name: &str) -> Option<T> {
    sysctl(name)?.parse().ok()
}

pub(crate) fn flag(name: &str) -> Option<bool> {
    number::<u8>(name).map(|value| value != 0)
}

/// First and last, with white space between.
pub(crate) fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(char::is_whitespace)?;
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

/// `8080,9000-9100`; nothing that cannot be read.
pub(crate) fn port_list(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).collect()
}

/// Whether the mount at `path` is shared with, or fed by, another mount namespace; `None`: nothing is mounted there.
pub(crate) fn propagated(path: &Path) -> Option<bool> {
    mount_is_propagated(&fs::read_to_string("/proc/thread-self/mountinfo").ok()?, path.to_str()?)
}

/// The last mount of that path counts: it covers the others.
fn mount_is_propagated(mounts: &str, path: &str) -> Option<bool> {
    let at = |line: &&str| line.split(' ').nth(4) == Some(path);
    let (before, _) = mounts.lines().rfind(at)?.split_once(" - ")?;
    Some(before.split(' ').skip(6).any(|tag| tag.starts_with("shared:") || tag.starts_with("master:")))
}

/// Who has a UDP port: `None`: nobody; `Some(None)`: nobody that we may see.
pub(crate) fn udp_owner(port: u16) -> Option<Option<String>> {
    let mut inodes = Vec::new();
    for table in ["udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        inodes.extend(text.lines().skip(1).filter_map(|line| socket_at(line, port)));
    }
    (!inodes.is_empty()).then(|| process_with(&inodes))
}

/// The inode of the socket, if it has that local port.
fn socket_at(line: &str, port: u16) -> Option<u64> {
    let mut fields = line.split_whitespace();
    let (_, local) = fields.nth(1)?.rsplit_once(':')?;
    let inode = fields.nth(7)?;
    (u16::from_str_radix(local, 16).ok()? == port).then(|| inode.parse().ok())?
}

/// Local port and inode of a socket, of TCP only if it listens.
pub(crate) fn bound(line: &str, tcp: bool) -> Option<(u16, u64)> {
    /// `TCP_LISTEN` of net/tcp_states.h.
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    if tcp && *fields.get(3)? != LISTEN {
        return None;
    }
    Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
}

/// Name and id of a process that has one of these sockets open.
pub(crate) fn process_with(inodes: &[u64]) -> Option<String> {
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let pid: u32 = match process.file_name().to_string_lossy().parse() {
            Ok(pid) => pid,
            Err(_) => continue,
        };
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let is_wanted = |target: PathBuf| wanted.iter().any(|socket| target.as_os_str() == socket.as_str());
        if open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(is_wanted) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn port_settings_are_read() {
        assert_eq!(port_range("32768\t60999"), Some(32768..=60999));
        assert_eq!(port_range(""), None);
        assert_eq!(port_list("8080,9000-9100"), [8080..=8080, 9000..=9100]);
        assert_eq!(port_list(""), []);
    }

    #[test]
    fn the_last_mount_of_a_path_tells_its_propagation() {
        let mounts = "24 1 0:22 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700\n\
                      90 1 0:40 / /run/bpf rw - bpf bpf rw\n\
                      91 24 0:41 / /sys/fs/bpf rw,relatime - bpf bpf rw\n\
                      92 1 0:42 / /mnt rw,relatime master:3 - bpf bpf rw";
        let cases = [("/sys/fs/bpf", Some(false)), ("/run/bpf", Some(false)), ("/mnt", Some(true)), ("/x", None)];
        for (path, expected) in cases {
            assert_eq!(mount_is_propagated(mounts, path), expected, "{path}");
        }
        assert_eq!(mount_is_propagated(mounts.lines().next().expect("a line"), "/sys/fs/bpf"), Some(true));
    }

    #[test]
    fn the_owner_of_a_port_is_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = socket.local_addr().expect("its address").port();
        let own = format!("(pid {})", std::process::id());
        let owner = || udp_owner(port).expect("somebody has it").expect("we may see ourselves");
        // A program that another test is about to start has it as well, until it runs.
        assert!((0..100).any(|_| owner().ends_with(&own)), "{}", owner());
        drop(socket);
        assert_eq!(udp_owner(port), None);
    }
}
