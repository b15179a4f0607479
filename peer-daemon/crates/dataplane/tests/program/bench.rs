//! The programs, loaded with maps of their own and fed one packet at a time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, PerCpuValues, ProgramArray, Queue, RingBuf};
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use caps::CapSet;
use ipnet::{IpNet, Ipv6Net};
use peer_common::addr::MAPPED_BITS;
use peer_common::layout::{map, program};
use peer_common::ports;
use peer_common::route::{Route, listener_key};
use peer_common::{
    Addr, Answer, ChosenKey, Config, Counter, Direction, DropReason, Flow, FlowEvent, FlowKey, Fragment, FragmentKey,
    LocalAddr, LocalKind, Mapping, NextHop, PacketCount, Peer, TraceFilter, Uplink,
};
use peer_core::desired::{Action, PortRange, Protocol, Rule, Scope};
use peer_dataplane::ebpf::Policy;

use crate::lab::{ETH0, LO, NODE, NODE6, PEER, PEER6, ROUTED, SERVER, SERVER6, UPLINK, UPLINK6, WT0};
use crate::wire::{ETH, header};

pub(crate) const UNSPEC: i32 = -1;
pub(crate) const SHOT: i32 = 2;
pub(crate) const REDIRECT: i32 = 7;

/// Next hops that have room in a bench, the first one being none.
pub(crate) const NEXT_HOPS: u32 = 64;

/// Loaded programs; their maps hold the lab of `lab.rs`: two masqueraded routes, one that keeps sources, and one rule that
/// accepts everything.
pub(crate) struct Bench {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
    /// Numbers of next hops: kept open, programs that are loaded later name its descriptor.
    _free: Queue<MapData, u64>,
    policy_generation: u32,
    /// Places with an answer, of each half.
    answers: [Vec<u32>; 2],
}

/// Runs `test` in a thread with namespaces of its own.
pub(crate) fn with_bench(test: impl FnOnce(&mut Bench) + Send + 'static) {
    with_bench_under(|| {}, test);
}

/// As [`with_bench`], with the programs loaded after `restrict` has taken capabilities from the thread.
pub(crate) fn with_bench_under(
    restrict: impl FnOnce() + Send + 'static,
    test: impl FnOnce(&mut Bench) + Send + 'static,
) {
    let run = move || {
        crate::sys::unshare().expect("these tests need root (CAP_SYS_ADMIN for namespaces, CAP_BPF, CAP_NET_ADMIN)");
        let dir = tempfile::tempdir().expect("a temporary directory");
        crate::sys::mount_bpffs(dir.path()).expect("mount bpffs");
        restrict();
        let mut bench = Bench::load(dir.path());
        // Tests look into maps by id, which the daemon never does.
        let all = caps::read(None, CapSet::Permitted).expect("own capabilities");
        caps::set(None, CapSet::Effective, &all).expect("what is permitted may be had again");
        bench.fill();
        test(&mut bench);
        drop(bench);
        crate::sys::unmount(dir.path()).expect("unmount bpffs");
        dir.close().expect("nothing is left behind");
    };
    std::thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// A rule of one source prefix, one destination prefix and one range of ports, as the maps write addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicyRule {
    pub(crate) src: Addr,
    pub(crate) dst: Addr,
    /// Prefix length over 128 bits.
    pub(crate) src_len: u8,
    pub(crate) dst_len: u8,
    /// 0: any.
    pub(crate) protocol: u8,
    pub(crate) action: Action,
    pub(crate) port_min: u16,
    pub(crate) port_max: u16,
    pub(crate) scope: Scope,
    pub(crate) id: u32,
}

impl PolicyRule {
    fn rule(&self) -> Rule {
        let net = |addr: Addr, len: u8| match IpAddr::from(addr) {
            IpAddr::V4(addr) => IpNet::new(addr.into(), len - MAPPED_BITS as u8).expect("a prefix"),
            IpAddr::V6(addr) => IpNet::new(addr.into(), len).expect("a prefix"),
        };
        Rule {
            id: self.id,
            sources: vec![net(self.src, self.src_len)],
            destinations: vec![net(self.dst, self.dst_len)],
            protocol: match self.protocol {
                0 => Protocol::Any,
                1 => Protocol::Icmp,
                6 => Protocol::Tcp,
                _ => Protocol::Udp,
            },
            ports: vec![PortRange { min: self.port_min, max: self.port_max }],
            action: self.action,
            scope: self.scope,
        }
    }
}

