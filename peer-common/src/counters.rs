//! Counters, all per CPU.

/// Packets and bytes of layer 3; segments of a super-packet are counted one by one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCount {
    /// Packets.
    pub packets: u64,
    /// Bytes of layer 3.
    pub bytes: u64,
}

const _: () = assert!(size_of::<PacketCount>() == 16);

/// Direction, as it indexes route counters: `route_id * 2 + direction`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Mesh → LAN.
    Out = 0,
    /// LAN → mesh.
    In = 1,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What the programs count besides drops. The index into the counter map.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// All of them, in index order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// Label value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence on what is counted.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+),)+ }
            }
        }
    };
}

counters! {
    /// Mesh packets redirected out of an uplink.
    ForwardedOut = "forwarded_out",
    /// Replies redirected from an uplink into the mesh.
    ForwardedIn = "forwarded_in",
    /// Mesh packets handed to the node's own stack.
    ToNode = "to_node",
    /// Packets of the node towards the mesh.
    FromNode = "from_node",
    /// Packets handed to the kernel's forwarding on routes that keep sources.
    ToStack = "to_stack",
    /// Uplink packets that were not ours and went on untouched.
    UplinkNext = "uplink_next",
    /// Flows opened.
    FlowsOpened = "flows_opened",
    /// Flows judged again because the policy changed.
    FlowsRejudged = "flows_rejudged",
    /// Ports found taken while a mapping was allocated.
    PortProbes = "port_probes",
    /// Next hops resolved by a FIB lookup.
    FibLookups = "fib_lookups",
}
