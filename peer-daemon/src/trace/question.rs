//! What is asked: written by the command, read and checked by the daemon.

use std::net::IpAddr;

use ipnet::IpNet;
use peer_dataplane::flows::{End, Protocol};
use peer_dataplane::observe::Follow;
use peer_dataplane::trace::{MAX_LEN, Packet};

use crate::admin::Known;
use crate::cli::TraceArgs;
use crate::flows::{BadField, Query, check_address, number, peers_of};

/// Longest that packets are followed.
pub(crate) const MAX_SECONDS: u16 = 3600;

const DEFAULT_SECONDS: u16 = 60;
const DEFAULT_SOURCE_PORT: u16 = 40_000;
const PROTOCOL_FIX: &str = "write tcp, udp, icmp, or a number from 0 to 255";

impl From<&TraceArgs> for Query {
    fn from(args: &TraceArgs) -> Self {
        let text = |number: Option<u16>| number.map(|number| number.to_string());
        Self::of([
            ("from", args.from.clone()),
            ("to", args.to.clone()),
            ("protocol", args.proto.clone()),
            ("port", text(args.port)),
            ("sport", text(args.sport)),
            ("ttl", args.ttl.map(|ttl| ttl.to_string())),
            ("size", text(args.size)),
            ("seconds", args.live.then(|| args.seconds.to_string())),
        ])
    }
}

/// Whether a text could name a protocol: returns it as it is.
pub(crate) fn check_protocol(text: &str) -> Result<String, String> {
    let named = matches!(text, "tcp" | "udp" | "icmp");
    if named || text.parse::<u8>().is_ok() { Ok(text.to_owned()) } else { Err(PROTOCOL_FIX.to_owned()) }
}

/// Fields as they were written.
#[derive(Default)]
struct Fields<'a> {
    from: Option<&'a str>,
    to: Option<&'a str>,
    protocol: Option<&'a str>,
    port: Option<u16>,
    sport: Option<u16>,
    ttl: Option<u8>,
    size: Option<u16>,
    seconds: Option<u16>,
}

impl<'a> Fields<'a> {
    fn read(query: &'a Query) -> Result<Self, BadField> {
        let mut fields = Self::default();
        for (field, value) in query.fields() {
            let refused = |fix| bad(field, value, fix);
            match field {
                "from" => fields.from = Some(value),
                "to" => fields.to = Some(value),
                "protocol" => {
                    check_protocol(value).map_err(refused)?;
                    fields.protocol = Some(value);
                }
                "port" => fields.port = Some(number(value, &(1..=u16::MAX)).map_err(refused)?),
                "sport" => fields.sport = Some(number(value, &(1..=u16::MAX)).map_err(refused)?),
                "ttl" => fields.ttl = Some(number(value, &(0..=u8::MAX)).map_err(refused)?),
                "size" => fields.size = Some(number(value, &(0..=MAX_LEN)).map_err(refused)?),
                "seconds" => fields.seconds = Some(number(value, &(1..=MAX_SECONDS)).map_err(refused)?),
                _ => {
                    let known = "the fields are from, to, protocol, port, sport, ttl, size and seconds";
                    return Err(refused(known.to_owned()));
                }
            }
        }
        Ok(fields)
    }
}

/// The packet that a query describes.
pub(super) fn described(query: &Query, known: &Known) -> Result<Packet, BadField> {
    let fields = Fields::read(query)?;
    let to_text = fields.to.unwrap_or_default();
    let to = host(to_text).map_err(|fix| bad("to", to_text, fix))?;
    let from_text = fields.from.unwrap_or_default();
    let from = sender(from_text, to, known).map_err(|fix| bad("from", from_text, fix))?;
    let protocol = match (fields.protocol, fields.port) {
        (Some("tcp"), _) | (None, Some(_)) => 6,
        (Some("udp"), _) => 17,
        (Some("icmp"), _) | (None, None) => icmp(to),
        (Some(number), _) => number.parse().map_err(|_| bad("protocol", number, PROTOCOL_FIX.to_owned()))?,
    };
    let port = match (protocol, fields.port) {
        (6 | 17, None) => return Err(bad("port", "", "write the port that the packet is for".to_owned())),
        (6 | 17, Some(port)) => port,
        (_, None) => 0,
        (_, Some(port)) => {
            return Err(bad("port", &port.to_string(), "only tcp and udp have ports: leave it out".to_owned()));
        }
    };
    let has_source_port = matches!(protocol, 6 | 17) || protocol == icmp(to);
    let sport = if has_source_port { fields.sport.unwrap_or(DEFAULT_SOURCE_PORT) } else { 0 };
    let packet = Packet::new(protocol, End { addr: from, port: sport }, End { addr: to, port });
    Ok(Packet { ttl: fields.ttl.unwrap_or(packet.ttl), len: fields.size.unwrap_or(0), ..packet })
}

/// Which packets a query wants to follow, and for how many seconds.
pub(super) fn wanted(query: &Query, known: &Known) -> Result<(Follow, u16), BadField> {
    let fields = Fields::read(query)?;
    let remote = fields.to.map(|text| check_address(text).map_err(|fix| bad("to", text, fix))).transpose()?;
    let v4 = remote.map(|net| net.addr().is_ipv4());
    let peer =
        fields.from.map(|text| end_in_mesh(text, v4, known).map_err(|fix| bad("from", text, fix))).transpose()?;
    let protocol = match fields.protocol {
        None => None,
        Some("tcp") => Some(Protocol::Tcp),
        Some("udp") => Some(Protocol::Udp),
        Some("icmp") => Some(Protocol::Icmp),
        Some(other) => return Err(bad("protocol", other, "write tcp, udp or icmp, or leave it out".to_owned())),
    };
    let follow = Follow { peer, remote, protocol, peer_port: fields.sport, remote_port: fields.port };
    Ok((follow, fields.seconds.unwrap_or(DEFAULT_SECONDS)))
}

