//! What a shard has done. Written by its thread alone, read by whoever scrapes.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! io_drops {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why packet I/O dropped a packet or a datagram.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum IoDrop { $($(#[doc = $doc])+ $variant,)+ }

        impl IoDrop {
            /// All of them, in index order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Label value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

io_drops! {
    /// A super-packet read from the device whose headers contradict its vnet header.
    TunMalformed = "tun_malformed",
    /// A packet read from the device is larger than its MTU and must not be fragmented.
    TunTooBig = "tun_too_big",
    /// The kernel did not take a packet: it is not IP.
    TunRefused = "tun_refused",
    /// The device is not up.
    TunDown = "tun_down",
    /// The kernel had no memory for a packet.
    TunNoMemory = "tun_no_memory",
    /// Writing a packet to the device failed for another reason.
    TunOther = "tun_other",
    /// More datagrams came in one message than a batch holds.
    UdpOverflow = "udp_overflow",
    /// The datagram is larger than the way to the peer allows.
    UdpTooBig = "udp_too_big",
    /// There is no route to the peer.
    UdpUnreachable = "udp_unreachable",
    /// A local firewall or policy refuses the datagram.
    UdpDenied = "udp_denied",
    /// The peer's host said that nobody listens.
    UdpRefused = "udp_refused",
    /// The socket stayed full for longer than a shard may wait.
    UdpBlocked = "udp_blocked",
    /// The peer's address is of a family for which there is no socket.
    UdpNoSocket = "udp_no_socket",
    /// Sending failed for another reason.
    UdpOther = "udp_other",
    /// More datagrams than a relay connection takes.
    RelayFull = "relay_full",
    /// The relay connection is gone, or it does not know the peer any more.
    RelayGone = "relay_gone",
    /// The datagram is larger than a relay message.
    RelayTooBig = "relay_too_big",
    /// More STUN datagrams than the control side takes, or one too long to be ICE's.
    StunFull = "stun_full",
}

/// A counter or gauge with one writer: relaxed load and store, which costs no locked instruction.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Only the shard's own thread calls this.
    pub(crate) fn add(&self, value: u64) {
        self.set(self.get().wrapping_add(value));
    }

    /// Only the shard's own thread calls this.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// One direction of one side. A pair of cache lines of its own, since prefetching fetches pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Side {
    /// Packets or datagrams.
    pub packets: Figure,
    /// Bytes of them, each with its own headers from layer 3 (TUN) or as UDP payload.
    pub bytes: Figure,
    /// System calls; for relays: batches passed on.
    pub calls: Figure,
    /// Transfers that carried several packets as one.
    pub super_packets: Figure,
    /// Packets that a super-packet carried. TUN in: not counted, the kernel made them.
    pub joined_packets: Figure,
}

/// Figures of one shard since its start.
#[derive(Debug, Default)]
pub struct ShardStats {
    /// Kernel → shard: packets to encrypt.
    pub tun_in: Side,
    /// Shard → kernel: decrypted packets.
    pub tun_out: Side,
    /// Datagrams that arrived.
    pub udp_in: Side,
    /// Datagrams sent.
    pub udp_out: Side,
    /// Datagrams that arrived through relays.
    pub relay_in: Side,
    /// Datagrams framed for relays.
    pub relay_out: Side,
    /// STUN datagrams that arrived; among those of UDP, too.
    pub stun_in: Side,
    /// 1 once TCP super-packets were refused by the device.
    pub tso_fallback: Figure,
    /// 1 once UDP super-packets were refused by the device.
    pub uso_fallback: Figure,
    /// 1 once a socket refused to segment.
    pub gso_fallback: Figure,
    /// Packets from the device that were larger than its MTU and went on in fragments.
    pub fragmented: Figure,
    /// Datagrams whose source address was ours no more: sent from another one.
    pub source_fallbacks: Figure,
    /// Errors of receiving that were no datagram.
    pub receive_errors: Figure,
    /// Turns of the loop.
    pub turns: Figure,
    /// Bytes that the kernel keeps for arriving datagrams, the smaller of both sockets.
    pub receive_buffer: Figure,
    /// Bytes that the kernel keeps for datagrams to send, the smaller of both sockets.
    pub send_buffer: Figure,
    drops: Drops,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Drops([Figure; IoDrop::ALL.len()]);

impl ShardStats {
    /// How many were dropped for `reason`.
    #[must_use]
    pub fn drops(&self, reason: IoDrop) -> u64 {
        self.drops.0[reason as usize].get()
    }

    pub(crate) fn dropped(&self, reason: IoDrop, count: u64) {
        self.drops.0[reason as usize].add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_distinct_names_and_help() {
        let mut names: Vec<_> = IoDrop::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), IoDrop::ALL.len());
        for (index, reason) in IoDrop::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.help().ends_with('.') && !reason.help().starts_with(' '), "{reason:?}");
        }
    }
}
