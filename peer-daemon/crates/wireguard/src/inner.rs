//! The few fields of inner IP packets that cryptokey routing needs (RFC 791 §3.1, RFC 8200 §3).

use std::net::IpAddr;

/// Shortest IPv4 header, bytes.
pub(crate) const IPV4_HEADER: usize = 20;
/// IPv6 header, bytes.
pub(crate) const IPV6_HEADER: usize = 40;

/// Destination of an IPv4 or IPv6 packet; `None` if it is neither, or shorter than its header says.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    let length = |at: usize| packet.get(at..at + 2).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
    match packet.first()? >> 4 {
        4 => {
            let total = length(2)?;
            let addr: [u8; 4] = packet.get(16..IPV4_HEADER)?.try_into().ok()?;
            (total >= IPV4_HEADER && total <= packet.len()).then(|| addr.into())
        }
        6 => {
            let payload = length(4)?;
            let addr: [u8; 16] = packet.get(24..IPV6_HEADER)?.try_into().ok()?;
            (payload + IPV6_HEADER <= packet.len()).then(|| addr.into())
        }
        _ => None,
    }
}

/// Length that a packet of `len` bytes is padded to (paper §5.4.6: a multiple of 16, but not beyond the MTU, so that
/// the datagram fits its path).
pub(crate) fn padded(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(16).min(mtu.max(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_of_whole_packets_only() {
        let mut v4 = vec![0; 24];
        v4[0] = 0x45;
        v4[3] = 24;
        v4[16..20].copy_from_slice(&[10, 0, 0, 7]);
        assert_eq!(destination(&v4), Some([10, 0, 0, 7].into()));
        v4[3] = 25;
        assert_eq!(destination(&v4), None);
        v4[3] = 19;
        assert_eq!(destination(&v4), None);
        let mut v6 = vec![0; 44];
        v6[0] = 0x60;
        v6[5] = 4;
        v6[39] = 1;
        assert_eq!(destination(&v6), Some("::1".parse().expect("address")));
        v6[5] = 5;
        assert_eq!(destination(&v6), None);
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0x45; 19]), None);
        assert_eq!(destination(&[0x75; 60]), None);
    }

    #[test]
    fn padding_stops_at_the_mtu() {
        for (len, mtu, want) in [(1, 1420, 16), (16, 1420, 16), (17, 1420, 32), (1420, 1420, 1420), (1409, 1420, 1420)]
        {
            assert_eq!(padded(len, mtu), want, "{len}");
        }
        assert_eq!(padded(9001, 1420), 9001);
        assert_eq!(padded(1273, 1280), 1280);
    }
}
