//! A node with the real dataplane on it, and the bench entries of the same object on the same maps.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, Map};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use caps::{CapSet, Capability};
use ipnet::IpNet;
use peer_common::bench::MAX_BENCH_FLOWS;
use peer_common::layout::{ABI, map, program};
use peer_common::{BenchPlan, FlowKey, Mapping};
use peer_core::desired::{Action, PortRange, Protocol, Route, Rule, Scope, UplinkChoice};
use peer_core::readiness::Readiness;
use peer_dataplane::driver::Driver;
use peer_dataplane::ebpf::{Attach, EbpfDataplane, Options};
use peer_dataplane::{DEFAULT_NAT_PORTS, Intent, Latches, PeerPrefixes, ReadyRoutes};
use peer_io::{TunQueue, Wt0, Wt0Config};
use peer_tests::lab::Namespace;
use tokio::runtime::Runtime;

/// Under which capabilities the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Capabilities {
    /// NET_ADMIN, BPF and PERFMON: what is deployed.
    Deployed,
    /// Without PERFMON: the verifier adds fences.
    Minimal,
}

/// The peer that all packets come from, and its port of service.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
/// Hosts of benches are 10.9.0.0 and on.
const HOSTS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 0);
/// The node's address on the uplink.
const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Destination port of all packets.
pub(crate) const PORT: u16 = 443;

/// A namespace with wt0, an uplink, and the dataplane in force.
#[derive(Debug)]
pub(crate) struct Node {
    namespace: Namespace,
    /// The far end of the uplink.
    pub(crate) lan: Namespace,
    runtime: Runtime,
    wt0: Wt0,
    /// Until it is dropped.
    driver: Option<Driver>,
    bpffs: PathBuf,
    capabilities: Capabilities,
}

impl Node {
    /// Sets all of it up, with room for `flows`.
    pub(crate) fn start(name: &str, capabilities: Capabilities, flows: u32) -> Result<Self> {
        let (namespace, lan) = wire(name)?;
        let bpffs = PathBuf::from("/run/bpffs");
        namespace.mount_bpffs(&bpffs)?;
        let options = Options {
            bpffs: bpffs.clone(),
            require_pins: true,
            flows,
            attach: Attach::Auto,
            allow_unsafe_order: false,
        };
        let (runtime, wt0, driver) = namespace.enter(|| -> Result<_> {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(1).enable_all().build()?;
            let dataplane = with_capabilities(capabilities, || EbpfDataplane::open(&options, "wt0"))??;
            let (wt0, driver) = runtime.block_on(async {
                let wt0 = Wt0::open(&wt0_config()).await?;
                let intent = intent(&wt0, &[accept_all()]);
                let latches = Latches::of(&Readiness::new());
                let driver = Driver::start(Box::new(dataplane), intent, latches, ReadyRoutes::Any, false).await?;
                anyhow::Ok((wt0, driver))
            })?;
            Ok((runtime, wt0, driver))
        })?;
        Ok(Self { namespace, lan, runtime, wt0, driver: Some(driver), bpffs, capabilities })
    }

    /// The queue of wt0, once.
    pub(crate) fn take_queue(&mut self) -> Result<TunQueue> {
        self.wt0.take_queues().pop().context("wt0 has a queue")
    }

    /// Puts `rules` in force; returns how long that took.
    pub(crate) fn rules(&self, rules: &[Rule]) -> Result<Duration> {
        let intent = intent(&self.wt0, rules).into();
        let started = Instant::now();
        let driver = self.driver.as_ref().context("the driver runs")?;
        self.runtime.block_on(driver.apply(intent))?;
        Ok(started.elapsed())
    }

    /// Loads the bench entries onto the maps in force.
    pub(crate) fn entries(&self) -> Result<Entries> {
        let pins = self.bpffs.join(format!("peer/wt0/v{ABI}/maps"));
        self.namespace.enter(|| with_capabilities(self.capabilities, || Entries::load(&pins))?)
    }
}

impl Drop for Node {
    /// The driver ends before the runtime that its timers need.
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take()
            && let Err(error) = self.runtime.block_on(driver.shutdown(false))
        {
            eprintln!("the dataplane of a bench did not end as it should: {error}");
        }
    }
}

/// What [`super::forward`] writes packets to.
pub(crate) fn wt0_config() -> Wt0Config {
    Wt0Config {
        name: "wt0".into(),
        mtu: 1420,
        addresses: vec![IpNet::new(Ipv4Addr::new(100, 64, 0, 1).into(), 16).expect("a prefix")],
        routes: Vec::new(),
        queues: 1,
        adopt: true,
    }
}

