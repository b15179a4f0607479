//! What the programs read once per packet.

use crate::{Addr, layout};

/// The only entry of the config map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Key of the port hash; random, kept in the pinned map, so that a mapping can be made again after a loss of state.
    /// The head of this structure in every version: one that makes maps of its own takes the key over.
    pub hash_key: [u64; 2],
    /// Interface index of wt0.
    pub wt0: u32,
    /// MTU of wt0, bytes of layer 3.
    pub wt0_mtu: u32,
    /// Which policy holds; its lowest bit names the half of the policy tables. Written last.
    pub policy_generation: u32,
    /// Cells in each half of the policy: told to people only.
    pub policy_len: [u32; 2],
    /// Flags for FIB lookups of what is masqueraded: `BPF_FIB_LOOKUP_SRC`, where the kernel knows it (Linux 6.7).
    pub fib_flags: u32,
    /// First port of the NAT range, host byte order.
    pub nat_port_min: u16,
    /// Ports in the NAT range; a prime, so that every probe step visits all of them.
    pub nat_port_count: u16,
    /// Flows that one peer may have.
    pub peer_quota: u32,
    /// What the programs tell: bits of [`crate::Observe`].
    pub observe: u32,
    /// Nanoseconds that pass before a CPU may tell of one more flow, or of one more dropped packet.
    pub event_interval: u32,
    /// Flags: [`Config::REJECT`].
    pub answers: u32,
    /// Zero.
    pub pad: u32,
    /// Own overlay address, the source of our ICMP errors to the mesh; [`Addr::NONE`]: none of this family.
    pub overlay4: Addr,
    /// As `overlay4`, IPv6.
    pub overlay6: Addr,
    /// Nothing, but for builds that tests make: see [`layout::TEST_WORDS`].
    pub test: [u64; layout::TEST_WORDS],
}

const _: () = assert!(size_of::<Config>() == 96 + 8 * layout::TEST_WORDS);
const _: () = assert!(core::mem::offset_of!(Config, hash_key) == 0);

impl Config {
    /// In [`Config::answers`]: a packet that the policy refuses gets a reset or an ICMP error. Without it, it is dropped silently.
    pub const REJECT: u32 = 1;
}
