//! STUN framing (RFC 8489): what the demultiplexer reads before an agent parses the message, and plain binding transactions
//! with servers.

use std::net::{IpAddr, SocketAddr};

use crate::limits::STUN_MESSAGE;

/// A transaction id.
pub(crate) type TransactionId = [u8; 12];

const HEADER: usize = 20;
const COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_FAILURE: u16 = 0x0111;

const MAPPED_ADDRESS: u16 = 0x0001;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const ALTERNATE_SERVER: u16 = 0x8023;
const NETWORK_COST: u16 = 0xc057;

/// Class of a binding message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Request,
    Success,
    Failure,
}

/// What decides where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header<'m> {
    pub(crate) class: Class,
    pub(crate) transaction: TransactionId,
    /// The part of USERNAME before its colon: the receiver's fragment.
    pub(crate) ufrag: Option<&'m str>,
    /// XOR-MAPPED-ADDRESS.
    pub(crate) mapped: Option<SocketAddr>,
    /// Has attributes that no connectivity check has and for which `is` would write a warning.
    pub(crate) foreign: bool,
}

/// Reads a binding message up to MESSAGE-INTEGRITY; `None` if it is none. What follows is not looked at: the fork of the
/// official client appends attribute 0x8100 after FINGERPRINT.
pub(crate) fn read(bytes: &[u8]) -> Option<Header<'_>> {
    if bytes.len() > STUN_MESSAGE || bytes.len() < HEADER || word(bytes, 4)? != COOKIE {
        return None;
    }
    let class = match half(bytes, 0)? {
        BINDING_REQUEST => Class::Request,
        BINDING_SUCCESS => Class::Success,
        BINDING_FAILURE => Class::Failure,
        _ => return None,
    };
    let length = usize::from(half(bytes, 2)?);
    if !length.is_multiple_of(4) || length + HEADER != bytes.len() {
        return None;
    }
    let transaction = bytes[8..HEADER].try_into().expect("12 bytes");
    let mut header = Header { class, transaction, ufrag: None, mapped: None, foreign: false };
    let mut rest = &bytes[HEADER..];
    while !rest.is_empty() {
        let (kind, length) = (half(rest, 0)?, usize::from(half(rest, 2)?));
        let value = rest.get(4..4 + length)?;
        match kind {
            MESSAGE_INTEGRITY => break,
            USERNAME => header.ufrag = str::from_utf8(value).ok()?.split_once(':').map(|(ufrag, _)| ufrag),
            XOR_MAPPED_ADDRESS => header.mapped = Some(unmask(value, &transaction)?),
            MAPPED_ADDRESS | UNKNOWN_ATTRIBUTES | ALTERNATE_SERVER => header.foreign = true,
            NETWORK_COST if length != 4 => header.foreign = true,
            _ => {}
        }
        rest = rest.get(4 + length.next_multiple_of(4)..)?;
    }
    Some(header)
}

/// A binding request without attributes, for a server.
pub(crate) fn binding_request(transaction: &TransactionId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(&BINDING_REQUEST.to_be_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&COOKIE.to_be_bytes());
    bytes.extend_from_slice(transaction);
    bytes
}

/// Class and transaction id of a message that an agent wrote.
pub(crate) fn own(bytes: &[u8]) -> Option<(Class, TransactionId)> {
    read(bytes).map(|header| (header.class, header.transaction))
}

/// The address in XOR-MAPPED-ADDRESS (RFC 8489, section 14.2).
fn unmask(value: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(transaction);
    let port = half(value, 2)? ^ (COOKIE >> 16) as u16;
    let unmasked = |at: usize| value[4 + at] ^ mask[at];
    let ip = match (value[1], value.len()) {
        (1, 8) => IpAddr::from(std::array::from_fn::<u8, 4, _>(unmasked)),
        (2, 20) => IpAddr::from(std::array::from_fn::<u8, 16, _>(unmasked)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 5769, section 2.2 and 2.3, up to MESSAGE-INTEGRITY.
    const V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae\
                      8022000b7465737420766563746f7220002000080001a147e112a643\
                      000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
    const V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae\
                      8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9\
                      00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }

    #[test]
    fn responses_of_rfc_5769() {
        for (hex, mapped) in [(V4, "192.0.2.1:32853"), (V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")] {
            let message = bytes(hex);
            let header = read(&message).expect("a message");
            assert_eq!(header.class, Class::Success);
            assert_eq!(header.mapped, Some(mapped.parse().expect("an address")));
            assert!(!header.foreign);
        }
    }

    #[test]
    fn a_request_is_a_header() {
        let request = binding_request(&[7; 12]);
        assert_eq!(request.len(), 20);
        let expected =
            Header { class: Class::Request, transaction: [7; 12], ufrag: None, mapped: None, foreign: false };
        assert_eq!(read(&request), Some(expected));
    }

    #[test]
    fn attributes_that_checks_do_not_have() {
        for attribute in ["000100080001000000000000", "000a0000", "80230000", "c0570000"] {
            let mut message = binding_request(&[7; 12]);
            message.extend(bytes(attribute));
            message[3] = u8::try_from(message.len() - 20).expect("short");
            assert!(read(&message).expect("a message").foreign, "{attribute}");
        }
    }

    #[test]
    fn lengths_must_agree() {
        let message = bytes(V4);
        for end in 0..message.len() {
            assert_eq!(read(&message[..end]), None, "{end}");
        }
        let mut long = message;
        long.resize(STUN_MESSAGE + 4, 0);
        let length = u16::try_from(long.len() - HEADER).expect("short");
        long[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(read(&long), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(tail in proptest::collection::vec(any::<u8>(), 0..100)) {
            _ = read(&tail);
            let mut message = binding_request(&[7; 12]);
            message.extend_from_slice(&tail[..tail.len() / 4 * 4]);
            message[3] = u8::try_from(tail.len() / 4 * 4).expect("short");
            _ = read(&message);
        }
    }
}