/// Two namespaces with a wire between them: eth0 of the node, and a LAN that is the next hop to all hosts.
pub(crate) fn wire(name: &str) -> Result<(Namespace, Namespace)> {
    let (node, lan) = (Namespace::new(name)?, Namespace::new(&format!("{name}-lan"))?);
    let far = lan.path();
    node.exec("ip", &["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &far.to_string_lossy()])?;
    for (namespace, address) in [(&node, "198.51.100.1/24"), (&lan, "198.51.100.2/24")] {
        namespace.exec("ip", &["address", "add", address, "dev", "eth0"])?;
        namespace.exec("ip", &["link", "set", "eth0", "up"])?;
    }
    node.exec("ip", &["route", "add", "10.9.0.0/16", "via", "198.51.100.2"])?;
    // Known for good: nobody has to answer.
    let mac = lan.read("/sys/class/net/eth0/address")?;
    node.exec("ip", &["neighbour", "replace", "198.51.100.2", "lladdr", mac.trim(), "dev", "eth0"])?;
    Ok((node, lan))
}

fn intent(wt0: &Wt0, rules: &[Rule]) -> Intent {
    let net = |addr: Ipv4Addr, len| IpNet::new(addr.into(), len).expect("a prefix");
    Intent {
        wt0: peer_dataplane::Wt0 { name: wt0.name().to_owned(), index: wt0.index(), mtu: 1420 },
        addresses: vec![Ipv4Addr::new(100, 64, 0, 1).into()],
        peers: [PeerPrefixes { id: 1, prefixes: [net(PEER, 32)].into() }].into(),
        routes: vec![Route { destination: net(HOSTS, 16), masquerade: true, uplink: UplinkChoice::Auto }],
        rules: Rule::list(rules.iter().cloned()),
        nat_ports: DEFAULT_NAT_PORTS,
        nat_addresses: Vec::new(),
        listeners: Vec::new(),
        peer_quota: Some(u32::MAX),
        protect_node: false,
        reject: false,
        unsupported: Vec::new(),
    }
}

/// A rule that accepts all that benches send.
pub(crate) fn accept_all() -> Rule {
    Rule {
        id: 1,
        sources: vec![IpNet::new(Ipv4Addr::new(100, 64, 0, 0).into(), 16).expect("a prefix")],
        destinations: vec![IpNet::new(HOSTS.into(), 16).expect("a prefix")],
        protocol: Protocol::Any,
        ports: Vec::new(),
        action: Action::Accept,
        scope: Scope::Route,
    }
}

/// `count` rules, one for each of the first hosts.
pub(crate) fn rule_per_host(count: u32) -> Vec<Rule> {
    let rule = |host: u32| {
        let [_, _, c, d] = host.to_be_bytes();
        let host_net = IpNet::new(Ipv4Addr::new(10, 9, c, d).into(), 32).expect("a prefix");
        let ports = vec![PortRange { min: PORT, max: PORT }];
        Rule { id: host + 1, destinations: vec![host_net], protocol: Protocol::Tcp, ports, ..accept_all() }
    };
    (0..count).map(rule).collect()
}

/// The bench entries, loaded.
#[derive(Debug)]
pub(crate) struct Entries {
    ebpf: Ebpf,
}

impl Entries {
    fn load(pins: &Path) -> Result<Self> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        ensure!(ebpf_artifact::is_fresh(&workspace), "no fresh eBPF object: {}", ebpf_artifact::FIX);
        let object = std::fs::read(ebpf_artifact::object(&workspace)).context("the eBPF object")?;
        let mut loader = EbpfLoader::new();
        for name in map::PINNED {
            loader.map_pin_path(name, pins.join(name));
        }
        loader.map_max_entries(map::BENCH_PORTS, MAX_BENCH_FLOWS);
        let mut ebpf = loader.load(&object)?;
        use program::{BENCH_IN, BENCH_NOTHING, BENCH_OUT, BENCH_PREPARE, BENCH_PREPARE_IN};
        for name in [BENCH_NOTHING, BENCH_PREPARE, BENCH_PREPARE_IN, BENCH_OUT, BENCH_IN] {
            classifier(&mut ebpf, name)?.load().with_context(|| format!("load {name}"))?;
        }
        Ok(Self { ebpf })
    }

    /// Says which flows the entries choose among, and how many hosts they go to, by which stride.
    pub(crate) fn plan(&mut self, way: Way, flows: u32, (hosts, stride): (u32, u32), in_turn: bool) -> Result<()> {
        let plan = BenchPlan {
            headers: headers(way),
            flows,
            hosts,
            stride,
            first_port: 1024,
            in_turn: in_turn.into(),
            next: 0,
            first_host: 0,
        };
        let mut table: Array<_, BenchPlan> = self.ebpf.map_mut(map::BENCH).context("the bench map")?.try_into()?;
        table.set(0, plan, 0)?;
        Ok(())
    }

    /// Runs an entry `repeat` times. Returns the time of one run, nanoseconds, and the last verdict.
    pub(crate) fn run(&mut self, name: &str, repeat: u32) -> Result<(f64, i32)> {
        let mut packet = headers(Way::Out).to_vec();
        packet.resize(14 + 64, 0);
        let mut options = TestRunOptions::new();
        options.data_in = Some(&packet);
        options.repeat = repeat;
        let result = classifier(&mut self.ebpf, name)?.test_run(options)?;
        Ok((result.duration.as_nanos() as f64, result.return_value as i32))
    }

    /// Opens the flows of the plan, and learns which port each has got, for replies.
    pub(crate) fn open_flows(&mut self, flows: u32, hosts: u32) -> Result<()> {
        self.plan(Way::Out, flows, (hosts, 1), true)?;
        let (_, verdict) = self.run(program::BENCH_OUT, flows)?;
        ensure!(verdict == REDIRECT, "the last flow was not forwarded: verdict {verdict}");
        let mappings: HashMap<_, FlowKey, Mapping> = self.ebpf.map(map::MAPPINGS).context("mappings")?.try_into()?;
        let mut ports = vec![0; flows as usize];
        for entry in &mappings {
            let (key, mapping) = entry?;
            let host = key.src.words[3].to_ne_bytes();
            let host = u32::from(host[2]) << 8 | u32::from(host[3]);
            let port = u32::from(u16::from_be(mapping.peer_port));
            let flow = (port.wrapping_sub(1024)).wrapping_mul(hosts).wrapping_add(host);
            if let Some(slot) = ports.get_mut(flow as usize) {
                *slot = u32::from(key.dst_port);
            }
        }
        ensure!(!ports.contains(&0), "every flow has a mapping");
        let mut table: Array<_, u32> = self.ebpf.map_mut(map::BENCH_PORTS).context("ports")?.try_into()?;
        for (flow, port) in (0..).zip(ports) {
            table.set(flow, port, 0)?;
        }
        Ok(())
    }

    /// Forgets all flows, and how many ports they had: the daemon counts them anew too seldom for that.
    pub(crate) fn clear(&mut self) -> Result<()> {
        clear::<peer_common::Flow>(self.ebpf.map_mut(map::FLOWS).context("flows")?)?;
        clear::<Mapping>(self.ebpf.map_mut(map::MAPPINGS).context("mappings")?)?;
        for name in [map::REMOTE_PORTS, map::MEMBER_PORTS] {
            let mut counts: Array<_, u32> = self.ebpf.map_mut(name).context(name)?.try_into()?;
            for at in 0..counts.len() {
                if counts.get(&at, 0)? != 0 {
                    counts.set(at, 0, 0)?;
                }
            }
        }
        Ok(())
    }
}

/// Verdict of a packet that was forwarded.
pub(crate) const REDIRECT: i32 = 7;

fn clear<V: aya::Pod>(map: &mut Map) -> Result<()> {
    let mut table: HashMap<_, FlowKey, V> = map.try_into()?;
    let keys: Vec<FlowKey> = table.keys().collect::<Result<_, _>>()?;
    for key in keys {
        table.remove(&key)?;
    }
    Ok(())
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(ebpf.program_mut(name).with_context(|| format!("program {name}"))?.try_into()?)
}

/// Which way packets go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Out,
    In,
}