/// A rule that accepts everything, everywhere, of one family.
pub(crate) fn accept_all(v4: bool) -> PolicyRule {
    let (any, len) = if v4 { (Addr::from_v4_be(0), MAPPED_BITS as u8) } else { (Addr::NONE, 0) };
    PolicyRule {
        src: any,
        dst: any,
        src_len: len,
        dst_len: len,
        protocol: 0,
        action: Action::Accept,
        port_min: 0,
        port_max: u16::MAX,
        scope: Scope::Both,
        id: 1,
    }
}

/// `addr/len` as the maps hold it.
pub(crate) fn prefix(addr: IpAddr, len: u32) -> (Addr, u32) {
    (addr.into(), if addr.is_ipv4() { MAPPED_BITS + len } else { len })
}

impl Bench {
    fn load(pins: &Path) -> Self {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        assert!(ebpf_artifact::is_fresh(&workspace), "no fresh eBPF object: {}", ebpf_artifact::FIX);
        let object = std::fs::read(ebpf_artifact::object(&workspace)).expect("the object");
        let mut loader = EbpfLoader::new();
        // Every step, where somebody looks for the one that is refused: before Linux 6.4 a log that is too long is an error.
        let wanted = std::env::var_os("PEER_VERIFIER_LOG").is_some();
        let level = if wanted { VerifierLogLevel::VERBOSE } else { VerifierLogLevel::STATS };
        for name in map::PINNED {
            loader.map_pin_path(name, pins.join(name));
        }
        loader.verifier_log_level(level);
        loader.map_max_entries(map::FLOWS, 4096).map_max_entries(map::MAPPINGS, 4096);
        let mut ebpf = loader.load(&object).expect("the object loads");
        for name in [program::TEST_WT0_INGRESS, program::TEST_WT0_EGRESS, program::UPLINK_INGRESS, program::DESCRIBE] {
            classifier(&mut ebpf, name).load().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let events = ebpf.take_map(map::EVENTS).expect("the map exists");
        let events = RingBuf::try_from(events).expect("a ring buffer");
        let free = ebpf.take_map(map::FREE_NEXT_HOPS).expect("the map exists");
        let mut free = Queue::try_from(free).expect("a queue");
        for number in 1..NEXT_HOPS {
            free.push(u64::from(number), 0).expect("room");
        }
        Self { ebpf, events, _free: free, policy_generation: 0, answers: Default::default() }
    }

    fn fill(&mut self) {
        let mut peers: LpmTrie<_, Addr, Peer> = self.map(map::PEERS);
        for (id, (addr, len)) in [(1, prefix(PEER, 32)), (1, prefix(PEER6, 128))] {
            peers.insert(&Key::new(len, addr), Peer { id, prefix_len: len }, 0).expect("insert");
        }
        for (addr, kind) in [
            (NODE, LocalKind::Overlay),
            (NODE6, LocalKind::Overlay),
            (UPLINK, LocalKind::Node),
            (UPLINK6, LocalKind::Node),
        ] {
            self.local(addr, kind);
        }
        let mut uplinks: HashMap<_, u32, Uplink> = self.map(map::UPLINKS);
        let uplink = Uplink { addr4: UPLINK.into(), addr6: UPLINK6.into(), mtu: 1500, sources: [0; 4] };
        for index in [ETH0, LO] {
            uplinks.insert(index, uplink, 0).expect("insert");
        }
        self.route(SERVER, 24, 0, Route::MASQUERADE);
        self.route(SERVER6, 64, 1, Route::MASQUERADE);
        self.route(ROUTED, 24, 2, 0);
        self.config(|config| {
            config.hash_key = [1, 2];
            config.wt0 = WT0;
            config.wt0_mtu = 1420;
            config.nat_port_min = 20480;
            config.nat_port_count = 9511;
            config.peer_quota = u32::MAX;
            (config.overlay4, config.overlay6) = (NODE.into(), NODE6.into());
        });
        self.rules(&[accept_all(true), accept_all(false)]);
    }

    pub(crate) fn map<T: TryFrom<Map>>(&mut self, name: &str) -> T
    where
        T::Error: std::fmt::Debug,
    {
        // Each use takes a handle of its own, by the pin.
        let map = self.ebpf.map(name).expect("the map exists");
        let data: &MapData = match map {
            Map::Array(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::LpmTrie(data)
            | Map::PerCpuArray(data) => data,
            other => panic!("unexpected map {other:?}"),
        };
        let again = MapData::from_id(data.info().expect("info").id()).expect("a second handle");
        let again = match map {
            Map::Array(_) => Map::Array(again),
            Map::HashMap(_) => Map::HashMap(again),
            Map::LruHashMap(_) => Map::LruHashMap(again),
            Map::LpmTrie(_) => Map::LpmTrie(again),
            _ => Map::PerCpuArray(again),
        };
        T::try_from(again).expect("the map's type")
    }

    /// Makes it an address of the node.
    pub(crate) fn local(&mut self, addr: IpAddr, kind: LocalKind) {
        let mut locals: HashMap<_, Addr, LocalAddr> = self.map(map::LOCALS);
        locals.insert(Addr::from(addr), LocalAddr { kind: kind as u32 }, 0).expect("insert");
    }

    /// Serves `addr/len` by eth0.
    pub(crate) fn route(&mut self, addr: IpAddr, len: u32, id: u32, flags: u32) {
        self.route_by(addr, len, id, flags, ETH0);
    }

    /// Serves `addr/len` by a device.
    pub(crate) fn route_by(&mut self, addr: IpAddr, len: u32, id: u32, flags: u32, uplink: u32) {
        let (addr, len) = prefix(addr, len);
        let route = Route { id, flags, uplink, fallback_uplink: 0, prefix_len: len };
        let mut routes: LpmTrie<_, Addr, Route> = self.map(map::ROUTES);
        routes.insert(&Key::new(len, addr), route, 0).expect("insert");
    }

    /// Serves `addr/len` no more.
    pub(crate) fn forget_route(&mut self, addr: IpAddr, len: u32) {
        let (addr, len) = prefix(addr, len);
        let mut routes: LpmTrie<_, Addr, Route> = self.map(map::ROUTES);
        routes.remove(&Key::new(len, addr)).expect("remove");
    }

    pub(crate) fn config(&mut self, change: impl FnOnce(&mut Config)) {
        let mut configs: Array<_, Config> = self.map(map::CONFIG);
        let mut config = configs.get(&0, 0).expect("read");
        change(&mut config);
        configs.set(0, config, 0).expect("write");
    }

    /// Puts `rules` in force.
    pub(crate) fn rules(&mut self, rules: &[PolicyRule]) {
        self.desired_rules(&rules.iter().map(PolicyRule::rule).collect::<Vec<_>>());
    }

    /// Puts `rules` in force, as the daemon does: into the half that is not read, the generation last.
    pub(crate) fn desired_rules(&mut self, rules: &[Rule]) {
        let generation = self.policy_generation + 1;
        let half = (generation & 1) as usize;
        let policy = Policy::of(rules).expect("few rules");
        let prefixes = |table: &BTreeMap<Ipv6Net, u32>| -> BTreeMap<(u32, Addr), u32> {
            table.iter().map(|(net, atom)| ((net.prefix_len().into(), Addr::from(net.network())), *atom)).collect()
        };
        self.fill_trie(map::SOURCES[half], &prefixes(&policy.sources));
        self.fill_trie(map::DESTINATIONS[half], &prefixes(&policy.destinations));
        self.fill_trie(map::CELLS[half], &policy.cells);
        let mut answers: Array<_, Answer> = self.map(map::ANSWERS[half]);
        for place in std::mem::take(&mut self.answers[half]) {
            answers.set(place, Answer::default(), 0).expect("write");
        }
        for (place, answer) in &*policy.answers {
            answers.set(*place, answer, 0).expect("write");
        }
        self.answers[half] = policy.answers.keys().copied().collect();
        self.config(|config| config.policy_generation = generation);
        self.policy_generation = generation;
    }

    /// Makes the table hold `entries`, by prefix length and data, and nothing else.
    fn fill_trie<K: aya::Pod, V: aya::Pod>(&mut self, name: &str, entries: &BTreeMap<(u32, K), V>) {
        let mut table: LpmTrie<_, K, V> = self.map(name);
        let old: Vec<Key<K>> = table.iter().map(|entry| entry.expect("read").0).collect();
        for key in old {
            table.remove(&key).expect("remove");
        }
        for ((len, data), value) in entries {
            table.insert(&Key::new(*len, *data), value, 0).expect("insert");
        }
    }

    /// A packet from the mesh. Returns the verdict and the packet as it leaves.
    pub(crate) fn arrive_from_mesh(&mut self, packet: &[u8]) -> (i32, Vec<u8>) {
        self.run(program::TEST_WT0_INGRESS, packet)
    }

    /// Whether a packet from the mesh goes no further, be its sender told or not.
    pub(crate) fn refuses(&mut self, packet: &[u8]) -> bool {
        let (verdict, frame) = self.arrive_from_mesh(packet);
        verdict == SHOT || verdict == REDIRECT && header(&frame[ETH..]).dst == header(&packet[ETH..]).src
    }

    /// A packet that arrives on the uplink.
    pub(crate) fn arrive_on_uplink(&mut self, packet: &[u8]) -> (i32, Vec<u8>) {
        self.run(program::UPLINK_INGRESS, packet)
    }

    /// A packet of the node, or of the LAN, towards the mesh.
    pub(crate) fn leave_to_mesh(&mut self, packet: &[u8]) -> (i32, Vec<u8>) {
        self.run(program::TEST_WT0_EGRESS, packet)
    }

    fn run(&mut self, name: &str, packet: &[u8]) -> (i32, Vec<u8>) {
        self.run_segmented(name, packet, 0)
    }

    /// Runs a program on a super-packet of segments of `gso_size`; 0: on a plain packet.
    pub(crate) fn run_segmented(&mut self, name: &str, packet: &[u8], gso_size: u32) -> (i32, Vec<u8>) {
        /// Offset of `gso_size` in `struct __sk_buff`.
        const GSO_SIZE: usize = 176;
        let mut context = [0; 192];
        context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&gso_size.to_ne_bytes());
        let mut out = vec![0; packet.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        let result = classifier(&mut self.ebpf, name).test_run(options).expect("the test run");
        let len = result.data_size_out as usize;
        out.truncate(len);
        (result.return_value as i32, out)
    }

    /// What would become of a packet from the mesh.
    pub(crate) fn describe(&mut self, packet: &[u8]) -> FlowEvent {
        self.run(program::DESCRIBE, packet);
        let answers: Array<_, FlowEvent> = self.map(map::DESCRIBED);
        answers.get(&0, 0).expect("read")
    }

    /// What the programs have told since the last call.
    pub(crate) fn events(&mut self) -> Vec<FlowEvent> {
        let mut events = Vec::new();
        while let Some(record) = self.events.next() {
            events.push(FlowEvent::from_bytes(&record).expect("a whole record"));
        }
        events
    }

    /// Says which packets are followed.
    pub(crate) fn follow(&mut self, filter: TraceFilter) {
        let mut filters: Array<_, TraceFilter> = self.map(map::TRACE);
        filters.set(0, filter, 0).expect("write");
    }

    /// As [`Bench::leave_to_mesh`] with a mark on the packet. Returns the verdict and the mark that it leaves with.
    pub(crate) fn leave_to_mesh_marked(&mut self, packet: &[u8], mark: u32) -> (i32, u32) {
        /// Offset of `mark` in `struct __sk_buff`.
        const MARK: usize = 8;
        let mut context = [0; 192];
        context[MARK..MARK + 4].copy_from_slice(&mark.to_ne_bytes());
        let mut after = [0; 192];
        let mut out = vec![0; packet.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        options.ctx_out = Some(&mut after);
        let program = classifier(&mut self.ebpf, program::TEST_WT0_EGRESS);
        let result = program.test_run(options).expect("the test run");
        let mark = after[MARK..MARK + 4].try_into().expect("four bytes");
        (result.return_value as i32, u32::from_ne_bytes(mark))
    }

    /// A prefix of a peer's.
    pub(crate) fn peer(&mut self, addr: IpAddr, len: u32, id: u32) {
        let (addr, len) = prefix(addr, len);
        let mut peers: LpmTrie<_, Addr, Peer> = self.map(map::PEERS);
        peers.insert(&Key::new(len, addr), Peer { id, prefix_len: len }, 0).expect("insert");
    }

    /// A port that the daemon itself listens on.
    pub(crate) fn listener(&mut self, protocol: u8, port: u16) {
        let mut listeners: HashMap<_, u32, u32> = self.map(map::LISTENERS);
        listeners.insert(listener_key(protocol.into(), port), 1, 0).expect("insert");
    }

    /// Gives both uplinks other addresses.
    pub(crate) fn uplink_addrs(&mut self, addr4: IpAddr, addr6: IpAddr) {
        let mut uplinks: HashMap<_, u32, Uplink> = self.map(map::UPLINKS);
        let uplink = Uplink { addr4: addr4.into(), addr6: addr6.into(), mtu: 1500, sources: [0; 4] };
        for index in [ETH0, LO] {
            uplinks.insert(index, uplink, 0).expect("insert");
        }
    }

    /// Gives both uplinks further sources: `places` says which of them are whose.
    pub(crate) fn sources(&mut self, addresses: &[IpAddr], places: [u8; 4]) {
        let mut sources: Array<_, Addr> = self.map(map::NAT_SOURCES);
        for (place, &addr) in (0..).zip(addresses) {
            sources.set(place, Addr::from(addr), 0).expect("write");
        }
        let mut uplinks: HashMap<_, u32, Uplink> = self.map(map::UPLINKS);
        for index in [ETH0, LO] {
            let uplink = Uplink { sources: places, ..uplinks.get(&index, 0).expect("read") };
            uplinks.insert(index, uplink, 0).expect("insert");
        }
    }

    /// Adds an uplink with the addresses of the lab.
    pub(crate) fn uplink(&mut self, index: u32, mtu: u32) {
        let mut uplinks: HashMap<_, u32, Uplink> = self.map(map::UPLINKS);
        let uplink = Uplink { addr4: UPLINK.into(), addr6: UPLINK6.into(), mtu, sources: [0; 4] };
        uplinks.insert(index, uplink, 0).expect("insert");
    }

    /// How many instructions the verifier looked at.
    pub(crate) fn verified_instructions(&mut self, name: &str) -> u32 {
        let info = self.loaded(name).info().expect("info");
        info.verified_instruction_count().expect("kernels from 5.16 on tell it")
    }

    fn loaded(&mut self, name: &str) -> &mut SchedClassifier {
        let program = classifier(&mut self.ebpf, name);
        if program.fd().is_err() {
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        program
    }

    /// Puts the logging program where the others look for it, if the kernel takes it.
    pub(crate) fn install_logger(&mut self) -> Result<(), ProgramError> {
        let logger = classifier(&mut self.ebpf, program::REFUSED);
        logger.load()?;
        let logger = logger.fd().and_then(|fd| Ok(fd.try_clone()?)).expect("loaded");
        let array = self.ebpf.map_mut(map::LOGGER).expect("the array");
        ProgramArray::try_from(array).and_then(|mut array| array.set(0, &logger, 0)).expect("its type");
        Ok(())
    }

    /// Records of a ring buffer, oldest first.
    pub(crate) fn records(&mut self, name: &str) -> Vec<Vec<u8>> {
        let mut buffer = RingBuf::try_from(self.ebpf.map_mut(name).expect("the map exists")).expect("a ring buffer");
        std::iter::from_fn(|| buffer.next().map(|record| record.to_vec())).collect()
    }

    /// Lets every CPU tell of the next exhaustion at once.
    pub(crate) fn allow_telling(&mut self) {
        let mut last: PerCpuArray<_, u64> = self.map("LAST_REFUSAL");
        let never = vec![0; aya::util::nr_cpus().expect("processors")];
        last.set(0, PerCpuValues::try_from(never).expect("one each"), 0).expect("write");
    }

    /// Attaches a program to a device of this namespace, for as long as the bench lives.
    pub(crate) fn attach(&mut self, name: &str, device: &str, to: TcAttachType) {
        let program = self.loaded(name);
        let has_tcx = KernelVersion::current().expect("the kernel's version") >= KernelVersion::new(6, 6, 0);
        let options = if has_tcx {
            TcAttachOptions::TcxOrder(LinkOrder::first())
        } else {
            // There already, when a program is attached the other way.
            let _ = qdisc_add_clsact(device);
            TcAttachOptions::Netlink(NlOptions::default())
        };
        program.attach_with_options(device, to, options).expect("the program attaches");
    }

    /// Gives both uplinks another MTU.
    pub(crate) fn uplink_mtu(&mut self, mtu: u32) {
        let mut uplinks: HashMap<_, u32, Uplink> = self.map(map::UPLINKS);
        for index in [ETH0, LO] {
            let uplink = Uplink { mtu, ..uplinks.get(&index, 0).expect("read") };
            uplinks.insert(index, uplink, 0).expect("insert");
        }
    }

    /// Forgets flows, mappings, fragments and what peers have of them, and allows errors again.
    pub(crate) fn clear(&mut self) {
        for (key, flow) in self.flows() {
            self.set_ports(&key, &flow, (0, 0));
            self.forget_flow(&key);
        }
        for (key, _) in self.mappings() {
            self.forget_mapping(&key);
        }
        let mut fragments: HashMap<_, FragmentKey, Fragment> = self.map(map::FRAGMENTS);
        for key in fragments.keys().collect::<Result<Vec<_>, _>>().expect("read") {
            fragments.remove(&key).expect("remove");
        }
        let mut counts: Array<_, u32> = self.map(map::PEER_FLOWS);
        for peer in 0..8 {
            counts.set(peer, 0, 0).expect("write");
        }
        self.allow_errors();
    }

    /// Fills the budgets of our own ICMP errors, of all processors and of the peers that tests know.
    pub(crate) fn allow_errors(&mut self) {
        let mut of_peers: Array<_, [u64; 2]> = self.map("PEER_ERRORS");
        (0..8).for_each(|peer| of_peers.set(peer, [0; 2], 0).expect("write"));
        let mut budgets: PerCpuArray<_, [u64; 2]> = self.map("ERROR_BUDGET");
        let full = vec![[0; 2]; aya::util::nr_cpus().expect("processors")];
        budgets.set(0, PerCpuValues::try_from(full).expect("one each"), 0).expect("write");
    }

    /// Makes every flow look unused for two seconds: its next packet looks after its mapping.
    pub(crate) fn age_flows(&mut self) {
        let mut flows: HashMap<_, FlowKey, Flow> = self.map(map::FLOWS);
        for (key, flow) in self.flows() {
            flows
                .insert(key, Flow { last_seen: flow.last_seen.wrapping_sub(2_000_000_000), ..flow }, 0)
                .expect("write");
        }
    }

    /// Makes every flow and every mapping look unused for `seconds` more.
    pub(crate) fn age(&mut self, seconds: u64) {
        let mut flows: HashMap<_, FlowKey, Flow> = self.map(map::FLOWS);
        // On a machine that has just booted, to before its clock began.
        let earlier = |then: u64| then.wrapping_sub(seconds * 1_000_000_000);
        for (key, flow) in self.flows() {
            flows.insert(key, Flow { last_seen: earlier(flow.last_seen), ..flow }, 0).expect("write");
        }
        for (key, mapping) in self.mappings() {
            self.put_mapping(key, Mapping { last_seen: earlier(mapping.last_seen), ..mapping });
        }
    }

    pub(crate) fn put_flow(&mut self, key: FlowKey, flow: Flow) {
        let mut flows: HashMap<_, FlowKey, Flow> = self.map(map::FLOWS);
        flows.insert(key, flow, 0).expect("write");
    }

    /// Ports in use towards the remote of a flow, and those that its peer has of them, as the programs have counted.
    pub(crate) fn ports(&mut self, key: &FlowKey, flow: &Flow) -> (u32, u32) {
        let configs: Array<_, Config> = self.map(map::CONFIG);
        let remote = ports::remote_hash(configs.get(&0, 0).expect("read").hash_key, key, &flow.nat_addr);
        let remotes: Array<_, u32> = self.map(map::REMOTE_PORTS);
        let members: Array<_, u32> = self.map(map::MEMBER_PORTS);
        let used = remotes.get(&ports::remote_place(remote), 0).expect("read");
        (used, members.get(&ports::member_place(remote, flow.peer_id), 0).expect("read"))
    }

    /// Sets what [`Bench::ports`] returns.
    pub(crate) fn set_ports(&mut self, key: &FlowKey, flow: &Flow, (remote_ports, member_ports): (u32, u32)) {
        let configs: Array<_, Config> = self.map(map::CONFIG);
        let remote = ports::remote_hash(configs.get(&0, 0).expect("read").hash_key, key, &flow.nat_addr);
        let mut remotes: Array<_, u32> = self.map(map::REMOTE_PORTS);
        let mut members: Array<_, u32> = self.map(map::MEMBER_PORTS);
        remotes.set(ports::remote_place(remote), remote_ports, 0).expect("write");
        members.set(ports::member_place(remote, flow.peer_id), member_ports, 0).expect("write");
    }

    /// Makes every remembered fragment `seconds` older.
    pub(crate) fn age_fragments(&mut self, seconds: u64) {
        let mut fragments: HashMap<_, FragmentKey, Fragment> = self.map(map::FRAGMENTS);
        for (key, first) in fragments.iter().collect::<Result<Vec<_>, _>>().expect("read") {
            // On a machine that has just booted, to before its clock began.
            let seen = first.seen.wrapping_sub(seconds * 1_000_000_000);
            fragments.insert(key, Fragment { seen, ..first }, 0).expect("write");
        }
    }

    /// The budget that a first fragment is remembered by: the one that changes when it is.
    pub(crate) fn fragment_budget(&mut self, first: &[u8]) -> u32 {
        let read = |bench: &mut Self| {
            let budgets: Array<_, [u64; 2]> = bench.map("FRAGMENT_BUDGETS");
            budgets.iter().collect::<Result<Vec<_>, _>>().expect("read")
        };
        let before = read(self);
        assert_eq!(self.arrive_from_mesh(first).0, REDIRECT);
        let changed = before.iter().zip(read(self)).position(|(before, after)| *before != after);
        u32::try_from(changed.expect("one has changed")).expect("a number of an array")
    }

    /// Spends a budget of first fragments, at the time of the last one that was remembered. That one alone, because to write
    /// them all may take longer than a tick of the clock.
    pub(crate) fn spend_fragments(&mut self, budget: u32) {
        let fragments: HashMap<_, FragmentKey, Fragment> = self.map(map::FRAGMENTS);
        let now = fragments.iter().map(|entry| entry.expect("read").1.seen).max().expect("one was remembered");
        let mut budgets: Array<_, [u64; 2]> = self.map("FRAGMENT_BUDGETS");
        budgets.set(budget, [0, now], 0).expect("write");
    }

    pub(crate) fn put_mapping(&mut self, key: FlowKey, mapping: Mapping) {
        let mut mappings: HashMap<_, FlowKey, Mapping> = self.map(map::MAPPINGS);
        mappings.insert(key, mapping, 0).expect("write");
    }

    pub(crate) fn peer_flows(&mut self, id: u32) -> u32 {
        let counts: Array<_, u32> = self.map(map::PEER_FLOWS);
        counts.get(&id, 0).expect("read")
    }

    pub(crate) fn forget_flow(&mut self, key: &FlowKey) {
        let mut flows: HashMap<_, FlowKey, Flow> = self.map(map::FLOWS);
        flows.remove(key).expect("remove");
    }

    pub(crate) fn forget_mapping(&mut self, key: &FlowKey) {
        let mut mappings: HashMap<_, FlowKey, Mapping> = self.map(map::MAPPINGS);
        mappings.remove(key).expect("remove");
    }

    /// Gives the uplink another IPv4 address in place of its own; `::`: none.
    pub(crate) fn uplink_addr4(&mut self, addr: IpAddr) {
        let mut locals: HashMap<_, Addr, LocalAddr> = self.map(map::LOCALS);
        locals.remove(&Addr::from(UPLINK)).expect("remove");
        self.uplink_speaks_for(addr);
    }

    /// Says the source that the kernel would choose towards `addr/len`, out of the uplink.
    pub(crate) fn chosen(&mut self, addr: IpAddr, len: u32, source: IpAddr) {
        let (dst, len) = prefix(addr, len);
        let mut chosen: LpmTrie<_, ChosenKey, Addr> = self.map(map::CHOSEN_SOURCES);
        let key = Key::new(ChosenKey::UPLINK_BITS + len, ChosenKey { uplink: ETH0, dst });
        chosen.insert(&key, Addr::from(source), 0).expect("insert");
    }

    /// Makes it the address that the uplink has of IPv4 where nothing better is known; the node keeps the one before.
    pub(crate) fn uplink_speaks_for(&mut self, addr: IpAddr) {
        let mut uplinks: HashMap<_, u32, Uplink> = self.map(map::UPLINKS);
        let uplink = Uplink { addr4: addr.into(), addr6: UPLINK6.into(), mtu: 1500, sources: [0; 4] };
        uplinks.insert(ETH0, uplink, 0).expect("insert");
    }

    /// Makes every flow resolve its way anew.
    pub(crate) fn resolve_again(&mut self) {
        for number in 1..NEXT_HOPS {
            let hop = self.next_hop(number);
            self.set_next_hop(number, NextHop { generation: hop.generation + 1, ..hop });
        }
    }

    pub(crate) fn next_hop(&mut self, number: u32) -> NextHop {
        let hops: Array<_, NextHop> = self.map(map::NEXT_HOPS);
        hops.get(&number, 0).expect("read")
    }

    pub(crate) fn set_next_hop(&mut self, number: u32, hop: NextHop) {
        let mut hops: Array<_, NextHop> = self.map(map::NEXT_HOPS);
        hops.set(number, hop, 0).expect("write");
    }

    pub(crate) fn drops(&mut self, reason: DropReason) -> u64 {
        self.drop_counts()[reason as usize].packets
    }

    /// Of all reasons, in their order.
    pub(crate) fn drop_counts(&mut self) -> Vec<PacketCount> {
        let drops: PerCpuArray<_, PacketCount> = self.map(map::DROPS);
        drops.iter().map(|values| sum(&values.expect("read"))).collect()
    }

    /// All counters, in their order.
    pub(crate) fn counters(&mut self) -> Vec<u64> {
        let counters: PerCpuArray<_, u64> = self.map(map::COUNTERS);
        counters.iter().map(|values| values.expect("read").iter().sum()).collect()
    }

    /// All drops, by name: for messages.
    pub(crate) fn all_drops(&mut self) -> Vec<(&'static str, u64)> {
        let counts = self.drop_counts();
        let named = DropReason::ALL.iter().zip(counts).map(|(reason, count)| (reason.name(), count.packets));
        named.filter(|drop| drop.1 > 0).collect()
    }

    pub(crate) fn counter(&mut self, counter: Counter) -> u64 {
        let counters: PerCpuArray<_, u64> = self.map(map::COUNTERS);
        counters.get(&(counter as u32), 0).expect("read").iter().sum()
    }

    pub(crate) fn route_count(&mut self, id: u32, direction: Direction) -> PacketCount {
        let counts: PerCpuArray<_, PacketCount> = self.map(map::ROUTE_COUNTERS);
        sum(&counts.get(&(id * 2 + direction as u32), 0).expect("read"))
    }

    pub(crate) fn flows(&mut self) -> Vec<(FlowKey, Flow)> {
        let flows: HashMap<_, FlowKey, Flow> = self.map(map::FLOWS);
        flows.iter().map(|entry| entry.expect("read")).collect()
    }

    pub(crate) fn mappings(&mut self) -> Vec<(FlowKey, Mapping)> {
        let mappings: HashMap<_, FlowKey, Mapping> = self.map(map::MAPPINGS);
        mappings.iter().map(|entry| entry.expect("read")).collect()
    }
}

fn sum(per_cpu: &PerCpuValues<PacketCount>) -> PacketCount {
    per_cpu.iter().fold(PacketCount::default(), |sum, count| PacketCount {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    ebpf.program_mut(name).expect("the program exists").try_into().expect("a classifier")
}
