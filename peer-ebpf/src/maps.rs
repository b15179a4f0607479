//! All maps. Layouts are those of `peer-common`; the daemon pins those of `layout::map::PINNED`.

use crate::budget::Budget;
use crate::fib::Hop;
use crate::fragment::{Entry, FRAGMENT_SOURCES};
use crate::icmp::{ErrorBuffer, Quoted};
use crate::judge::Query;
use crate::nat::Search;
use crate::observe::BUDGETS;
use crate::parse::Packet;
use crate::reset::Segment;
use crate::socket::V4;
use crate::tcp_options::Options;
use crate::verifier::value;
use aya_ebpf::bindings::bpf_redir_neigh;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, Queue, RingBuf};
use peer_common::fragment::MAX_FRAGMENTS;
use peer_common::layout::DEFAULT_FLOWS;
use peer_common::next_hop::MAX_NEXT_HOPS;
use peer_common::policy::{ANSWERS, MAX_CELLS, MAX_DESTINATIONS, MAX_SOURCES};
use peer_common::route::{
    MAX_CHOSEN, MAX_LISTENERS, MAX_LOCALS, MAX_NAT_SOURCES, MAX_PEER_PREFIXES, MAX_PEERS, MAX_ROUTES, MAX_UPLINKS,
    PORT_COUNTS,
};
use peer_common::{
    Addr, Answer, BenchPlan, CellKey, CellValue, ChosenKey, Config, Counter, DropReason, Flow, FlowEvent, FlowKey,
    Fragment, FragmentKey, LocalAddr, Mapping, NextHop, NextHopKey, PacketCount, Peer, Route, TraceFilter, Uplink,
};

/// What a program works on. In a map rather than on the stack of 512 bytes; and what the verifier reads back from a map is
/// unknown to it, so that the many outcomes of parsing become one state instead of being followed one by one.
/// Programs of this type do not interrupt one another on a CPU.
#[repr(C)]
pub struct Scratch {
    pub packet: Packet,
    pub hop: Hop,
    pub flow: Flow,
    pub mapping: Mapping,
    pub reply: FlowKey,
    pub query: Query,
    pub fragment: Entry,
    pub quoted: Quoted,
    pub options: Options,
    pub search: Search,
    pub tuple: V4,
    pub neighbour: bpf_redir_neigh,
    /// MTU that a packet was too big for.
    pub mtu: u32,
    /// The `DropReason` that [`crate::log`] is told.
    pub refused: u32,
    pub error: ErrorBuffer,
    pub segment: Segment,
}

#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: this CPU's own, and only entry points ask for it, once.
    value(&SCRATCH, 0).map(|scratch| unsafe { &mut *scratch })
}

#[inline(always)]
pub fn config() -> Option<&'static Config> {
    // SAFETY: an array's value lives as long as the program.
    value(&CONFIG, 0).map(|config| unsafe { &*config })
}

/// The uplink of that interface index, if it is one.
#[inline(always)]
pub fn uplink(ifindex: u32) -> Option<&'static Uplink> {
    // SAFETY: the map's values are only ever replaced whole by the daemon.
    value(&UPLINKS, ifindex).map(|uplink| unsafe { &*uplink })
}

