//! Gathers the facts.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::Subject;
use super::facts::{Bpffs, Device, Facts, Feature, Hook, Ipv6, Learned, Role, Sysctls};
use super::procfs;
use crate::chain::{Owners, entries, file_name};
use crate::kernel::{Link, Snapshot};
use crate::sys::{self, TcxHook};
use crate::tc::{Filter, Tc};
use crate::{Capabilities, ebpf, netfilter};

const TCX: Feature =
    Feature { name: "TCX", since: "6.6", instead: Some("clsact filters are used, where the order is safe") };
const BATCHES: Feature = Feature { name: "batch operations of hash maps", since: "5.6", instead: None };
/// By number, as in linux/bpf.h.
const HELPERS: [(i32, Feature); 6] = [
    (43, Feature { name: "bpf_skb_change_head", since: "5.8", instead: None }),
    (69, Feature { name: "bpf_fib_lookup", since: "4.18", instead: None }),
    (99, Feature { name: "bpf_skc_lookup_tcp", since: "5.2", instead: None }),
    (152, Feature { name: "bpf_redirect_neigh", since: "5.10", instead: None }),
    (160, Feature { name: "bpf_ktime_get_coarse_ns", since: "5.11", instead: None }),
    (181, Feature { name: "bpf_loop", since: "5.17", instead: None }),
];
const LOOPBACK: u32 = 1;

pub(super) fn gather(subject: &Subject<'_>, node: &Snapshot) -> Facts {
    let capabilities = Capabilities::current();
    let (mut uplinks, unserved) = match subject.intent {
        Some(intent) => ebpf::uplinks(intent, node),
        None => (ebpf::default_uplinks(node, &subject.wt0), Vec::new()),
    };
    let absent_sources = subject.intent.map(|intent| ebpf::absent_sources(intent, &uplinks, node)).unwrap_or_default();
    let absent_addresses = node.link_named(&subject.wt0).map(|(_, mesh)| {
        let has = |wanted: &IpAddr| mesh.addresses.iter().any(|address| address.net.addr() == *wanted);
        subject.addresses.iter().filter(|wanted| !has(wanted)).copied().collect()
    });
    let mut absent = Vec::new();
    for name in &subject.uplinks {
        match node.link_named(name) {
            Some((index, _)) => _ = uplinks.insert(index),
            None => absent.push(name.clone()),
        }
    }
    let mut places: Vec<(u32, Role)> = uplinks.into_iter().map(|index| (index, Role::Uplink)).collect();
    places.extend(node.link_named(&subject.wt0).map(|(index, _)| (index, Role::Mesh)));
    let keeps_sources = subject.intent.map(|intent| ebpf::keeps_sources(intent, node)).unwrap_or_default();
    let closed_chains = if keeps_sources.is_empty() { Ok(Vec::new()) } else { netfilter::closed_forward_chains() };
    let look = Look::new(subject, keeps_sources);
    let device = |(index, role)| node.links.get(&index).map(|link| look.device(index, role, link));
    let devices: Vec<Device> = places.into_iter().filter_map(device).collect();
    let intent_v6 = |intent: &crate::Intent| {
        intent.routes.iter().any(|route| route.destination.addr().is_ipv6())
            || intent.addresses.iter().any(IpAddr::is_ipv6)
    };
    Facts {
        capabilities,
        nat_ports: subject.nat_ports.clone(),
        nat_bounds: subject.nat_bounds.clone(),
        absent_sources,
        absent_addresses: absent_addresses.unwrap_or_default(),
        ipv6: ipv6(&subject.wt0),
        kernel: subject.probe.then(|| kernel(capabilities)),
        bpffs: bpffs(&subject.bpffs),
        unsupported: subject.intent.map(|intent| intent.unsupported.clone()).unwrap_or_default(),
        tun: subject.probe.then(|| learned(sys::tun_features())),
        sysctls: Sysctls {
            writable: sys::may_write(Path::new("/proc/sys/net/ipv4/ip_forward")).unwrap_or(false),
            local_ports: procfs::sysctl("net/ipv4/ip_local_port_range").and_then(|text| procfs::port_range(&text)),
            reserved_ports: procfs::sysctl("net/ipv4/ip_local_reserved_ports")
                .map(|text| procfs::port_list(&text))
                .unwrap_or_default(),
            src_valid_mark: procfs::flag("net/ipv4/conf/all/src_valid_mark"),
            rp_filter: procfs::number("net/ipv4/conf/all/rp_filter"),
            forwarding6: procfs::flag("net/ipv6/conf/all/forwarding"),
        },
        devices,
        absent,
        closed_chains: learned(closed_chains),
        unserved,
        busy_port: subject.listen_port.and_then(|port| procfs::udp_owner(port).map(|owner| (port, owner))),
        wants_v6: subject.intent.is_some_and(intent_v6),
        configuration: subject.configuration,
    }
}

