//! The server by itself, in virtual time: request by request, and with a client of another project.

mod client;

use std::time::UNIX_EPOCH;

use turn_types::attribute::{
    ChannelNumber, Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};
use turn_types::stun::attribute::{ErrorCode, Nonce, Realm, Username, XorMappedAddress};
use turn_types::stun::message::{IntegrityAlgorithm, LongTermCredentials, MessageWriteVec, Method};
use turn_types::stun::prelude::{AttributeWrite, MessageWrite as _, MessageWriteExt as _};
use turn_types::{AddressFamily, message};

use super::*;
use crate::turn::Credentials;

const SECRET: &str = "t";

/// Makes an attribute of a request.
type Attribute = dyn Fn(&MessageWriteVec) -> Box<dyn AttributeWrite>;

/// Numbers relayed ports.
#[derive(Default)]
struct Ports {
    next: u16,
    closed: Vec<SocketAddr>,
}

impl Relays for Ports {
    fn supports(&self, v6: bool) -> bool {
        !v6
    }

    fn open(&mut self, _: bool) -> io::Result<SocketAddr> {
        self.next += 1;
        if self.next > 3 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(relayed(self.next)) }
    }

    fn close(&mut self, relayed: SocketAddr) {
        self.closed.push(relayed);
    }
}

struct Bench {
    server: Protocol,
    ports: Ports,
    now: Now,
    credentials: Credentials,
}

fn relayed(number: u16) -> SocketAddr {
    ([192, 0, 2, 254], 49_152 + number).into()
}

fn client(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 5000).into()
}

fn peer(number: u8) -> SocketAddr {
    ([198, 51, 100, number], 6000).into()
}

impl Bench {
    fn new() -> Self {
        let wall = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let now = Now { instant: Instant::now(), wall };
        let server = Protocol::new(SECRET, Lifetimes::default(), 1, now);
        let credentials = Credentials::issue(SECRET, wall + Duration::from_secs(86_400));
        Self { server, ports: Ports::default(), now, credentials }
    }

    fn advance(&mut self, seconds: u64) {
        let time = Duration::from_secs(seconds);
        self.now = Now { instant: self.now.instant + time, wall: self.now.wall + time };
        self.server.handle_timeout(self.now, &mut self.ports);
    }

    fn send(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Output> {
        self.server.handle_client(self.now, from, datagram, &mut self.ports)
    }

    /// A signed request with the server's nonce.
    fn signed(&self, method: Method, attributes: &[&Attribute]) -> Vec<u8> {
        let mut request = Message::builder_request(method, MessageWriteVec::new());
        for attribute in attributes {
            let attribute = attribute(&request);
            request.add_attribute(attribute.as_ref()).expect("fits");
        }
        request.add_attribute(&Username::new(&self.credentials.user).expect("user")).expect("fits");
        request.add_attribute(&Realm::new(auth::REALM).expect("realm")).expect("fits");
        request.add_attribute(&Nonce::new(&self.server.auth.nonce()).expect("nonce")).expect("fits");
        let Credentials { user, password } = self.credentials.clone();
        let key = LongTermCredentials::new(user, password).to_key(auth::REALM.to_owned());
        let key = key.make_key(IntegrityAlgorithm::Sha1);
        request.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1).expect("fits");
        request.finish()
    }

    /// The code of the response to a request; 0: success.
    fn code(&mut self, from: SocketAddr, request: &[u8]) -> u16 {
        let Some(Output::ToClient(response)) = self.send(from, request) else { panic!("no answer to {request:02x?}") };
        code_of(&response)
    }

    fn allocate(&mut self, from: SocketAddr) -> u16 {
        let request = self.signed(ALLOCATE, &[&udp]);
        self.code(from, &request)
    }

    fn permit(&mut self, from: SocketAddr, to: SocketAddr) -> u16 {
        let request = self.signed(CREATE_PERMISSION, &[&move |message| address(to, message)]);
        self.code(from, &request)
    }

    fn bind(&mut self, from: SocketAddr, to: SocketAddr, number: u16) -> u16 {
        let channel = move |_: &MessageWriteVec| -> Box<dyn AttributeWrite> { Box::new(ChannelNumber::new(number)) };
        let request = self.signed(CHANNEL_BIND, &[&channel, &move |message| address(to, message)]);
        self.code(from, &request)
    }

    fn refresh(&mut self, from: SocketAddr, seconds: u32) -> u16 {
        let lifetime = move |_: &MessageWriteVec| -> Box<dyn AttributeWrite> { Box::new(Lifetime::new(seconds)) };
        let request = self.signed(REFRESH, &[&lifetime]);
        self.code(from, &request)
    }

    fn hear_peer(&mut self, from: SocketAddr, data: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        self.server.handle_peer(self.now, relayed(1), from, data)
    }
}

fn code_of(response: &[u8]) -> u16 {
    let response = Message::from_bytes(response).expect("message");
    response.attribute::<ErrorCode>().map_or(0, |code| code.code())
}