/// Ethernet, IPv4 and TCP headers of an established connection: 64 bytes of layer 3. The entries write what tells flows
/// apart: the last half of the host's address, and the peer's or the NAT port.
fn headers(way: Way) -> [u8; 56] {
    let mut headers = [0; 56];
    headers[12..14].copy_from_slice(&[0x08, 0x00]);
    headers[14..26].copy_from_slice(&[0x45, 0, 0, 64, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    let (source, destination, port_at) = match way {
        Way::Out => (PEER, HOSTS, 36),
        Way::In => (HOSTS, UPLINK, 34),
    };
    headers[26..30].copy_from_slice(&source.octets());
    headers[30..34].copy_from_slice(&destination.octets());
    headers[port_at..port_at + 2].copy_from_slice(&PORT.to_be_bytes());
    headers[46] = 0x50;
    headers[47] = 0x10;
    // A window: without one, data of the other side does not fit the connection.
    headers[48..50].copy_from_slice(&[0xff, 0xff]);
    headers
}

/// Runs `work` with these capabilities alone, then gives the thread its own back.
fn with_capabilities<T>(capabilities: Capabilities, work: impl FnOnce() -> T) -> Result<T> {
    let all = caps::read(None, CapSet::Permitted)?;
    let mut some = [Capability::CAP_NET_ADMIN, Capability::CAP_BPF].into_iter().collect::<caps::CapsHashSet>();
    if matches!(capabilities, Capabilities::Deployed) {
        some.insert(Capability::CAP_PERFMON);
    }
    caps::set(None, CapSet::Effective, &some)?;
    let result = work();
    caps::set(None, CapSet::Effective, &all)?;
    Ok(result)
}
