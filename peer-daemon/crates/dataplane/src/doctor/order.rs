//! Checks of the chains.

use super::facts::{Device, Facts, Hook, Role};
use super::{Check, Finding, Severity};
use crate::chain::{CILIUM_PREFIX, Neighbour, OWN_PREFIX, Owner};

pub(super) fn check(facts: &Facts, found: &mut Vec<Finding>) {
    for device in &facts.devices {
        for hook in &device.hooks {
            match &hook.chain {
                Ok(chain) => check_chain(device, hook, chain, found),
                Err(why) => found.push(
                    Finding::new(Check::Order, Severity::Unknown, format!("the {} chain: {why}", hook.direction()))
                        .about(&device.name)
                        .remedy("run it with CAP_BPF and CAP_NET_ADMIN, in the network namespace of the peer"),
                ),
            }
            if let Err(why) = &hook.filters {
                let what = format!("legacy filters, {}: {why}", hook.direction());
                found.push(Finding::new(Check::Order, Severity::Unknown, what).about(&device.name));
            }
        }
        if device.role == Role::Mesh {
            check_mesh(device, found);
        }
    }
}

fn check_chain(device: &Device, hook: &Hook, chain: &[Neighbour], found: &mut Vec<Finding>) {
    let own = chain.iter().position(|neighbour| neighbour.owner == Owner::Own);
    let own_filter = hook.own_filter;
    if own.is_none() && own_filter.is_none() && hook.pinned {
        let what = format!("our program is pinned for {} but not attached: the device was deleted", hook.direction());
        let finding = Finding::new(Check::Order, Severity::Problem, what).about(&device.name);
        found.push(finding.remedy("a running daemon attaches it again within 10 s; otherwise start it"));
    }
    // Without a program of ours there is no order yet.
    let ahead = match (own, own_filter) {
        (Some(own), _) => &chain[..own],
        (None, Some(_)) => chain,
        (None, None) => &[],
    };
    found.extend(ahead.iter().filter_map(|neighbour| ahead_of_us(device, hook, neighbour)));
    if let (None, Some(own), Ok(filters)) = (own, own_filter, &hook.filters) {
        let ciliums = |name: &&str| name.starts_with(CILIUM_PREFIX);
        for name in filters[..own].iter().filter_map(|filter| filter.name.as_deref()).filter(ciliums) {
            let what = format!("Cilium's filter {name} runs before ours ({}) and ends the chain", hook.direction());
            let finding = Finding::new(Check::Order, Severity::Problem, what).about(&device.name).by("Cilium");
            found.push(finding.remedy("set Cilium's bpf-filter-priority to 2 or more"));
        }
    }
    check_stale(device, hook, chain, found);
    for neighbour in chain.iter().filter(|neighbour| neighbour.owner == Owner::Former) {
        let what = format!(
            "program {} of an earlier life of this peer is attached here as well ({}): its pins are on another bpffs",
            neighbour.program,
            hook.direction()
        );
        let finding =
            Finding::new(Check::Order, Severity::Problem, what).about(&device.name).by("an earlier life of this peer");
        found.push(finding.remedy("remove its pins from that bpffs: rm -r BPFFS/peer/DEVICE"));
    }
    for neighbour in chain {
        if let Owner::Unknown(Some(name)) = &neighbour.owner
            && name.starts_with(OWN_PREFIX)
        {
            let what = format!(
                "{name} (program {}) is attached here as well ({}): it is of a peer whose pins are on another bpffs",
                neighbour.program,
                hook.direction()
            );
            let finding = Finding::new(Check::Order, Severity::Problem, what).about(&device.name).by("another peer");
            let remedy = "where that peer runs no more, remove its pins from that bpffs: rm -r BPFFS/peer/DEVICE";
            found.push(finding.remedy(remedy));
        }
    }
}

fn ahead_of_us(device: &Device, hook: &Hook, neighbour: &Neighbour) -> Option<Finding> {
    let direction = hook.direction();
    let (severity, what, remedy) = match &neighbour.owner {
        Owner::Own | Owner::Former | Owner::Peer(_) => return None,
        Owner::Cilium(program) => (
            Severity::Problem,
            format!("{program} runs before our program ({direction}) and ends the chain: no packet reaches us"),
            "a running daemon goes ahead of it within 10 s, three times at most; then find out what moves it",
        ),
        Owner::Unknown(_) => (
            Severity::Warning,
            format!(
                "program {} runs before our program ({direction}): packets reach us only if it lets them pass",
                neighbour.program
            ),
            "if traffic stops here, let its owner attach it behind ours, or end it; it is not fought",
        ),
    };
    let owner = match &neighbour.owner {
        Owner::Unknown(None) => format!("unknown owner, id {}", neighbour.program),
        owner => owner.to_string(),
    };
    Some(Finding::new(Check::Order, severity, what).about(&device.name).by(owner).remedy(remedy))
}

/// The same program of Cilium's twice: the older one lost its pin, and with it its updates. When its maps of tail calls
/// go, it drops everything.
fn check_stale(device: &Device, hook: &Hook, chain: &[Neighbour], found: &mut Vec<Finding>) {
    let names: Vec<&str> = chain
        .iter()
        .filter_map(|neighbour| match &neighbour.owner {
            Owner::Cilium(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    for name in distinct {
        let count = names.iter().filter(|other| **other == name).count();
        if count > 1 {
            let what = format!("{name} is attached {count} times ({}): all but one are stale", hook.direction());
            let remedy = "mount the host's bpffs into the Cilium agent so that its pins last, then restart the node, or \
                          detach the stale ones with `bpftool net detach`";
            let finding = Finding::new(Check::StaleCilium, Severity::Warning, what).about(&device.name);
            found.push(finding.by("Cilium").remedy(remedy));
        }
    }
}

fn check_mesh(device: &Device, found: &mut Vec<Finding>) {
    let mut evidence = Vec::new();
    for hook in &device.hooks {
        let direction = hook.direction();
        for neighbour in hook.chain.iter().flatten() {
            if let Owner::Cilium(program) = &neighbour.owner {
                evidence.push(format!("{program} at {direction}"));
            }
        }
        for name in hook.filters.iter().flatten().filter_map(|filter| filter.name.as_deref()) {
            if name.starts_with(CILIUM_PREFIX) {
                evidence.push(format!("filter {name} at {direction}"));
            }
        }
    }
    if device.has_cilium_directory {
        evidence.push("its directory of links".to_owned());
    }
    if evidence.is_empty() {
        return;
    }
    let what =
        format!("Cilium has taken the mesh device for one of its own ({}): we go on ahead of it", evidence.join(", "));
    let remedy = "set Cilium's `devices` to the uplinks (such as devices=eth0) without a wildcard that matches this device, \
                  and without forceDeviceDetection";
    found.push(
        Finding::new(Check::CiliumDevice, Severity::Warning, what).about(&device.name).by("Cilium").remedy(remedy),
    );
}
