//! STUN Binding (RFC 8489): the answer that shows a client its mapped address, and the client's side of it.

mod server;

use std::net::SocketAddr;

use turn_types::stun::attribute::{Fingerprint, XorMappedAddress};
use turn_types::stun::message::{BINDING, Message, MessageClass, MessageWriteVec};
use turn_types::stun::prelude::{AttributeStaticType as _, MessageWrite as _, MessageWriteExt as _};

pub use server::StunServer;

/// Answers a Binding request with the address that it came from, in XOR-MAPPED-ADDRESS. A request with attributes that
/// the server must understand and does not gets 420 (RFC 8489 §6.3.1). `None`: it is no Binding request.
#[must_use]
pub fn answer(datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let request = Message::from_bytes(datagram).ok()?;
    if request.class() != MessageClass::Request || request.method() != BINDING {
        return None;
    }
    let refused = Message::check_attribute_types(&request, &[Fingerprint::TYPE], &[], MessageWriteVec::new());
    let mut response = match refused {
        Some(refused) => refused,
        None => {
            let mut response = Message::builder_success(&request, MessageWriteVec::new());
            response.add_attribute(&XorMappedAddress::new(from, request.transaction_id())).ok()?;
            response
        }
    };
    response.add_fingerprint().ok()?;
    Some(response.finish())
}

/// A Binding request with a random transaction id, as a client sends it to learn its mapped address.
#[must_use]
pub fn request() -> Vec<u8> {
    let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
    // The message is empty: the attribute fits.
    let _ = request.add_fingerprint();
    request.finish()
}

/// The mapped address in the success response to `request`. `None`: the datagram is no such response.
#[must_use]
pub fn mapped_address(datagram: &[u8], request: &[u8]) -> Option<SocketAddr> {
    let (response, request) = (Message::from_bytes(datagram).ok()?, Message::from_bytes(request).ok()?);
    let id = response.transaction_id();
    if response.class() != MessageClass::Success || response.method() != BINDING || id != request.transaction_id() {
        return None;
    }
    Some(response.attribute::<XorMappedAddress>().ok()?.addr(id))
}

#[cfg(test)]
mod tests {
    use turn_types::stun::attribute::{ErrorCode, RawAttribute};

    use super::*;

    #[test]
    fn a_request_is_answered_with_its_source() {
        for from in ["192.0.2.1:3478", "[2001:db8::1]:51820"] {
            let from = from.parse().expect("address");
            let request = request();
            let response = answer(&request, from).expect("answer");
            assert_eq!(mapped_address(&response, &request), Some(from));
            assert_eq!(mapped_address(&response, &super::request()), None, "of another transaction");
        }
    }

    /// RFC 5769 §2.2, the sample IPv4 response: 192.0.2.1 port 32853.
    #[test]
    fn the_address_is_encoded_as_the_rfc_has_it() {
        let id = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
        let request = [&[0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42][..], &id].concat();
        let response = answer(&request, ([192, 0, 2, 1], 32853).into()).expect("answer");
        assert_eq!(response[20..32], [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    }

    #[test]
    fn what_is_no_request_gets_no_answer() {
        let from = ([192, 0, 2, 1], 1).into();
        let request = request();
        let response = answer(&request, from).expect("answer");
        for datagram in [&response[..], &request[..request.len() - 1], b"", &[4, 0, 0, 0]] {
            assert_eq!(answer(datagram, from), None, "{datagram:02x?}");
        }
    }

    #[test]
    fn unknown_required_attributes_are_refused() {
        let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
        request.add_attribute(&RawAttribute::new(0x7fff.into(), &[0; 4])).expect("fits");
        let response = answer(&request.finish(), ([192, 0, 2, 1], 1).into()).expect("answer");
        let response = Message::from_bytes(&response).expect("message");
        assert_eq!(response.attribute::<ErrorCode>().expect("code").code(), 420);
    }
}
