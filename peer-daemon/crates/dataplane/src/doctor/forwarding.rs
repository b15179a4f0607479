//! Whether what the LAN opens reaches the mesh, on routes that keep sources.
//!
//! Both directions of what members open are redirected by our programs, whatever the kernel forwards. What a host of the LAN opens goes
//! by the kernel's forwarding, and so do a member's answers.

use super::facts::{Device, Facts};
use super::{Check, Finding, Severity};

pub(super) fn check(uplink: &Device, facts: &Facts, found: &mut Vec<Finding>) {
    for (v4, keeps) in [true, false].into_iter().zip(uplink.keeps_sources) {
        if keeps {
            check_family(uplink, v4, facts, found);
        }
    }
}

fn check_family(uplink: &Device, v4: bool, facts: &Facts, found: &mut Vec<Finding>) {
    let name = &uplink.name;
    let (family, mesh) = (if v4 { "IPv4" } else { "IPv6" }, mesh(facts));
    let note = |what: String| Finding::new(Check::Forwarding, Severity::Note, what).about(name);
    let lost =
        format!("what hosts of the LAN open towards members over {family} is not forwarded; what members open is");
    let off = if v4 {
        uplink.forwarding4 == Some(false)
    } else {
        facts.sysctls.forwarding6 == Some(false) && uplink.force_forwarding6 != Some(true)
    };
    if off {
        let (sysctl, remedy) = if v4 {
            let sysctl = format!("net.ipv4.conf.{name}.forwarding");
            (sysctl.clone(), format!("if the LAN should open connections: sysctl -w {sysctl}=1"))
        } else {
            let remedy = format!(
                "if the LAN should open connections: sysctl -w net.ipv6.conf.all.forwarding=1, or from Linux 6.17 on \
                 net.ipv6.conf.{name}.force_forwarding=1 for this device alone"
            );
            ("net.ipv6.conf.all.forwarding".to_owned(), remedy)
        };
        found.push(note(format!("{sysctl} is 0: {lost}")).remedy(remedy));
    }
    match &facts.closed_chains {
        Ok(chains) => found.extend(chains.iter().filter(|chain| chain.sees(v4)).map(|chain| {
            let whole = format!("{} {} {}", chain.family, chain.table, chain.name);
            let what = if chain.has_rules {
                format!("the chain {whole} drops what none of its rules accepts: unless one does, {lost}")
            } else {
                format!("the chain {whole} drops all that is forwarded: {lost}")
            };
            let remedy = format!(
                "if the LAN should open connections: nft 'add rule {whole} iifname {{ {name}, {mesh} }} oifname {{ {name}, {mesh} }} accept', \
                 or the same by the program that keeps the chain"
            );
            note(what).by("a firewall of the node").remedy(remedy)
        })),
        Err(why) => found.push(note(format!("whether a firewall forwards {family} to {mesh} is unknown: {why}"))),
    }
}

fn mesh(facts: &Facts) -> &str {
    let mesh = facts.devices.iter().find(|device| device.role == super::facts::Role::Mesh);
    mesh.map_or("the mesh device", |device| &device.name)
}
