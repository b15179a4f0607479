//! Names, sizes and version of the maps.

/// Version of every layout in this crate. It is part of the pin path: another version makes new maps.
pub const ABI: u32 = match option_env!("PEER_TEST_ABI") {
    None => CURRENT_ABI,
    Some(text) => parse(text),
};

/// The version of a build that nothing was said to. `PEER_TEST_ABI`, when daemon and programs are compiled, makes another
/// one: for tests of upgrade and rollback only, which need two builds with different layouts.
const CURRENT_ABI: u32 = 5;

/// Words that a build of another version for tests has more in `Config`, so that its maps are not the same.
pub const TEST_WORDS: usize = if ABI == CURRENT_ABI { 0 } else { 1 };

/// Flows by default; the reverse map has the same size.
pub const DEFAULT_FLOWS: u32 = 131_072;

/// Names of maps, as in the object and in the pin directory.
pub mod map {
    /// `FlowKey` → `Flow`.
    pub const FLOWS: &str = "FLOWS";
    /// `FlowKey` → `Mapping`.
    pub const MAPPINGS: &str = "MAPPINGS";
    /// LPM of `Addr` → `Route`.
    pub const ROUTES: &str = "ROUTES";
    /// LPM of `Addr` → `Peer`.
    pub const PEERS: &str = "PEERS";
    /// `u32` interface index → `Uplink`.
    pub const UPLINKS: &str = "UPLINKS";
    /// `Addr` → `LocalAddr`.
    pub const LOCALS: &str = "LOCALS";
    /// `listener_key` of the daemon's own listeners → nothing of interest.
    pub const LISTENERS: &str = "LISTENERS";
    /// Array of `u32` by peer: flows that it has, as far as known; the daemon puts it right at each scan.
    pub const PEER_FLOWS: &str = "PEER_FLOWS";
    /// Array of `u32` by a hash of protocol and remote end: ports of source NAT in use towards it; counted anew at each scan.
    pub const REMOTE_PORTS: &str = "REMOTE_PORTS";
    /// The same by a hash of the peer besides.
    pub const MEMBER_PORTS: &str = "MEMBER_PORTS";
    /// Array of `Addr`: further sources of NAT, by uplink.
    pub const NAT_SOURCES: &str = "NAT_SOURCES";
    /// LPM of `ChosenKey` → `Addr`: sources of NAT that the kernel would choose.
    pub const CHOSEN_SOURCES: &str = "CHOSEN_SOURCES";
    /// Array of `NextHop`.
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// `NextHopKey` → number of its entry.
    pub const NEXT_HOP_NUMBERS: &str = "NEXT_HOP_NUMBERS";
    /// Queue of numbers that no next hop has.
    pub const FREE_NEXT_HOPS: &str = "FREE_NEXT_HOPS";
    /// Array of `Reach` by peer: how many silent neighbours it may still ask for.
    pub const REACH: &str = "REACH";
    /// LRU of `FragmentKey` → `Fragment`.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// LPM of `Addr` → `u32` identity, by half.
    pub const SOURCES: [&str; 2] = ["SOURCES_0", "SOURCES_1"];
    /// LPM of `Addr` → `u32` class, by half.
    pub const DESTINATIONS: [&str; 2] = ["DESTINATIONS_0", "DESTINATIONS_1"];
    /// LPM of `CellKey` → `CellValue`, by half.
    pub const CELLS: [&str; 2] = ["CELLS_0", "CELLS_1"];
    /// Array of `Answer`, by half.
    pub const ANSWERS: [&str; 2] = ["ANSWERS_0", "ANSWERS_1"];
    /// Array of one `Config`.
    pub const CONFIG: &str = "CONFIG";
    /// Per-CPU array of `u64` by `Counter`, counted in packets.
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU array of `PacketCount` by `DropReason`.
    pub const DROPS: &str = "DROPS";
    /// Per-CPU array of `PacketCount` by `route_id * 2 + Direction`.
    pub const ROUTE_COUNTERS: &str = "ROUTE_COUNTERS";
    /// Program array: at 0, `program::REFUSED`, if the kernel took it. Not pinned.
    pub const LOGGER: &str = "LOGGER";
    /// Ring buffer of `u32`: each the `DropReason` of refused new flows, for people, where `LOGGER` is empty. Not pinned.
    pub const REFUSALS: &str = "REFUSALS";
    /// Ring buffer of `FlowEvent`. Not pinned.
    pub const EVENTS: &str = "EVENTS";
    /// Array of one `TraceFilter`. Not pinned.
    pub const TRACE: &str = "TRACE";
    /// Array of one `FlowEvent`: what the last described packet came to. Not pinned.
    pub const DESCRIBED: &str = "DESCRIBED";
    /// Array of one `BenchPlan`; loaded with every object, used by benches only, not pinned.
    pub const BENCH: &str = "BENCH";
    /// Array of `u32`: the NAT port of each flow of a bench, network byte order.
    pub const BENCH_PORTS: &str = "BENCH_PORTS";
    /// All that are pinned.
    pub const PINNED: &[&str] = &[
        FLOWS,
        MAPPINGS,
        ROUTES,
        PEERS,
        UPLINKS,
        LOCALS,
        LISTENERS,
        PEER_FLOWS,
        REMOTE_PORTS,
        MEMBER_PORTS,
        NAT_SOURCES,
        CHOSEN_SOURCES,
        NEXT_HOPS,
        NEXT_HOP_NUMBERS,
        FREE_NEXT_HOPS,
        REACH,
        FRAGMENTS,
        SOURCES[0],
        SOURCES[1],
        DESTINATIONS[0],
        DESTINATIONS[1],
        CELLS[0],
        CELLS[1],
        ANSWERS[0],
        ANSWERS[1],
        CONFIG,
        COUNTERS,
        DROPS,
        ROUTE_COUNTERS,
    ];
}

