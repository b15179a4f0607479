//! Requests of clients, after authentication.

use std::net::SocketAddr;
use std::time::Duration;

use turn_types::AddressFamily;
use turn_types::attribute::{
    ChannelNumber, Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};
use turn_types::stun::attribute::{
    AttributeType, ErrorCode, Fingerprint, MessageIntegrity, Nonce, Realm, Username, XorMappedAddress,
};
use turn_types::stun::message::{Message, MessageWriteVec};
use turn_types::stun::prelude::{Attribute as _, AttributeFromRaw as _, AttributeStaticType as _};

use super::allocation::Allocation;
use super::auth::User;
use super::response::{self, Attributes};
use super::{Now, Protocol, Relays};

/// Attributes that the server understands; others that it must understand get 420.
const KNOWN: [AttributeType; 10] = [
    Username::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    MessageIntegrity::TYPE,
    Fingerprint::TYPE,
    RequestedTransport::TYPE,
    RequestedAddressFamily::TYPE,
    Lifetime::TYPE,
    XorPeerAddress::TYPE,
    ChannelNumber::TYPE,
];

impl Protocol {
    pub(super) fn handle_request(
        &mut self,
        now: Now,
        client: SocketAddr,
        message: &Message<'_>,
        relays: &mut dyn Relays,
    ) -> Option<Vec<u8>> {
        let user = match self.auth.check(now, self.lifetimes.nonce, message) {
            Ok(user) => user,
            Err(code) => {
                self.count_error(code);
                return response::refusal(message, code, &self.auth.nonce());
            }
        };
        if let Some(unknown) = Message::check_attribute_types(message, &KNOWN, &[], MessageWriteVec::new()) {
            self.count_error(ErrorCode::UNKNOWN_ATTRIBUTE);
            return response::sign(unknown, &user.key);
        }
        let outcome = match message.method() {
            ALLOCATE => self.allocate(now, client, &user, message, relays),
            REFRESH => self.refresh(now, client, &user, message, relays),
            CREATE_PERMISSION => self.create_permission(now, client, &user, message),
            CHANNEL_BIND => self.bind_channel(now, client, &user, message),
            _ => Err(ErrorCode::BAD_REQUEST),
        };
        match outcome {
            Ok(attributes) => response::success(message, &user.key, &attributes),
            Err(code) => {
                self.count_error(code);
                response::error(message, &user.key, code)
            }
        }
    }

