//! A node with a mesh device and an uplink, and what others do to it.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use peer_core::desired::{Route, UplinkChoice};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::ebpf::{Attach, EbpfDataplane, Options};
use crate::kernel::{Netlink, Snapshot};
use crate::sys::{self, End, Link, TcxHook};
use crate::{Attachment, Dataplane as _, Error, Intent, Wt0};

pub(crate) struct Lab {
    pub(crate) runtime: Runtime,
    pub(crate) netlink: Netlink,
    pub(crate) options: Options,
    /// Routes that the node serves: destination and uplink.
    pub(crate) routes: Vec<(&'static str, UplinkChoice)>,
    dir: TempDir,
}

/// Runs `test` in a thread with namespaces of its own, with `wt0` and `eth0` in them.
pub(crate) fn in_lab(test: impl FnOnce(&mut Lab) + Send + 'static) {
    let run = move || {
        sys::lab::unshare().expect("these tests need root (CAP_SYS_ADMIN for namespaces, CAP_BPF, CAP_NET_ADMIN)");
        let dir = tempfile::tempdir().expect("a directory");
        sys::lab::mount("bpf", dir.path()).expect("a bpffs");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let netlink = runtime.block_on(async { Netlink::connect().expect("a netlink socket") });
        let options = Options {
            bpffs: dir.path().to_owned(),
            require_pins: true,
            flows: 128,
            attach: Attach::Auto,
            allow_unsafe_order: false,
        };
        let mut lab = Lab { runtime, netlink, options, routes: vec![("198.51.100.0/24", UplinkChoice::Auto)], dir };
        ip("link set lo up");
        lab.add_wt0();
        lab.add_eth0();
        test(&mut lab);
        sys::lab::unmount(lab.dir.path()).expect("unmounted");
        lab.dir.close().expect("nothing is left behind");
    };
    std::thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

impl Lab {
    pub(crate) fn add_wt0(&self) {
        ip("tuntap add dev wt0 mode tun");
        ip("addr add 100.64.0.1/16 dev wt0");
        ip("link set wt0 up mtu 1420");
    }

    pub(crate) fn add_eth0(&self) {
        ip("link add eth0 type veth peer name lan0");
        ip("addr add 198.51.100.1/24 dev eth0");
        ip("link set eth0 up");
        ip("link set lan0 up");
    }

    /// A peer that starts.
    pub(crate) fn open(&self) -> EbpfDataplane {
        EbpfDataplane::open(&self.options, "wt0").expect("loaded")
    }

    /// A peer that is up.
    pub(crate) fn up(&self) -> EbpfDataplane {
        let mut peer = self.open();
        self.follow(&mut peer).expect("applied");
        peer
    }

    /// What the driver does when the node has changed.
    pub(crate) fn follow(&self, peer: &mut EbpfDataplane) -> Result<(), Error> {
        let intent = self.intent();
        let node = self.node();
        let _entered = self.runtime.enter();
        peer.apply(&intent, &node)
    }

    pub(crate) fn intent(&self) -> Intent {
        let route = |(destination, uplink): &(&str, UplinkChoice)| Route {
            destination: destination.parse().expect("a prefix"),
            masquerade: true,
            uplink: uplink.clone(),
        };
        Intent {
            wt0: Wt0 { name: "wt0".into(), index: sys::ifindex("wt0").unwrap_or(0), mtu: 1420 },
            addresses: vec!["100.64.0.1".parse().expect("an address")],
            peers: [].into(),
            routes: self.routes.iter().map(route).collect(),
            rules: [].into(),
            nat_ports: crate::DEFAULT_NAT_PORTS,
            nat_addresses: Vec::new(),
            listeners: Vec::new(),
            peer_quota: None,
            protect_node: false,
            reject: false,
            unsupported: Vec::new(),
        }
    }

    pub(crate) fn node(&self) -> Snapshot {
        let wanted = crate::ebpf::questions(&self.intent());
        self.runtime.block_on(self.netlink.snapshot(&wanted)).expect("a snapshot")
    }

    /// Ends a peer.
    pub(crate) fn down(&self, peer: EbpfDataplane, keep: bool) {
        let _entered = self.runtime.enter();
        Box::new(peer).shutdown(keep).expect("ended");
    }

    /// Pins below our own directory, without the bpffs' path, sorted.
    pub(crate) fn pins(&self) -> Vec<PathBuf> {
        let mut pins = Vec::new();
        walk(&self.dir.path().join("peer"), &mut pins);
        pins.iter().map(|path| path.strip_prefix(self.dir.path()).expect("below").to_owned()).collect()
    }

    pub(crate) fn bpffs(&self) -> &Path {
        self.dir.path()
    }
}

/// The attachment at the uplink.
pub(crate) fn at(peer: &EbpfDataplane, device: &str) -> Attachment {
    let attachments = peer.stats().expect("figures").attachments;
    attachments.into_iter().find(|attachment| attachment.device == device).expect("attached there")
}

/// Mends as the driver does, at a time of the test's choice.
pub(crate) fn mend(peer: &mut EbpfDataplane, now: Instant) {
    peer.attachments.mend(&mut peer.ebpf, now).expect("mended");
}

/// Ids of the programs in a TCX chain; none where the kernel has no TCX.
pub(crate) fn chain(device: &str, hook: TcxHook) -> Vec<u32> {
    let index = sys::ifindex(device).expect("the device");
    match sys::chain(index, hook) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Vec::new(),
        chain => chain.expect("the chain").entries.into_iter().map(|(program, _)| program).collect(),
    }
}

/// A program of somebody else's in a chain, for as long as this lives.
pub(crate) struct Foreign {
    program: OwnedFd,
    pub(crate) link: Link,
}

impl Foreign {
    pub(crate) fn attach(name: &str, device: &str, first: bool) -> Self {
        let program = sys::lab::program(name, 0).expect("loaded");
        let index = sys::ifindex(device).expect("the device");
        let end = if first { End::First } else { End::Last };
        let link = Link::create(program.as_fd(), index, TcxHook::Ingress, end, 0).expect("attached");
        Self { program, link }
    }

    pub(crate) fn id(&self) -> u32 {
        sys::program_id(self.program.as_fd()).expect("its id")
    }
}

pub(crate) fn ip(arguments: &str) {
    run("ip", arguments);
}

pub(crate) fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("iproute2 is needed");
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn walk(dir: &Path, pins: &mut Vec<PathBuf>) {
    let mut paths: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            walk(&path, pins);
        } else {
            pins.push(path);
        }
    }
}
