//! Addresses and prefixes of the wire.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// A CIDR as a set of addresses: host bits zero, IPv4 never mapped.
pub(super) fn cidr(text: &str) -> Option<IpNet> {
    Some(unmapped(text.parse().ok()?)?.trunc())
}

/// Own address with the prefix length of its network, as text.
pub(super) fn interface(text: &str) -> Option<Ipv4Net> {
    match text.parse().ok()? {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    }
}

/// The same in bytes: 4 or 16 of address, one of prefix length. Any other number of bytes is none.
pub(super) fn compact(bytes: &[u8]) -> Option<IpNet> {
    let (length, address) = bytes.split_last()?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        // A mapped address counts its prefix length as IPv4 does.
        16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?).to_canonical(),
        _ => return None,
    };
    IpNet::new(address, *length).ok()
}

/// An address as the source of a rule: an unspecified one means all of its family.
pub(super) fn source(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    let any = address.is_unspecified();
    match IpNet::new(address, 0) {
        Ok(net) if any => net,
        _ => address.into(),
    }
}

fn unmapped(net: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = net else { return Some(net) };
    match v6.addr().to_ipv4_mapped() {
        // Wider than the mapped addresses: as IPv6 it says nothing that could pass.
        Some(_) if v6.prefix_len() < MAPPED_LEN => None,
        Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - MAPPED_LEN).ok(),
        None => Some(IpNet::V6(v6)),
    }
}

/// Of `::ffff:0:0/96`.
const MAPPED_LEN: u8 = 96;

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    #[test]
    fn compact_prefixes_are_those_of_the_notes() {
        assert_eq!(compact(&[0x64, 0x40, 0, 7, 0x20]), Some(net("100.64.0.7/32")));
        assert_eq!(compact(&[0; 17]), Some(net("::/0")));
        let mapped: Vec<u8> = [Ipv6Addr::from(0xffff_6440_0007).octets().as_slice(), &[32]].concat();
        assert_eq!(compact(&mapped), Some(net("100.64.0.7/32")));
    }

    #[test]
    fn bytes_that_are_no_prefix_are_none() {
        let mapped_128: Vec<u8> = [Ipv6Addr::from(0xffff_6440_0007).octets().as_slice(), &[128]].concat();
        for bytes in [&[][..], &[1], &[1; 4], &[10, 0, 0, 1, 33], &[0; 6], &[0xff; 17], &[0; 18], &mapped_128] {
            assert_eq!(compact(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn unspecified_sources_are_all_of_their_family() {
        let cases = [("0.0.0.0", "0.0.0.0/0"), ("::", "::/0"), ("10.0.0.1", "10.0.0.1/32"), ("fd00::1", "fd00::1/128")];
        for (address, prefix) in cases {
            assert_eq!(source(address.parse().expect("an address")), net(prefix));
        }
        assert_eq!(source("::ffff:10.0.0.1".parse().expect("an address")), net("10.0.0.1/32"));
    }

    #[test]
    fn cidrs_lose_host_bits_and_mapping() {
        assert_eq!(cidr("10.1.2.3/8"), Some(net("10.0.0.0/8")));
        assert_eq!(cidr("::ffff:10.1.2.3/104"), Some(net("10.0.0.0/8")));
        assert_eq!(cidr("::ffff:10.1.2.3/95"), None);
        assert_eq!((cidr("10.1.2.3"), cidr(""), cidr("10.0.0.0/33"), cidr("invalid Prefix")), (None, None, None, None));
    }
}
