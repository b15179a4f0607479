//! `doctor`: what stands in the way on this node, whether a peer runs or not.

mod hardening;
mod report;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use peer_core::desired::Desired;
use peer_dataplane::doctor::{Subject, examine};
use peer_dataplane::kernel::{Netlink, Snapshot};
use peer_dataplane::nat_ports::{self, Choice};
use peer_dataplane::{Intent, Wt0};

pub(crate) use self::report::Finding;
use self::report::Report;
use crate::cli::{DoctorArgs, EXIT_CONFIG};
use crate::peers::PeerIds;
use crate::status;
use crate::up::translate::{self, Limits};

/// The device, where neither configuration nor a running peer says another name.
const DEFAULT_DEVICE: &str = "wt0";

/// Looks and prints. The exit code is 0: nothing wrong, 1: something is, 2: something could not be looked at, and what
/// could is right.
///
/// # Errors
/// When nothing at all can be looked at; the exit code is 2 as well.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let desired = match args.config.as_deref().map(peer_static::load).transpose() {
        Ok(desired) => desired,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let report = match runtime.block_on(look(args, desired.as_ref())) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("peer-daemon: {error:#}");
            return Ok(ExitCode::from(report::EXIT_UNKNOWN));
        }
    };
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes()).context("write standard output")?;
    Ok(report.exit_code())
}

async fn look(args: &DoctorArgs, desired: Option<&Desired>) -> anyhow::Result<Report> {
    let running = status::ask(&args.socket).await.ok().map(|answer| answer.node);
    let configured = desired.map(|desired| desired.interface.name.clone());
    let name = |running: &status::Report| running.interface.as_ref().map(|interface| interface.name.clone());
    let told = running.as_ref().and_then(name);
    let device = args.interface.clone().or(configured).or(told).unwrap_or_else(|| DEFAULT_DEVICE.to_owned());
    // That peer is about this device; another one is a neighbour.
    let running = running.filter(|running| name(running).as_ref() == Some(&device));
    let netlink = Netlink::connect().context("open a netlink socket")?;
    // A given range has no bounds to be explained.
    let ports = match &args.nat_ports {
        Some(ports) => Choice { ports: ports.clone(), bounds: Vec::new() },
        None => nat_ports::look(&args.bpffs, &device),
    };
    let intent = |desired, node: &Snapshot| intent(args, desired, &device, node, &ports);
    let early = desired.map(|desired| intent(desired, &Snapshot::default()));
    let mut uplinks = args.uplinks.clone();
    if desired.is_none() {
        uplinks.extend(running.iter().flat_map(|running| &running.routes).flat_map(|route| route.uplinks.clone()));
        uplinks.sort();
        uplinks.dedup();
    }
    // Only a peer that runs has put them on the device.
    let interfaces = running.iter().filter_map(|running| running.interface.as_ref());
    let addresses: Vec<_> = interfaces.flat_map(|interface| &interface.addresses).map(ipnet::IpNet::addr).collect();
    let wanted_port = desired.map(|desired| desired.interface.listen_port).filter(|port| *port != 0);
    let subject = |intent| Subject {
        bpffs: args.bpffs.clone(),
        wt0: device.clone(),
        nat_ports: ports.ports.clone(),
        nat_bounds: ports.bounds.clone(),
        uplinks: uplinks.clone(),
        intent,
        addresses: addresses.clone(),
        listen_port: wanted_port.filter(|_| running.is_none()),
        probe: true,
    };
    let node = netlink.snapshot(&subject(early.as_ref()).destinations()).await?;
    // Only now is the index of the device known, which a route must not lead back to.
    let intent = desired.map(|desired| intent(desired, &node));
    let mut findings = examine(&subject(intent.as_ref()), &node);
    findings.extend(running.iter().flat_map(|running| hardening::findings(&running.hardening)));
    Ok(Report::new(&device, running.is_some(), &findings))
}

fn intent(args: &DoctorArgs, desired: &Desired, device: &str, node: &Snapshot, ports: &Choice) -> Intent {
    let index = node.link_named(device).map_or(0, |(index, _)| index);
    let wt0 = Wt0 { name: device.to_owned(), index, mtu: desired.interface.mtu.into() };
    let limits = Limits {
        nat_ports: ports.ports.clone(),
        nat_addresses: args.nat_addresses.clone(),
        listeners: Vec::new(),
        peer_quota: None,
        protect_node: false,
    };
    translate::intent(desired, &PeerIds::default().with(&desired.peers), wt0, &limits)
}