fn bad(field: &str, value: &str, fix: String) -> BadField {
    BadField { field: field.to_owned(), value: value.to_owned(), fix }
}

fn icmp(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 1 } else { 58 }
}

fn host(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "write one address, such as 10.1.2.3".to_owned())
}

/// An address as it stands, or the first one of a peer that is of the family of `to`.
fn sender(text: &str, to: IpAddr, known: &Known) -> Result<IpAddr, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return if addr.is_ipv4() == to.is_ipv4() {
            Ok(addr)
        } else {
            Err(format!("write an address of the family of {to}"))
        };
    }
    end_in_mesh(text, Some(to.is_ipv4()), known).map(|net| net.addr())
}

/// A prefix as it stands, or the first one of a peer that is of the wanted family.
fn end_in_mesh(text: &str, v4: Option<bool>, known: &Known) -> Result<IpNet, String> {
    if let Ok(net) = check_address(text) {
        return Ok(net);
    }
    let ids = peers_of(text, &known.peers)?;
    if ids.len() > 1 {
        return Err(format!("{} peers have a key that begins so: write more of it", ids.len()));
    }
    let mut prefixes = ids.iter().flat_map(|id| known.prefixes(*id));
    let fitting = prefixes.find(|net| v4.is_none_or(|v4| net.addr().is_ipv4() == v4));
    fitting.copied().ok_or_else(|| "the peer has no address of this family: write one".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use peer_core::desired::Peer;
    use peer_core::key::PublicKey;

    use super::*;

    fn known() -> Known {
        let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let peer = |key, nets: &[IpNet]| Peer {
            public_key: PublicKey([key; 32]),
            preshared_key: None,
            endpoint: None,
            allowed_ips: nets.into(),
            persistent_keepalive: None,
        };
        Known {
            addresses: Vec::new(),
            peers: Arc::new([(1, PublicKey([1; 32])), (2, PublicKey([2; 32]))].into()),
            configured: [peer(1, &[net("100.64.0.10/32"), net("fd00:64::10/128")]), peer(2, &[net("100.64.0.11/32")])]
                .into(),
            rules: Arc::default(),
        }
    }

    fn packet(text: &str) -> Result<Packet, String> {
        described(&Query::parse(text), &known()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_packet_is_described_by_what_it_needs() {
        let tcp = packet("from=AQEB&to=198.51.100.80&port=80").expect("a packet");
        assert_eq!((tcp.protocol, tcp.source.addr.to_string().as_str()), (6, "100.64.0.10"));
        assert_eq!((tcp.source.port, tcp.destination.port, tcp.ttl, tcp.len), (40_000, 80, 64, 0));
        let echo = packet("from=AQEB&to=2001:db8::80&ttl=1&size=1400&sport=7").expect("a packet");
        assert_eq!(
            (echo.protocol, echo.source.addr.to_string().as_str()),
            (58, "fd00:64::10"),
            "of the other's family"
        );
        assert_eq!((echo.source.port, echo.destination.port, echo.ttl, echo.len), (7, 0, 1, 1400));
        let sctp = packet("from=10.0.0.1&to=10.0.0.2&protocol=132").expect("a packet");
        assert_eq!((sctp.protocol, sctp.source.port), (132, 0));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_fix() {
        for (text, parts) in [
            ("from=AQEB&to=10.0.0.0/8&port=80", ["to", "10.0.0.0/8", "one address"]),
            ("from=AQEB&port=80", ["to", "``", "one address"]),
            ("from=zzz&to=10.0.0.1&port=80", ["from", "zzz", "status"]),
            ("from=&to=10.0.0.1&port=80", ["from", "``", "write more of it"]),
            ("from=AgIC&to=fd00::1&port=80", ["from", "AgIC", "no address of this family"]),
            ("from=fd00::1&to=10.0.0.1&port=80", ["from", "fd00::1", "family of 10.0.0.1"]),
            ("from=AQEB&to=10.0.0.1&protocol=udp", ["port", "``", "write the port"]),
            ("from=AQEB&to=10.0.0.1&protocol=icmp&port=7", ["port", "`7`", "leave it out"]),
            ("from=AQEB&to=10.0.0.1&protocol=sctp", ["protocol", "sctp", "0 to 255"]),
            ("from=AQEB&to=10.0.0.1&size=9000", ["size", "9000", "3000"]),
            ("source=AQEB", ["source", "AQEB", "the fields are"]),
        ] {
            let error = packet(text).expect_err(text);
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn any_field_selects_what_is_followed() {
        let wanted = |text: &str| wanted(&Query::parse(text), &known()).map_err(|error| error.to_string());
        assert_eq!(wanted(""), Ok((Follow::default(), 60)));
        let (follow, seconds) =
            wanted("from=AQEB&to=2001:db8::/64&protocol=icmp&sport=7&port=9&seconds=5").expect("a filter");
        assert_eq!((follow.peer, seconds), ("fd00:64::10/128".parse().ok(), 5));
        assert_eq!((follow.remote_port, follow.peer_port), (Some(9), Some(7)));
        assert!(wanted("protocol=132").expect_err("none of ours").contains("leave it out"));
        assert!(wanted("seconds=4000").expect_err("too long").contains("3600"));
    }
}
