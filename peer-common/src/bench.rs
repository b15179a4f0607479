//! What the entries of benches are told. Production programs do not read it.

/// Bytes of a frame's headers: Ethernet, IPv4, TCP.
pub const HEADERS: usize = 54;

/// The only entry of the bench map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchPlan {
    /// Headers as they are restored before each run; address and port of the flow are written into them.
    pub headers: [u8; 56],
    /// Flows to choose among; flow `i` goes to host `i * stride % hosts` from port `first_port + i / hosts`.
    pub flows: u32,
    /// Hosts: the last 16 bits of the destination count them.
    pub hosts: u32,
    /// Hosts from one flow to the next.
    pub stride: u32,
    /// Source port of the first flow, host byte order.
    pub first_port: u32,
    /// Not 0: one flow after the other instead of any.
    pub in_turn: u32,
    /// The next flow in turn.
    pub next: u32,
    /// Last 16 bits of the first host's address, host byte order.
    pub first_host: u32,
}

const _: () = assert!(size_of::<BenchPlan>() == 84);

/// Flows at most.
pub const MAX_BENCH_FLOWS: u32 = 1 << 20;