fn udp(_: &MessageWriteVec) -> Box<dyn AttributeWrite> {
    Box::new(RequestedTransport::new(RequestedTransport::UDP))
}

fn address(peer: SocketAddr, message: &MessageWriteVec) -> Box<dyn AttributeWrite> {
    Box::new(XorPeerAddress::new(peer, message.transaction_id()))
}

fn to_peer(number: u8, data: &[u8]) -> Option<Output> {
    Some(Output::ToPeer { relayed: relayed(1), peer: peer(number), data: data.to_vec() })
}

#[test]
fn unsigned_requests_get_what_the_next_attempt_needs() {
    let mut bench = Bench::new();
    let request = Message::builder_request(ALLOCATE, MessageWriteVec::new()).finish();
    let Some(Output::ToClient(response)) = bench.send(client(1), &request) else { panic!("no answer") };
    let response = Message::from_bytes(&response).expect("message");
    assert_eq!(response.attribute::<ErrorCode>().expect("code").code(), 401);
    assert_eq!(response.attribute::<Realm>().expect("realm").realm(), auth::REALM);
    assert_eq!(response.attribute::<Nonce>().expect("nonce").nonce(), bench.server.auth.nonce());
    assert!(bench.server.relayed().is_empty());
}

#[test]
fn users_are_held_to_secret_time_and_nonce() {
    let mut bench = Bench::new();
    let valid = bench.credentials.clone();
    bench.credentials.password = Credentials::issue("another", bench.now.wall).password;
    assert_eq!(bench.allocate(client(1)), 401, "wrong password");
    bench.credentials = Credentials::issue(SECRET, bench.now.wall);
    assert_eq!(bench.allocate(client(1)), 401, "expired");
    bench.credentials = valid;
    let request = bench.signed(ALLOCATE, &[&udp]);
    bench.server.expire_nonces(bench.now);
    assert_eq!(bench.code(client(1), &request), 438, "an old nonce");
    assert_eq!(bench.allocate(client(1)), 0);
    bench.server.set_secret("rotated");
    assert_eq!(bench.refresh(client(1), 600), 401, "the secret has changed");
    bench.credentials = Credentials::issue("rotated", bench.now.wall + Duration::from_secs(60));
    assert_eq!(bench.refresh(client(1), 600), 441, "the allocation is another user's");
    assert_eq!(bench.server.seen().errors, BTreeMap::from([(401, 3), (438, 1), (441, 1)]));
}

#[test]
fn a_nonce_lives_an_hour() {
    let mut bench = Bench::new();
    let request = bench.signed(ALLOCATE, &[&udp]);
    bench.advance(3600);
    assert_eq!(bench.code(client(1), &request), 0);
    let request = bench.signed(ALLOCATE, &[&udp]);
    bench.advance(1);
    assert_eq!(bench.code(client(2), &request), 438);
}

#[test]
fn an_allocation_is_made_once() {
    let mut bench = Bench::new();
    let request = bench.signed(ALLOCATE, &[&udp]);
    let Some(Output::ToClient(first)) = bench.send(client(1), &request) else { panic!("no answer") };
    let response = Message::from_bytes(&first).expect("message");
    let id = response.transaction_id();
    assert_eq!(response.attribute::<XorRelayedAddress>().expect("relayed").addr(id), relayed(1));
    assert_eq!(response.attribute::<XorMappedAddress>().expect("mapped").addr(id), client(1));
    assert_eq!(response.attribute::<Lifetime>().expect("lifetime").seconds(), 600);
    assert_eq!(bench.send(client(1), &request), Some(Output::ToClient(first)), "a repetition");
    assert_eq!(bench.allocate(client(1)), 437, "the same 5-tuple");
    assert_eq!(bench.refresh(client(2), 600), 437, "no allocation");
    assert_eq!(bench.server.relayed(), BTreeMap::from([(client(1), relayed(1))]));
    assert_eq!(bench.refresh(client(1), 0), 0);
    assert_eq!(bench.ports.closed, [relayed(1)]);
    assert_eq!(bench.refresh(client(1), 600), 437, "deleted");
}

#[test]
fn what_cannot_be_allocated_is_refused_by_its_code() {
    let mut bench = Bench::new();
    let none = bench.signed(ALLOCATE, &[]);
    assert_eq!(bench.code(client(1), &none), 400);
    let tcp = bench.signed(ALLOCATE, &[&|_| Box::new(RequestedTransport::new(RequestedTransport::TCP))]);
    assert_eq!(bench.code(client(1), &tcp), 442);
    let v6 =
        |_: &MessageWriteVec| -> Box<dyn AttributeWrite> { Box::new(RequestedAddressFamily::new(AddressFamily::IPV6)) };
    let v6 = bench.signed(ALLOCATE, &[&udp, &v6]);
    assert_eq!(bench.code(client(1), &v6), 440);
    let even =
        |_: &MessageWriteVec| -> Box<dyn AttributeWrite> { Box::new(turn_types::attribute::EvenPort::new(false)) };
    let even = bench.signed(ALLOCATE, &[&udp, &even]);
    assert_eq!(bench.code(client(1), &even), 420);
    assert_eq!([1, 2, 3, 4].map(|number| bench.allocate(client(number))), [0, 0, 0, 508]);
    let other = bench.signed(message::CONNECT, &[]);
    assert_eq!(bench.code(client(1), &other), 400);
}

