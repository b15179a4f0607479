//! Single packets written to wt0 and counted behind the node: our programs against nft and iptables.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use peer_common::layout::DEFAULT_FLOWS;
use peer_io::{TunQueue, Wt0};
use peer_tests::lab::{Behaviour, ForeignProgram, Hook, Namespace};

use super::Scale;
use super::node::{Capabilities, Node, PEER, PORT, wire, wt0_config};
use super::report::Report;

/// A way through a node.
struct Way {
    name: &'static str,
    queue: TunQueue,
    lan: Namespace,
    _kept: Kept,
}

/// What must live as long.
enum Kept {
    Ours(#[expect(dead_code, reason = "kept alive")] Box<Node>),
    Theirs(#[expect(dead_code, reason = "kept alive")] Namespace, #[expect(dead_code, reason = "kept alive")] Wt0),
}

pub(super) fn measure(scale: &Scale, report: &mut Report) -> Result<()> {
    let mut ways = [ours()?, theirs("nft", nft)?, theirs("iptables", iptables)?];
    // What arrives is dropped at once: behind a wire it would cost another machine.
    let sinks = ways
        .iter()
        .map(|way| ForeignProgram::attach_as(&way.lan, "eth0", "sink", Hook::IngressTail, Behaviour::Swallow));
    let _sinks = sinks.collect::<Result<Vec<_>>>()?;
    let cases = [(64, 100), (64, 20_000), (1420, 100), (1420, 20_000)];
    let figure = |way: &str, size: usize, flows: u32| format!("{way}, {size} bytes, {flows} flows, kpps");
    for (size, flows) in cases {
        for way in &mut ways {
            way.send(size, flows, flows)?;
        }
        // Short turns, many of them: what the machine does meanwhile happens to all three.
        for turn in 0..scale.turns {
            // Nobody always comes behind the same other.
            for way in 0..ways.len() {
                let way = &mut ways[(way + turn) % 3];
                let rate = way.send(size, flows, scale.packets)?;
                report.add(&figure(way.name, size, flows), rate / 1e3);
            }
        }
    }
    for (ratio, other) in [("forward_vs_nft", "nft"), ("forward_vs_iptables", "iptables")] {
        // The least favourable case counts.
        let least = cases
            .iter()
            .map(|&(size, flows)| report.ratio_of(&figure("ours", size, flows), &figure(other, size, flows)));
        let least = least.fold(f64::MAX, f64::min);
        report.ratio(ratio, least);
    }
    Ok(())
}

impl Way {
    /// Packets per second that arrive behind the node.
    fn send(&mut self, size: usize, flows: u32, packets: u32) -> Result<f64> {
        let mut frame = vec![0; VNET + size];
        udp(&mut frame[VNET..]);
        let before = self.arrived()?;
        let started = Instant::now();
        for number in 0..packets {
            address(&mut frame[VNET..], number % flows);
            // Nothing but the system call: what is measured is the kernel.
            rustix::io::write(&self.queue, &frame)?;
        }
        let took = started.elapsed();
        let deadline = Instant::now() + Duration::from_millis(20);
        let arrived = loop {
            let arrived = self.arrived()? - before;
            if arrived >= u64::from(packets) || Instant::now() > deadline {
                break arrived;
            }
        };
        ensure!(arrived * 10 >= u64::from(packets) * 9, "{}: only {arrived} of {packets} arrived", self.name);
        Ok(arrived as f64 / took.as_secs_f64())
    }

    fn arrived(&self) -> Result<u64> {
        let count = self.lan.read("/sys/class/net/eth0/statistics/rx_packets")?;
        count.trim().parse().context("rx_packets")
    }
}

fn ours() -> Result<Way> {
    let mut node = Node::start("forward", Capabilities::Deployed, DEFAULT_FLOWS)?;
    let queue = node.take_queue()?;
    Ok(Way { name: "ours", queue, lan: node.lan.clone(), _kept: Kept::Ours(Box::new(node)) })
}

fn theirs(name: &'static str, masquerade: fn(&Namespace) -> Result<()>) -> Result<Way> {
    let (node, lan) = wire(name)?;
    node.write("/proc/sys/net/ipv4/ip_forward".as_ref(), "1")?;
    masquerade(&node)?;
    let mut wt0 = node.enter(|| -> Result<Wt0> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(Wt0::open(&wt0_config()))?)
    })?;
    let queue = wt0.take_queues().pop().context("wt0 has a queue")?;
    Ok(Way { name, queue, lan, _kept: Kept::Theirs(node, wt0) })
}

fn nft(node: &Namespace) -> Result<()> {
    node.exec("nft", &["add table ip nat; add chain ip nat post { type nat hook postrouting priority 100 ; }"])?;
    node.exec("nft", &["add rule ip nat post oifname eth0 masquerade"])?;
    Ok(())
}

fn iptables(node: &Namespace) -> Result<()> {
    node.exec("iptables", &["-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE"])?;
    Ok(())
}

/// Bytes of the vnet header before each packet; all zero says that nothing is left to do.
const VNET: usize = 10;

/// Makes zeroes a UDP packet without a checksum of layer 4.
fn udp(packet: &mut [u8]) {
    let total = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[6] = 0x40;
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..16].copy_from_slice(&PEER.octets());
    packet[22..24].copy_from_slice(&PORT.to_be_bytes());
    packet[24..26].copy_from_slice(&(total - 20).to_be_bytes());
}

/// Makes the packet one of flow `flow`.
fn address(packet: &mut [u8], flow: u32) {
    let host = Ipv4Addr::new(10, 9, 0, 1 + (flow % 100) as u8);
    let port = 1024 + (flow / 100) as u16;
    packet[16..20].copy_from_slice(&host.octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[10..12].fill(0);
    let words = packet[..20].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}
