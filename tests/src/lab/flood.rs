//! Many flows at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::forge::Datagram;
use super::http::pattern_word;
use super::namespace::Namespace;
use crate::sys::packet_socket::PacketSocket;

/// Flows that may be unanswered at one time: few enough for every socket buffer on the way.
const WINDOW: usize = 64;
const PATIENCE: Duration = Duration::from_millis(500);
const TRIES: u8 = 4;

/// What came of a flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flood {
    /// Flows, each a socket and a service port of its own.
    pub flows: usize,
    /// Flows whose datagram came back.
    pub answered: usize,
}

/// Opens `sockets` sockets and sends from each of them to each of the `ports` of the echo service. All flows stay open
/// until the end.
///
/// # Errors
/// A socket cannot be opened or used.
pub fn flood(from: &Namespace, service: IpAddr, ports: Range<u16>, sockets: usize) -> Result<Flood> {
    let any: IpAddr = if service.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let open = || (0..sockets).map(|_| UdpSocket::bind((any, 0))).collect::<std::io::Result<Vec<_>>>();
    let sockets = from.enter(open)?;
    let mut total = Flood::default();
    for socket in &sockets {
        socket.set_read_timeout(Some(PATIENCE))?;
        let ports: Vec<u16> = ports.clone().collect();
        for window in ports.chunks(WINDOW) {
            total.flows += window.len();
            total.answered += exchange(socket, service, window)?;
        }
    }
    Ok(total)
}

/// Sends one datagram to each port and counts the ports that answered; what is lost on the way is sent again, with another
/// last byte: wireguard-go leaves a checksum that comes out as zero as it is, and over IPv6 nobody takes such a datagram
/// (RFC 8200 §8.1), however often it is sent.
fn exchange(socket: &UdpSocket, service: IpAddr, ports: &[u16]) -> Result<usize> {
    let mut waiting = ports.to_vec();
    let mut buffer = [0; 64];
    for attempt in 0..TRIES {
        for &port in &waiting {
            let [high, low] = port.to_be_bytes();
            socket.send_to(&[high, low, attempt], SocketAddr::new(service, port))?;
        }
        while !waiting.is_empty() {
            let Ok((length, sender)) = socket.recv_from(&mut buffer) else { break };
            let echoed = sender.ip() == service && length == 3 && buffer[..2] == sender.port().to_be_bytes();
            waiting.retain(|&port| !echoed || port != sender.port());
        }
        if waiting.is_empty() {
            break;
        }
    }
    Ok(ports.len() - waiting.len())
}

/// Sends datagrams of IPv4 out of a member's tunnel, each of a flow of its own: another source port, another destination
/// inside the `/24` of `network`, another destination port. Nobody answers. The same numbers make the same flows.
///
/// # Errors
/// The device refuses.
pub fn random_flows(from: &Namespace, source: Ipv4Addr, network: Ipv4Addr, numbers: Range<u64>) -> Result<()> {
    const CHUNK: usize = 512;
    let socket = from.enter(|| PacketSocket::open("wg0"))?;
    let [a, b, c, _] = network.octets();
    let mut chunk = Vec::with_capacity(CHUNK);
    for number in numbers.clone() {
        let word = pattern_word(number);
        let destination = Ipv4Addr::new(a, b, c, word as u8);
        let ports = [1024 | (word >> 16) as u16, 1024 | (word >> 32) as u16];
        chunk.push(Datagram::udp((source.into(), ports[0]), (destination.into(), ports[1]), b"flood").bytes()?);
        if chunk.len() == CHUNK || number + 1 == numbers.end {
            let mut left = &chunk[..];
            while !left.is_empty() {
                match socket.send_many(left) {
                    Ok(sent) => left = &left[sent..],
                    // The tunnel's queue is full: as fast as it goes, no faster.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => thread::yield_now(),
                    Err(error) => return Err(error.into()),
                }
            }
            chunk.clear();
        }
    }
    Ok(())
}
