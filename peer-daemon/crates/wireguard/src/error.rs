//! Why a datagram or a packet went no further: one enum per direction, each variant mapped once to its counter label,
//! its explanation and its log level.

use tracing::Level;

macro_rules! reasons {
    ($(#[$meta:meta])* $ty:ident { $($variant:ident: $name:literal, $level:ident, $help:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        #[error("{}", self.help())]
        pub enum $ty {
            $(#[doc = $help] $variant,)+
        }

        impl $ty {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Label of its counter.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for the operator.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }

            /// Level of the summary that is logged now and then; single occurrences are logged at TRACE only.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Self::$variant => Level::$level,)+ }
            }
        }
    };
}

reasons! {
    /// Why a datagram that arrived yielded neither a packet nor an answer.
    DatagramError {
        Garbage: "garbage", DEBUG, "no WireGuard message: unknown type or impossible length";
        BadMac: "bad_mac", DEBUG, "a handshake message whose first MAC was not made for our public key";
        InitiationFlood: "initiation_flood", WARN, "more handshake initiations than are looked at: a flood";
        Screened: "screened", WARN, "a handshake initiation from an unknown address that the kernel dropped under a flood; counted by what it let through";
        CookieLimited: "cookie_limited", WARN, "a handshake message without a valid cookie while too many come, and more of them than cookies are sent";
        SourceLimited: "source_limited", WARN, "more handshake messages from one source, whose address is proven, than its token bucket allows";
        UnderLoad: "under_load", WARN, "more handshake messages of proven sources, or through relays, than all of them may send together";
        Undecipherable: "undecipherable", DEBUG, "a handshake initiation whose sender cannot be deciphered";
        UnknownPeer: "unknown_peer", WARN, "a handshake initiation of a public key that is no peer of ours";
        WrongKey: "wrong_key", WARN, "a handshake message that fails authentication: another private or pre-shared key";
        StaleInitiation: "stale_initiation", DEBUG, "a handshake initiation that is not newer than the last one: replayed, or sent twice";
        UnknownIndex: "unknown_index", DEBUG, "the receiver index belongs to no session: often left over from before a restart";
        UnexpectedResponse: "unexpected_response", DEBUG, "a handshake response to no handshake of ours";
        BadCookie: "bad_cookie", DEBUG, "a cookie reply that does not belong to our last handshake message";
        NoSession: "no_session", DEBUG, "data for a session that has expired";
        Replay: "replay", WARN, "a counter that was received before";
        TooOld: "too_old", WARN, "a counter too far behind the newest: replayed, or reordered by more than 1024 packets";
        BadTag: "bad_tag", WARN, "data that fails authentication";
        MalformedPacket: "malformed_packet", DEBUG, "authentic data that is no whole IP packet";
        ForeignSource: "foreign_source", WARN, "an inner source address that is not among the sending peer's allowed IPs";
        NoRoom: "no_room", WARN, "no room for the packet in the batch that was lent";
        Internal: "internal", ERROR, "the Noise core reports an impossible state";
    }
}

reasons! {
    /// Why a packet did not leave.
    PacketError {
        Malformed: "malformed", DEBUG, "no whole IPv4 or IPv6 packet";
        NoPeer: "no_peer", DEBUG, "the destination is among no peer's allowed IPs";
        NoEndpoint: "no_endpoint", DEBUG, "the peer that owns the destination has never been heard of and has no configured endpoint";
        StagingFull: "staging_full", DEBUG, "too many packets wait for a session: the oldest make room";
        HandshakeTimeout: "handshake_timeout", DEBUG, "the peer did not answer within 90 seconds: packets that waited are given up";
        PeerRemoved: "peer_removed", DEBUG, "the peer was removed while packets waited for a session";
        TransmitQueueFull: "transmit_queue_full", WARN, "the queue of datagrams to be sent is full";
        NoRoom: "no_room", WARN, "no room for the datagram in the batch that was lent";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_labels_and_positions_match() {
        let names: HashSet<_> = DatagramError::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DatagramError::ALL.len());
        let names: HashSet<_> = PacketError::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), PacketError::ALL.len());
        assert!(DatagramError::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert!(PacketError::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert_eq!(DatagramError::Replay.to_string(), DatagramError::Replay.help());
    }
}
