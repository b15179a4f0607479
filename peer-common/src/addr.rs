//! IP addresses as the maps hold them.

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96` (RFC 4291 §2.5.5.2), as four words in network
/// byte order, exactly as they stand in a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr {
    /// Network byte order; `words[3]` is the IPv4 address of a mapped one.
    pub words: [u32; 4],
}

const _: () = assert!(size_of::<Addr>() == 16 && align_of::<Addr>() == 4);

/// The third word of every mapped IPv4 address, network byte order.
pub const MAPPED_PREFIX: u32 = 0x0000_ffff_u32.to_be();

/// Prefix length of `::ffff:0:0/96`, to be added to an IPv4 prefix length in LPM keys.
pub const MAPPED_BITS: u32 = 96;

impl Addr {
    /// The unspecified address `::`: "none".
    pub const NONE: Self = Self { words: [0; 4] };

    /// From an IPv4 address in network byte order, as loaded from a packet.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_be(addr: u32) -> Self {
        Self { words: [0, 0, MAPPED_PREFIX, addr] }
    }

    /// Whether this is an IPv4 address in mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED_PREFIX
    }

    /// Whether this is `::`.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.words[0] | self.words[1] | self.words[2] | self.words[3] == 0
    }
}

impl From<core::net::Ipv4Addr> for Addr {
    fn from(addr: core::net::Ipv4Addr) -> Self {
        Self::from_v4_be(u32::from_ne_bytes(addr.octets()))
    }
}

impl From<core::net::Ipv6Addr> for Addr {
    fn from(addr: core::net::Ipv6Addr) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(addr.octets().as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Self { words }
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(addr: core::net::IpAddr) -> Self {
        match addr {
            core::net::IpAddr::V4(v4) => v4.into(),
            core::net::IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Addr> for core::net::IpAddr {
    fn from(addr: Addr) -> Self {
        if addr.is_v4() {
            return Self::V4(addr.words[3].to_ne_bytes().into());
        }
        let mut octets = [0; 16];
        for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(addr.words) {
            *bytes = word.to_ne_bytes();
        }
        Self::V6(octets.into())
    }
}
