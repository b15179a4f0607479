//! `doctor`: what stands in the way on this node, whether a peer runs or not. What a running peer says of itself counts; to
//! that come probes that it does not make.

mod hardening;
mod report;
mod told;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use peer_core::desired::Desired;
use peer_dataplane::doctor::{self, Check, Severity, Subject, examine};
use peer_dataplane::kernel::{Netlink, Snapshot};
use peer_dataplane::nat_ports::{self, Choice};
use peer_dataplane::{Capabilities, Configuration, Intent, ReadyRoutes, Wt0};

pub(crate) use self::report::Finding;
use self::report::Report;
use crate::cli::{DoctorArgs, EXIT_CONFIG};
use crate::clock;
use crate::peers::PeerIds;
use crate::status::{self, Control};
use crate::up::translate::{self, Limits};

/// The device, where neither configuration nor a running peer says another name.
const DEFAULT_DEVICE: &str = "wt0";
/// The file system, where nobody says another place.
const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

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
    let (answer, silent) = match status::ask(&args.socket).await {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Finding::of_silence(&error)),
    };
    let configured = desired.map(|desired| desired.interface.name.clone());
    let told = answer.as_ref().and_then(device_of);
    let device = args.interface.clone().or(configured).or(told.clone()).unwrap_or_else(|| DEFAULT_DEVICE.to_owned());
    // That peer is about this device, or does not know its device yet; another one is a neighbour.
    let answer = answer.filter(|_| told.is_none_or(|told| told == device));
    let running = answer.as_ref().map(|answer| &answer.node);
    let told = running.and_then(|running| running.bpffs.clone());
    let bpffs = args.bpffs.clone().or(told).unwrap_or_else(|| DEFAULT_BPFFS.into());
    let configuration = match running.map(|running| running.control) {
        Some(Control::NetBird) => Configuration::NetBird,
        _ => Configuration::File,
    };
    let netlink = Netlink::connect().context("open a netlink socket")?;
    // A given range has no bounds to be explained.
    let ports = match &args.nat_ports {
        Some(ports) => Choice { ports: ports.clone(), bounds: Vec::new() },
        None => nat_ports::look(&bpffs, &device),
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
        bpffs: bpffs.clone(),
        wt0: device.clone(),
        nat_ports: ports.ports.clone(),
        nat_bounds: ports.bounds.clone(),
        uplinks: uplinks.clone(),
        intent,
        addresses: addresses.clone(),
        listen_port: wanted_port.filter(|_| running.is_none()),
        probe: true,
        configuration,
    };
    let node = netlink.snapshot(&subject(early.as_ref()).questions()).await?;
    // Only now is the index of the device known, which a route must not lead back to.
    let intent = desired.map(|desired| intent(desired, &node));
    let mut own = examine(&subject(intent.as_ref()), &node);
    own.extend(running.iter().flat_map(|running| hardening::findings(&running.hardening)));
    own.extend(clock::finding::findings(&args.socket.state_dir));
    let mut findings: Vec<_> = silent.into_iter().chain(answer.iter().flat_map(Finding::of_readiness)).collect();
    findings.extend(match running.and_then(|running| running.dataplane.as_ref()) {
        Some(dataplane) => told::merge(&dataplane.findings, &own, |finding| is_asked_for(args, finding)),
        None => own.iter().map(Finding::from).collect(),
    });
    Ok(Report::new(&device, running.map(|running| running.ready), findings))
}

fn device_of(answer: &status::Answer) -> Option<String> {
    answer.node.interface.as_ref().map(|interface| interface.name.clone())
}

/// Whether a finding of ours is about something that the daemon was not asked for: then it stands although the daemon does
/// not have it.
fn is_asked_for(args: &DoctorArgs, finding: &doctor::Finding) -> bool {
    let is_named = |device: &String| finding.subject.as_ref() == Some(device);
    match finding.check {
        // Probed only here, or known only here.
        Check::Kernel | Check::Tun | Check::Hardening => true,
        // The daemon has looked at the same one.
        Check::Clock => false,
        // With it, and only here, programs of strangers have names: the daemon does not keep it.
        Check::Order => Capabilities::current().sys_admin,
        Check::NatPorts => args.nat_ports.is_some() || finding.severity == Severity::Note,
        Check::NatAddresses => !args.nat_addresses.is_empty(),
        Check::Bpffs => args.bpffs.is_some(),
        _ => args.config.is_some() || args.uplinks.iter().any(is_named),
    }
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
        reject: false,
        ready_routes: ReadyRoutes::default(),
    };
    translate::intent(desired, &PeerIds::default().with(&desired.peers), wt0, &limits)
}
