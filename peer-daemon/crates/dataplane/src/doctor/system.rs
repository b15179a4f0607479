//! Checks of what the kernel and the container grant.

use super::facts::Facts;
use super::{Check, Finding, Severity};

const MOUNT: &str =
    "mount the host's /sys/fs/bpf into the container (hostPath), and name it with --bpffs if it lies elsewhere";
const SECURITY_CONTEXT: &str = "the container's securityContext.capabilities.add";

pub(super) fn check(facts: &Facts, found: &mut Vec<Finding>) {
    check_capabilities(facts, found);
    check_kernel(facts, found);
    check_bpffs(facts, found);
    check_tun(facts, found);
}

fn check_capabilities(facts: &Facts, found: &mut Vec<Finding>) {
    let capabilities = facts.capabilities;
    if let Some(missing) = capabilities.missing() {
        let what = format!("{missing} missing: programs cannot be loaded or attached, and the daemon does not start");
        let finding = Finding::new(Check::Capabilities, Severity::Problem, what);
        found.push(finding.remedy(capabilities.remedy()));
    } else if !capabilities.perfmon {
        let what =
            "without CAP_PERFMON the verifier adds fences against Spectre: the programs work, at twice their cost";
        let finding = Finding::new(Check::Capabilities, Severity::Note, what);
        found.push(finding.remedy(format!("add PERFMON to {SECURITY_CONTEXT}; it is given up after loading")));
    }
}

fn check_kernel(facts: &Facts, found: &mut Vec<Finding>) {
    for (feature, has) in facts.kernel.iter().flatten() {
        let name = feature.name;
        match (has, feature.instead) {
            (Ok(true), _) => {}
            (Ok(false), Some(instead)) => {
                let what = format!("no {name} (Linux {}): {instead}", feature.since);
                found.push(Finding::new(Check::Kernel, Severity::Warning, what).about(name));
            }
            (Ok(false), None) => {
                let what = format!("no {name} (Linux {}): the programs do not load", feature.since);
                let finding = Finding::new(Check::Kernel, Severity::Problem, what).about(name);
                found.push(finding.remedy(format!("a kernel of {} or newer", feature.since)));
            }
            (Err(why), _) => {
                found.push(Finding::new(Check::Kernel, Severity::Unknown, format!("{name}: {why}")).about(name));
            }
        }
    }
}

/// Nothing can be pinned there.
pub(super) fn no_bpffs(path: &str) -> Finding {
    let what = "is no BPF file system: programs, tables and flows end with the daemon";
    let remedy = format!("{MOUNT}; on a host: mount -t bpf bpf {path}; then restart the daemon");
    Finding::new(Check::Bpffs, Severity::Warning, what).about(path).remedy(remedy)
}

fn check_bpffs(facts: &Facts, found: &mut Vec<Finding>) {
    let bpffs = &facts.bpffs;
    let path = bpffs.path.display().to_string();
    let finding = |severity, what: &str| Finding::new(Check::Bpffs, severity, what).about(&path);
    let host = MOUNT;
    match (&bpffs.is_bpffs, &bpffs.writable) {
        (Err(why), _) => found.push(finding(Severity::Problem, &format!("cannot be looked at: {why}")).remedy(host)),
        (Ok(false), _) => found.push(no_bpffs(&path)),
        (Ok(true), Ok(false)) => found.push(
            finding(Severity::Problem, "cannot be written").remedy("mount it without readOnly, and run as uid 0"),
        ),
        (Ok(true), Err(why)) => found.push(finding(Severity::Unknown, &format!("whether it can be written: {why}"))),
        (Ok(true), Ok(true)) if bpffs.propagated == Some(false) => found.push(finding(
            Severity::Note,
            "its mount is private to this mount namespace: unless it is the host's, flows end with the container",
        )),
        (Ok(true), Ok(true)) => {}
    }
}

fn check_tun(facts: &Facts, found: &mut Vec<Finding>) {
    let finding = |severity, what: String| Finding::new(Check::Tun, severity, what).about("/dev/net/tun");
    match facts.tun {
        None => {}
        Some(Err(ref why)) => found.push(finding(Severity::Problem, format!("cannot be opened: {why}")).remedy(
            "load the module tun; give the container the device (hostPath of type CharDevice, or --device /dev/net/tun)",
        )),
        Some(Ok(features)) => {
            for (flag, what) in [(libc::IFF_VNET_HDR, "vnet headers"), (libc::IFF_MULTI_QUEUE, "several queues")] {
                if features & flag == 0 {
                    let finding = finding(Severity::Problem, format!("the driver has no {what}"));
                    found.push(finding.remedy("a kernel of 3.8 or newer"));
                }
            }
        }
    }
}