    /// RFC 8656 §7.2.
    fn allocate(
        &mut self,
        now: Now,
        client: SocketAddr,
        user: &User,
        message: &Message<'_>,
        relays: &mut dyn Relays,
    ) -> Result<Attributes, u16> {
        self.handle_timeout(now, relays);
        let id = message.transaction_id();
        if let Some(known) = self.allocations.get(&client) {
            // The answer to the first one may be lost: a repetition gets it again.
            let left = known.expires.saturating_duration_since(now.instant);
            if known.transaction != id {
                return Err(ErrorCode::ALLOCATION_MISMATCH);
            }
            return Ok(allocated(message, client, known.relayed, left));
        }
        let transport = message.attribute::<RequestedTransport>().map_err(|_| ErrorCode::BAD_REQUEST)?;
        if transport.protocol() != RequestedTransport::UDP {
            return Err(ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL);
        }
        let v6 = requested_family(message) == Some(AddressFamily::IPV6);
        if !relays.supports(v6) {
            return Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED);
        }
        let relayed = relays.open(v6).map_err(|_| ErrorCode::INSUFFICIENT_CAPACITY)?;
        let lifetime = self.granted(message);
        self.allocations.insert(client, Allocation::new(relayed, &user.name, id, now.instant + lifetime));
        self.seen.allocations += 1;
        Ok(allocated(message, client, relayed, lifetime))
    }

    /// RFC 8656 §8.2.
    fn refresh(
        &mut self,
        now: Now,
        client: SocketAddr,
        user: &User,
        message: &Message<'_>,
        relays: &mut dyn Relays,
    ) -> Result<Attributes, u16> {
        let lifetime = self.granted(message);
        let relayed = self.own(now, client, user)?.relayed;
        if requested_family(message).is_some_and(|family| (family == AddressFamily::IPV6) != relayed.is_ipv6()) {
            return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH);
        }
        let ends = message.attribute::<Lifetime>().is_ok_and(|lifetime| lifetime.seconds() == 0);
        if ends {
            self.allocations.remove(&client);
            relays.close(relayed);
        } else {
            self.own(now, client, user)?.expires = now.instant + lifetime;
        }
        self.seen.refreshes += 1;
        Ok(vec![Box::new(Lifetime::new(if ends { 0 } else { seconds(lifetime) }))])
    }

    /// RFC 8656 §10.2.
    fn create_permission(
        &mut self,
        now: Now,
        client: SocketAddr,
        user: &User,
        message: &Message<'_>,
    ) -> Result<Attributes, u16> {
        let until = now.instant + self.lifetimes.permission;
        let allocation = self.own(now, client, user)?;
        let attributes = message.iter_attributes().filter(|(_, raw)| raw.get_type() == XorPeerAddress::TYPE);
        let mut peers = Vec::new();
        for (_, raw) in attributes {
            let peer = XorPeerAddress::from_raw(raw).map_err(|_| ErrorCode::BAD_REQUEST)?;
            peers.push(peer.addr(message.transaction_id()));
        }
        if peers.is_empty() {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if peers.iter().any(|peer| peer.is_ipv4() != allocation.relayed.is_ipv4()) {
            return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH);
        }
        for peer in &peers {
            allocation.permit(peer.ip(), until);
        }
        self.seen.permissions += peers.len() as u64;
        Ok(Vec::new())
    }

    /// RFC 8656 §12.2.
    fn bind_channel(
        &mut self,
        now: Now,
        client: SocketAddr,
        user: &User,
        message: &Message<'_>,
    ) -> Result<Attributes, u16> {
        let permitted = now.instant + self.lifetimes.permission;
        let until = now.instant + self.lifetimes.channel;
        let allocation = self.own(now, client, user)?;
        let (Ok(number), Ok(peer)) = (message.attribute::<ChannelNumber>(), message.attribute::<XorPeerAddress>())
        else {
            return Err(ErrorCode::BAD_REQUEST);
        };
        let peer = peer.addr(message.transaction_id());
        if peer.is_ipv4() != allocation.relayed.is_ipv4() {
            return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH);
        }
        if !allocation.bind(number.channel(), peer, now.instant, until) {
            return Err(ErrorCode::BAD_REQUEST);
        }
        allocation.permit(peer.ip(), permitted);
        self.seen.channels += 1;
        Ok(Vec::new())
    }

    /// The client's allocation, if it lives and is this user's.
    fn own(&mut self, now: Now, client: SocketAddr, user: &User) -> Result<&mut Allocation, u16> {
        let allocation = self.allocations.get_mut(&client).filter(|allocation| allocation.expires > now.instant);
        let allocation = allocation.ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        if allocation.user == user.name { Ok(allocation) } else { Err(ErrorCode::WRONG_CREDENTIALS) }
    }

    /// The lifetime that a request gets.
    fn granted(&self, message: &Message<'_>) -> Duration {
        let requested = message.attribute::<Lifetime>().map_or(0, |lifetime| lifetime.seconds());
        Duration::from_secs(requested.into()).min(self.lifetimes.longest).max(self.lifetimes.allocation)
    }

    fn count_error(&mut self, code: u16) {
        *self.seen.errors.entry(code).or_default() += 1;
    }
}

fn allocated(message: &Message<'_>, client: SocketAddr, relayed: SocketAddr, lifetime: Duration) -> Attributes {
    let id = message.transaction_id();
    vec![
        Box::new(XorRelayedAddress::new(relayed, id)),
        Box::new(Lifetime::new(seconds(lifetime))),
        Box::new(XorMappedAddress::new(client, id)),
    ]
}

fn requested_family(message: &Message<'_>) -> Option<AddressFamily> {
    message.attribute::<RequestedAddressFamily>().ok().map(|requested| requested.family())
}

fn seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}