fn ipv6(device: &str) -> Ipv6 {
    if !Path::new("/proc/sys/net/ipv6/conf").exists() {
        Ipv6::Absent
    } else if procfs::flag(&format!("net/ipv6/conf/{device}/disable_ipv6")) == Some(true) {
        Ipv6::Off
    } else {
        Ipv6::On
    }
}

/// What a look at devices needs.
struct Look<'a> {
    subject: &'a Subject<'a>,
    owners: Owners,
    pins: BTreeSet<String>,
    /// Uplinks and families (IPv4 or not) of routes that keep sources.
    keeps_sources: BTreeSet<(u32, bool)>,
}

impl<'a> Look<'a> {
    fn new(subject: &'a Subject<'a>, keeps_sources: BTreeSet<(u32, bool)>) -> Self {
        let device = subject.bpffs.join("peer").join(ebpf::pin_name(&subject.wt0));
        let held = |version: std::path::PathBuf| ["links", "filters"].map(|kind| version.join(kind));
        let pins = entries(&device).into_iter().flat_map(held).flat_map(|dir| entries(&dir));
        Self {
            subject,
            owners: Owners::read(&subject.bpffs, &subject.wt0),
            pins: pins.map(|path| file_name(&path)).collect(),
            keeps_sources,
        }
    }

    fn device(&self, index: u32, role: Role, link: &Link) -> Device {
        let name = &link.name;
        let setting = |family: &str, setting: &str| format!("net/{family}/conf/{name}/{setting}");
        // Cilium writes a dot as a dash.
        let directory = self.subject.bpffs.join("cilium/devices").join(name.replace('.', "-"));
        Device {
            name: name.clone(),
            role,
            mtu: link.mtu,
            features: learned(sys::features(name)),
            rp_filter: procfs::number(&setting("ipv4", "rp_filter")),
            src_valid_mark: procfs::flag(&setting("ipv4", "src_valid_mark")),
            forwarding4: procfs::flag(&setting("ipv4", "forwarding")),
            forwarding6: procfs::flag(&setting("ipv6", "forwarding")),
            force_forwarding6: procfs::flag(&setting("ipv6", "force_forwarding")),
            keeps_sources: [true, false].map(|v4| self.keeps_sources.contains(&(index, v4))),
            has_cilium_directory: directory.exists(),
            hooks: [TcxHook::Ingress, TcxHook::Egress].map(|hook| self.hook(index, hook, name)).into(),
        }
    }

    fn hook(&self, index: u32, hook: TcxHook, device: &str) -> Hook {
        let chain = match self.owners.chain(index, hook) {
            // No TCX: the check of the kernel says so.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
            chain => learned(chain.map(|(chain, _)| chain)),
        };
        let filters = learned(Tc::connect().and_then(|mut tc| tc.filters(index, hook)));
        let wt0 = &self.subject.wt0;
        let own = |name: &str| name.starts_with("peer_") && name.ends_with(&format!("/{wt0}"));
        let is_own = |filter: &Filter| filter.name.as_deref().is_some_and(own);
        let own_filter = filters.as_ref().ok().and_then(|filters: &Vec<Filter>| filters.iter().position(is_own));
        let expected = ebpf::pins_at(device, hook == TcxHook::Egress, device == wt0);
        Hook {
            egress: hook == TcxHook::Egress,
            chain,
            filters,
            own_filter,
            pinned: expected.is_some_and(|pin| self.pins.contains(&pin)),
        }
    }
}

fn kernel(capabilities: Capabilities) -> Vec<(Feature, Learned<bool>)> {
    let tcx = match sys::chain(LOOPBACK, TcxHook::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    };
    let mut features =
        vec![(TCX, refused(capabilities, tcx)), (BATCHES, refused(capabilities, sys::batch_operations()))];
    let helper = |(number, feature): (i32, Feature)| (feature, refused(capabilities, sys::helper(number)));
    features.extend(HELPERS.map(helper));
    features
}

/// Without capabilities the kernel tells nothing, and that is what has to be said.
fn refused(capabilities: Capabilities, result: io::Result<bool>) -> Learned<bool> {
    result.map_err(|error| match capabilities.missing() {
        Some(missing) => format!("cannot be asked without {missing}"),
        None => error.to_string(),
    })
}

fn bpffs(path: &Path) -> Bpffs {
    let is_bpffs = learned(sys::is_bpffs(path));
    let writable = learned(sys::may_write(path));
    Bpffs { path: path.to_owned(), is_bpffs, writable, propagated: procfs::propagated(path) }
}

fn learned<T>(result: io::Result<T>) -> Learned<T> {
    result.map_err(|error| error.to_string())
}