#[test]
fn peers_need_a_permission_for_five_minutes() {
    let mut bench = Bench::new();
    let data = |number| {
        let mut send = Message::builder_indication(SEND, MessageWriteVec::new());
        let id = send.transaction_id();
        send.add_attribute(&XorPeerAddress::new(peer(number), id)).expect("fits");
        send.add_attribute(&Data::new(b"out")).expect("fits");
        send.finish()
    };
    assert_eq!(bench.permit(client(1), peer(1)), 437);
    assert_eq!(bench.allocate(client(1)), 0);
    assert_eq!((bench.send(client(1), &data(1)), bench.hear_peer(peer(1), b"in")), (None, None));
    assert_eq!(bench.permit(client(1), peer(1)), 0);
    assert_eq!(bench.send(client(1), &data(1)), to_peer(1, b"out"));
    let (to, indication) = bench.hear_peer(peer(1), b"in").expect("relayed");
    let indication = Message::from_bytes(&indication).expect("message");
    assert_eq!((to, indication.method()), (client(1), message::DATA));
    assert_eq!(indication.attribute::<XorPeerAddress>().expect("peer").addr(indication.transaction_id()), peer(1));
    assert_eq!(indication.attribute::<Data<'_>>().expect("data").data(), b"in");
    let other_port = SocketAddr::new(peer(1).ip(), 1);
    assert!(bench.hear_peer(other_port, b"in").is_some(), "permissions are for addresses, not ports");
    assert_eq!((bench.send(client(1), &data(2)), bench.hear_peer(peer(2), b"in")), (None, None));
    assert_eq!(bench.permit(client(1), "[2001:db8::1]:1".parse().expect("address")), 443);
    bench.advance(299);
    assert_eq!(bench.send(client(1), &data(1)), to_peer(1, b"out"));
    bench.advance(1);
    assert_eq!((bench.send(client(1), &data(1)), bench.hear_peer(peer(1), b"in")), (None, None));
}

#[test]
fn channels_lead_to_one_peer_each() {
    let mut bench = Bench::new();
    assert_eq!(bench.allocate(client(1)), 0);
    assert_eq!([0x3fff, 0x5000].map(|number| bench.bind(client(1), peer(1), number)), [400, 400]);
    assert_eq!(bench.bind(client(1), peer(1), 0x4000), 0);
    assert_eq!(bench.bind(client(1), peer(1), 0x4001), 400, "the peer has a channel");
    assert_eq!(bench.bind(client(1), peer(2), 0x4000), 400, "the channel has a peer");
    assert_eq!(bench.bind(client(1), peer(1), 0x4000), 0, "a refresh");
    assert_eq!(bench.send(client(1), b"\x40\x00\x00\x03out"), to_peer(1, b"out"));
    assert_eq!(bench.send(client(1), b"\x40\x01\x00\x03out"), None);
    assert_eq!(bench.hear_peer(peer(1), b"in"), Some((client(1), b"\x40\x00\x00\x02in".to_vec())));
    bench.advance(301);
    assert_eq!(bench.send(client(1), b"\x40\x00\x00\x03out"), None, "the permission has expired");
    assert_eq!(bench.permit(client(1), peer(1)), 0);
    assert_eq!(bench.send(client(1), b"\x40\x00\x00\x03out"), to_peer(1, b"out"));
    assert_eq!(bench.refresh(client(1), 3600), 0);
    bench.advance(300);
    assert_eq!(bench.permit(client(1), peer(1)), 0);
    assert_eq!(bench.send(client(1), b"\x40\x00\x00\x03out"), None, "the channel has expired");
}

#[test]
fn an_allocation_lives_as_long_as_granted() {
    let mut bench = Bench::new();
    assert_eq!(bench.allocate(client(1)), 0);
    assert_eq!(bench.server.poll_timeout(), Some(bench.now.instant + Duration::from_secs(600)));
    bench.advance(599);
    assert_eq!(bench.refresh(client(1), 100_000), 0);
    assert_eq!(bench.server.poll_timeout(), Some(bench.now.instant + Duration::from_secs(3600)));
    bench.advance(3599);
    assert_eq!(bench.server.relayed().len(), 1);
    bench.advance(1);
    assert_eq!((bench.server.relayed().len(), &bench.ports.closed[..]), (0, &[relayed(1)][..]));
    assert_eq!(bench.server.poll_timeout(), None);
}
