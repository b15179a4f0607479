//! What a NAT does, seen from both sides (RFC 4787, as RFC 5780 tests it).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use peer_test_control::{StunServer, stun};

use crate::lab::addresses::{OTHER_SERVERS, OTHER_SERVERS6, SERVERS, SERVERS6};
use crate::lab::traffic::patient;
use crate::lab::{Internet, Namespace, Udp};

/// For what should come.
const PATIENCE: Duration = Duration::from_secs(3);
/// For what should not come.
const SHORT: Duration = Duration::from_millis(150);
/// Port of the client behind the NAT.
const CLIENT_PORT: u16 = 51820;
const STUN_PORTS: [u16; 2] = [3478, 3479];
const SENDER_PORTS: [u16; 2] = [4001, 4002];

/// On what a mapping or a filter depends, RFC 4787 §4.1 and §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// On nothing but the endpoint inside.
    EndpointIndependent,
    /// On the address outside.
    Address,
    /// On address and port outside.
    AddressAndPort,
}

/// What becomes of a datagram to a mapped address of the same box, RFC 4787 §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hairpin {
    /// It does not arrive.
    None,
    /// It arrives from the sender's mapped address.
    External,
    /// It arrives from another address.
    Internal,
}

/// What a NAT does to UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatBehaviour {
    /// Whether the port outside is another for another destination.
    pub mapping: Dependence,
    /// Whose datagrams come in to a mapping.
    pub filtering: Dependence,
    /// Whether the address outside is another than inside.
    pub translates: bool,
    /// Whether the port outside is the one inside.
    pub preserves_port: bool,
    /// What becomes of datagrams that turn around.
    pub hairpin: Hairpin,
}

/// Servers on the internet that show what a NAT does.
pub struct Probe {
    internet: Internet,
    /// At the first address both ports, then the second address.
    stun4: Vec<StunServer>,
    stun6: Vec<StunServer>,
}

impl Probe {
    /// Starts the servers.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub fn start(internet: &Internet) -> Result<Self> {
        let servers = |first: IpAddr, second: IpAddr| {
            let [one, other] = STUN_PORTS;
            let at = [(first, one), (first, other), (second, one)];
            at.iter().map(|at| internet.stun_server((*at).into())).collect::<Result<Vec<_>>>()
        };
        let (stun4, stun6) = (servers(SERVERS, OTHER_SERVERS)?, servers(SERVERS6, OTHER_SERVERS6)?);
        Ok(Self { internet: internet.clone(), stun4, stun6 })
    }

    /// Measures what lies between a host and the internet. `None`: no UDP gets through.
    ///
    /// # Errors
    /// A socket cannot be opened; the ways back and forth contradict each other.
    pub fn measure(&self, inside: &Namespace, at: IpAddr) -> Result<Option<NatBehaviour>> {
        let client = Udp::bind(inside, at, CLIENT_PORT)?;
        let servers = if at.is_ipv6() { &self.stun6 } else { &self.stun4 };
        let Some(first) = mapped(&client, servers[0].address())? else { return Ok(None) };
        let port = mapped(&client, servers[1].address())?.context("the second port does not answer")?;
        let address = mapped(&client, servers[2].address())?.context("the second address does not answer")?;
        let mapping = match (port == first, address == first) {
            (true, true) => Dependence::EndpointIndependent,
            (true, false) => Dependence::Address,
            (false, _) => Dependence::AddressAndPort,
        };
        client.close()?;
        Ok(Some(NatBehaviour {
            mapping,
            filtering: self.filtering(inside, at)?,
            translates: first.ip() != at,
            preserves_port: first.port() == CLIENT_PORT,
            hairpin: hairpin(inside, at, servers[0].address())?,
        }))
    }

    /// Lets one server be heard, then checks who else gets in by the same mapping.
    fn filtering(&self, inside: &Namespace, at: IpAddr) -> Result<Dependence> {
        let [first, second] = if at.is_ipv6() { [SERVERS6, OTHER_SERVERS6] } else { [SERVERS, OTHER_SERVERS] };
        let [one, other] = SENDER_PORTS;
        let bind = |address, port| Udp::bind(&self.internet.namespace, address, port);
        let (known, other_port, other_address) = (bind(first, one)?, bind(first, other)?, bind(second, one)?);
        let client = Udp::bind(inside, at, 0)?;
        client.send_to(b"first", known.address()?)?;
        let (_, outside) = known.receive(patient(PATIENCE))?.context("the first datagram does not arrive")?;
        other_address.send_to(b"other address", outside)?;
        other_port.send_to(b"other port", outside)?;
        known.send_to(b"known", outside)?;
        let mut came = Vec::new();
        // The one that must come tells when those before it should have come.
        while !came.contains(&b"known".to_vec()) {
            came.push(client.receive(patient(PATIENCE))?.context("the answer does not arrive")?.0);
        }
        while let Some((late, _)) = client.receive(SHORT)? {
            came.push(late);
        }
        let got = |content: &[u8]| came.iter().any(|datagram| datagram == content);
        Ok(match (got(b"other address"), got(b"other port")) {
            (true, _) => Dependence::EndpointIndependent,
            (false, true) => Dependence::Address,
            (false, false) => Dependence::AddressAndPort,
        })
    }
}

/// The address by which a STUN server sees a socket; `None`: no answer.
pub(super) fn mapped(client: &Udp, server: SocketAddr) -> Result<Option<SocketAddr>> {
    let request = stun::request();
    // As often as a client would ask: nothing is lost in a lab, but the first datagram may wait for a neighbour.
    for limit in [SHORT, SHORT, patient(SHORT)] {
        client.send_to(&request, server)?;
        while let Some((answer, from)) = client.receive(limit)? {
            if from == server
                && let Some(mapped) = stun::mapped_address(&answer, &request)
            {
                return Ok(Some(mapped));
            }
        }
    }
    Ok(None)
}

fn hairpin(inside: &Namespace, at: IpAddr, server: SocketAddr) -> Result<Hairpin> {
    let (sender, receiver) = (Udp::bind(inside, at, 0)?, Udp::bind(inside, at, 0)?);
    let of_sender = mapped(&sender, server)?.context("the server does not answer")?;
    let of_receiver = mapped(&receiver, server)?.context("the server does not answer")?;
    if of_receiver == receiver.address()? {
        // Nothing to turn around: both are in one network.
        return Ok(Hairpin::None);
    }
    sender.send_to(b"turn around", of_receiver)?;
    Ok(loop {
        match receiver.receive(SHORT)? {
            Some((datagram, from)) if datagram == b"turn around" => {
                break if from == of_sender { Hairpin::External } else { Hairpin::Internal };
            }
            Some(_) => {}
            None => break Hairpin::None,
        }
    })
}