#[map]
pub static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(DEFAULT_FLOWS, 0);
#[map]
pub static MAPPINGS: HashMap<FlowKey, Mapping> = HashMap::with_max_entries(DEFAULT_FLOWS, 0);
#[map]
pub static ROUTES: LpmTrie<Addr, Route> = LpmTrie::with_max_entries(MAX_ROUTES, 0);
#[map]
pub static PEERS: LpmTrie<Addr, Peer> = LpmTrie::with_max_entries(MAX_PEER_PREFIXES, 0);
#[map]
pub static UPLINKS: HashMap<u32, Uplink> = HashMap::with_max_entries(MAX_UPLINKS, 0);
#[map]
pub static LOCALS: HashMap<Addr, LocalAddr> = HashMap::with_max_entries(MAX_LOCALS, 0);
#[map]
pub static LISTENERS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_LISTENERS, 0);
#[map]
pub static PEER_FLOWS: Array<u32> = Array::with_max_entries(MAX_PEERS, 0);
#[map]
pub static REMOTE_PORTS: Array<u32> = Array::with_max_entries(PORT_COUNTS, 0);
#[map]
pub static MEMBER_PORTS: Array<u32> = Array::with_max_entries(PORT_COUNTS, 0);
#[map]
pub static NAT_SOURCES: Array<Addr> = Array::with_max_entries(MAX_NAT_SOURCES, 0);
#[map]
pub static CHOSEN_SOURCES: LpmTrie<ChosenKey, Addr> = LpmTrie::with_max_entries(MAX_CHOSEN, 0);
#[map]
pub static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(MAX_NEXT_HOPS, 0);
#[map]
pub static NEXT_HOP_NUMBERS: HashMap<NextHopKey, u64> = HashMap::with_max_entries(MAX_NEXT_HOPS, 0);
/// Numbers of eight bytes: the kernel writes them to the stack, see [`crate::verifier`].
#[map]
pub static FREE_NEXT_HOPS: Queue<u64> = Queue::with_max_entries(MAX_NEXT_HOPS, 0);
#[map]
pub static REACH: Array<Budget> = Array::with_max_entries(MAX_PEERS, 0);
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment> = LruHashMap::with_max_entries(MAX_FRAGMENTS, 0);
#[map]
pub static SOURCES_0: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(MAX_SOURCES, 0);
#[map]
pub static SOURCES_1: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(MAX_SOURCES, 0);
#[map]
pub static DESTINATIONS_0: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(MAX_DESTINATIONS, 0);
#[map]
pub static DESTINATIONS_1: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(MAX_DESTINATIONS, 0);
#[map]
pub static CELLS_0: LpmTrie<CellKey, CellValue> = LpmTrie::with_max_entries(MAX_CELLS, 0);
#[map]
pub static CELLS_1: LpmTrie<CellKey, CellValue> = LpmTrie::with_max_entries(MAX_CELLS, 0);
#[map]
pub static ANSWERS_0: Array<Answer> = Array::with_max_entries(ANSWERS, 0);
#[map]
pub static ANSWERS_1: Array<Answer> = Array::with_max_entries(ANSWERS, 0);
#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);
#[map]
pub static DROPS: PerCpuArray<PacketCount> = PerCpuArray::with_max_entries(DropReason::COUNT, 0);
#[map]
pub static ROUTE_COUNTERS: PerCpuArray<PacketCount> = PerCpuArray::with_max_entries(2 * MAX_ROUTES, 0);
/// What bounds first fragments of a source. Private to one load, hence not pinned.
#[map]
pub static FRAGMENT_BUDGETS: Array<Budget> = Array::with_max_entries(FRAGMENT_SOURCES, 0);
/// What benches run.
#[map]
pub static BENCH: Array<BenchPlan> = Array::with_max_entries(1, 0);
/// One entry in production: benches set the size.
#[map]
pub static BENCH_PORTS: Array<u32> = Array::with_max_entries(1, 0);
/// This CPU's working memory, see [`Scratch`].
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
/// The program of [`crate::log`], if the kernel took it. Private to one load, hence not pinned: the kernel empties it when
/// the daemon is gone.
#[map]
pub static LOGGER: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// Why new flows were refused, where [`LOGGER`] is empty: private to one load, too.
#[map]
pub static REFUSALS: RingBuf = RingBuf::with_byte_size(4096, 0);
/// When this CPU last told of one, nanoseconds.
#[map]
pub static LAST_REFUSAL: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// What bounds our own ICMP errors on this CPU.
#[map]
pub static ERROR_BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);
/// What bounds our own ICMP errors to each peer. Private to one load, hence not pinned.
#[map]
pub static PEER_ERRORS: Array<Budget> = Array::with_max_entries(MAX_PEERS, 0);
/// What the programs tell of flows and packets, see [`crate::observe`]. The daemon sets its size when it loads.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(262_144, 0);
/// This CPU's record on its way to [`EVENTS`].
#[map]
pub static EVENT: PerCpuArray<FlowEvent> = PerCpuArray::with_max_entries(1, 0);
/// What bounds records on this CPU, by kind.
#[map]
pub static EVENT_BUDGETS: PerCpuArray<Budget> = PerCpuArray::with_max_entries(BUDGETS, 0);
/// Which packets somebody follows.
#[map]
pub static TRACE: Array<TraceFilter> = Array::with_max_entries(1, 0);
/// What the last described packet came to, see [`crate::describe`].
#[map]
pub static DESCRIBED: Array<FlowEvent> = Array::with_max_entries(1, 0);
