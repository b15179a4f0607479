//! Messages of a server.

use std::net::SocketAddr;

use turn_types::attribute::{Data, XorPeerAddress};
use turn_types::message::DATA;
use turn_types::stun::attribute::{ErrorCode, Nonce, Realm};
use turn_types::stun::message::{IntegrityAlgorithm, IntegrityKey, Message, MessageWriteVec};
use turn_types::stun::prelude::{AttributeWrite, MessageWrite as _, MessageWriteExt as _};

use super::auth::REALM;

/// Attributes of a success response.
pub(super) type Attributes = Vec<Box<dyn AttributeWrite>>;

/// A signed success response.
pub(super) fn success(request: &Message<'_>, key: &IntegrityKey, attributes: &Attributes) -> Option<Vec<u8>> {
    let mut response = Message::builder_success(request, MessageWriteVec::new());
    for attribute in attributes {
        response.add_attribute(attribute.as_ref()).ok()?;
    }
    sign(response, key)
}

/// A signed error response.
pub(super) fn error(request: &Message<'_>, key: &IntegrityKey, code: u16) -> Option<Vec<u8>> {
    let mut response = Message::builder_error(request, MessageWriteVec::new());
    response.add_attribute(&ErrorCode::builder(code).build().ok()?).ok()?;
    sign(response, key)
}

/// An error response to a request whose sender is not known; 401 and 438 carry what the next attempt needs.
pub(super) fn refusal(request: &Message<'_>, code: u16, nonce: &str) -> Option<Vec<u8>> {
    let mut response = Message::builder_error(request, MessageWriteVec::new());
    response.add_attribute(&ErrorCode::builder(code).build().ok()?).ok()?;
    if code != ErrorCode::BAD_REQUEST {
        response.add_attribute(&Realm::new(REALM).ok()?).ok()?;
        response.add_attribute(&Nonce::new(nonce).ok()?).ok()?;
    }
    response.add_fingerprint().ok()?;
    Some(response.finish())
}

pub(super) fn sign(mut response: MessageWriteVec, key: &IntegrityKey) -> Option<Vec<u8>> {
    response.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1).ok()?;
    response.add_fingerprint().ok()?;
    Some(response.finish())
}

/// A datagram of a peer that has no channel.
pub(super) fn data_indication(peer: SocketAddr, data: &[u8]) -> Option<Vec<u8>> {
    let mut indication = Message::builder_indication(DATA, MessageWriteVec::new());
    let id = indication.transaction_id();
    indication.add_attribute(&XorPeerAddress::new(peer, id)).ok()?;
    indication.add_attribute(&Data::new(data)).ok()?;
    Some(indication.finish())
}

/// A datagram of a peer that has a channel; over UDP it needs no padding (RFC 8656 §12.5).
pub(super) fn channel_data(number: u16, data: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(data.len()).ok()?;
    Some([&number.to_be_bytes()[..], &length.to_be_bytes(), data].concat())
}
