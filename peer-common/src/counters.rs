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
    /// ICMP errors translated together with the packet that they quote, both directions.
    IcmpErrors = "icmp_errors",
    /// ICMP errors of our own: hop limit used up, packet too big, destination unreachable.
    IcmpErrorsSent = "icmp_errors_sent",
    /// TCP resets of our own, to either end of a connection that may not go on.
    ResetsSent = "resets_sent",
    /// SYNs whose maximum segment size was lowered.
    MssClamped = "mss_clamped",
    /// First fragments remembered for those that follow.
    FragmentsTracked = "fragments_tracked",
    /// Flows opened.
    FlowsOpened = "flows_opened",
    /// Flows judged again because the policy changed.
    FlowsRejudged = "flows_rejudged",
    /// Ports found taken by another flow while a mapping was allocated.
    PortProbes = "port_probes",
    /// Ports found taken by a socket of the node while a mapping was allocated.
    PortSockets = "port_sockets",
    /// Ports of connections that had ended, or were never answered, given to new flows because ports were scarce.
    PortsReused = "ports_reused",
    /// Next hops that got an entry.
    NextHopsMade = "next_hops_made",
    /// Next hops resolved for one packet only: all entries were taken.
    NextHopsUnlisted = "next_hops_unlisted",
    /// First fragments not remembered: their source sends more of them than the limit allows.
    FragmentsLimited = "fragments_limited",
    /// TCP resets, ends and opens that did not count: their numbers are none of the connection's.
    TcpOutOfWindow = "tcp_out_of_window",
    /// Mappings found missing under a live flow, and put back.
    MappingsHealed = "mappings_healed",
    /// Next hops resolved by a FIB lookup.
    FibLookups = "fib_lookups",
    /// Events of flows and packets that were not told: more came than the limit allows.
    EventsLimited = "events_limited",
    /// Events of flows and packets that were not told: the daemon had not read those before.
    EventsLost = "events_lost",
}
