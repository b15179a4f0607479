//! Why a packet was dropped: the one list behind counters, events and documentation.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Reason of a drop. The index into the drop counters; its name is the label value.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// All of them, in index order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// Label value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+),)+ }
            }
        }
    };
}

drop_reasons! {
    /// Not IPv4 or IPv6, or shorter than its headers say.
    Malformed = "malformed",
    /// An IPv4 header with options.
    IpOptions = "ip_options",
    /// An IPv6 extension header other than a fragment header.
    ExtensionHeader = "extension_header",
    /// A fragment whose first one has not come, or came long before: nothing tells its ports.
    Fragment = "fragment",
    /// A protocol that is not forwarded: only TCP, UDP and echo are.
    Protocol = "protocol",
    /// An ICMP type that is not forwarded.
    IcmpType = "icmp_type",
    /// An ICMP error about a packet that its sender was never sent, or that TCP has acknowledged or not sent yet.
    IcmpUnmatched = "icmp_unmatched",
    /// The source belongs to no peer.
    ForeignSource = "foreign_source",
    /// Multicast or broadcast, also that of a network of the node's.
    Multicast = "multicast",
    /// A destination that only a host route may name: loopback, link-local, a cloud's metadata, the daemon's own listeners.
    DeniedDestination = "denied_destination",
    /// No route of ours covers the destination.
    NoRoute = "no_route",
    /// No rule accepts it.
    PolicyDefault = "policy_default",
    /// A rule drops it.
    PolicyRule = "policy_rule",
    /// The kernel has no route, or one that is a blackhole.
    Unreachable = "unreachable",
    /// The destination, a neighbour of the node's, has not answered the kernel's last requests for its link address.
    HostUnreachable = "host_unreachable",
    /// The kernel's route leaves by an interface that is not an uplink.
    NotUplink = "not_uplink",
    /// A flow lost its uplink, its address or its mapping to another: forgotten, the next packet opens it anew.
    SourceChanged = "source_changed",
    /// The uplink has no address of this family to masquerade with.
    NoSourceAddress = "no_source_address",
    /// All probes for a free port failed.
    PortsExhausted = "ports_exhausted",
    /// Ports towards this remote are scarce, and the peer has its share of them.
    PortShare = "port_share",
    /// The peer reaches for many silent neighbours at once.
    SilentNeighbours = "silent_neighbours",
    /// The flow table is full.
    TableFull = "table_full",
    /// The peer has as many flows as one peer may have.
    PeerQuota = "peer_quota",
    /// TTL or hop limit used up.
    TtlExceeded = "ttl_exceeded",
    /// Larger than the MTU of the outgoing interface.
    TooBig = "too_big",
    /// The kernel refused to change the packet.
    Rewrite = "rewrite",
    /// It came to the mesh device while our program was not in its place there: the second one drops what nobody has judged.
    Unjudged = "unjudged",
    /// The kernel refused a helper call or has no configuration of ours.
    Internal = "internal",
}