/// Mark that tells wt0 egress of a packet redirected by uplink ingress: judged already. It lives between those two
/// programs only; wt0 egress clears it.
pub const REDIRECTED_MARK: u32 = 0x7065_6572;

/// `tc_index` by which wt0 ingress tells `program::WT0_LAST` that it has passed a packet. It lives between those two
/// programs only; the second clears it.
pub const PASSED_INDEX: u32 = 0x7065;

/// Names of programs, as in the object.
pub mod program {
    /// wt0 ingress: mesh → anywhere.
    pub const WT0_INGRESS: &str = "peer_wt0_in";
    /// wt0 ingress, behind [`WT0_INGRESS`]: drops what that has not passed.
    pub const WT0_LAST: &str = "peer_wt0_last";
    /// wt0 egress: the node, or the LAN, towards the mesh.
    pub const WT0_EGRESS: &str = "peer_wt0_out";
    /// Uplink ingress: replies.
    pub const UPLINK_INGRESS: &str = "peer_uplink_in";
    /// Says by aya-log that a new flow was refused, and drops its packet; not every kernel takes it.
    pub const REFUSED: &str = "peer_refused";
    /// wt0 ingress behind a link header, for tests and benches.
    pub const TEST_WT0_INGRESS: &str = "peer_test_wt0_in";
    /// What would become of a packet behind a link header: changes nothing, by `BPF_PROG_TEST_RUN` only.
    pub const DESCRIBE: &str = "peer_describe";
    /// A program that does nothing: what a run costs by itself.
    pub const BENCH_NOTHING: &str = "peer_bench_none";
    /// Chooses a flow and writes its packet, nothing else: what is subtracted from the others.
    pub const BENCH_PREPARE: &str = "peer_bench_prep";
    /// wt0 ingress on the packet of a chosen flow.
    pub const BENCH_OUT: &str = "peer_bench_out";
    /// Uplink ingress on the reply of a chosen flow.
    pub const BENCH_IN: &str = "peer_bench_in";
    /// As [`BENCH_PREPARE`], of a reply.
    pub const BENCH_PREPARE_IN: &str = "peer_bench_prin";
    /// wt0 egress behind a link header, for tests and benches.
    pub const TEST_WT0_EGRESS: &str = "peer_test_wt0_out";
}

const fn parse(text: &str) -> u32 {
    let digits = text.as_bytes();
    assert!(!digits.is_empty() && digits.len() < 6, "PEER_TEST_ABI is a number below 100000");
    let mut value = 0;
    let mut index = 0;
    while index < digits.len() {
        assert!(digits[index].is_ascii_digit(), "PEER_TEST_ABI is a number");
        value = value * 10 + (digits[index] - b'0') as u32;
        index += 1;
    }
    value
}
