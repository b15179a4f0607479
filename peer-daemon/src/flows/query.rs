//! The filter as a query string: written by the command, read and checked by the daemon.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;
use peer_dataplane::flows::{Filter, KINDS, PeerFilter, Protocol};

use crate::cli::FlowsArgs;
use crate::peers::PeerKeys;

/// Flows that one answer may have: its memory is bounded.
pub(crate) const MAX_LIMIT: usize = 10_000;
/// Flows of an answer, if nothing else is asked for.
pub(crate) const DEFAULT_LIMIT: usize = 1000;
/// Names of protocols.
pub(crate) const PROTOCOLS: [(&str, Protocol); 3] =
    [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("icmp", Protocol::Icmp)];

/// Names of verdicts.
pub(crate) const VERDICTS: [(&str, Verdict); 3] =
    [("allowed", Verdict::Allowed), ("denied", Verdict::Denied), ("any", Verdict::Any)];

const PEER_FIX: &str = "write a public key, its first characters, or an overlay address or prefix such as 100.64.0.10";
const ADDRESS_FIX: &str = "write an address or a prefix such as 10.1.2.0/24";

/// Fields and values, not yet checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

/// A query, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) filter: Filter,
    pub(super) verdict: Verdict,
    pub(super) limit: usize,
}

/// Whether flows are wanted, or tuples of packets that were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Denied,
    Any,
}

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: `{value}` cannot be used: {fix}")]
pub(crate) struct BadField {
    pub(crate) field: String,
    pub(crate) value: String,
    pub(crate) fix: String,
}

impl From<&FlowsArgs> for Query {
    fn from(args: &FlowsArgs) -> Self {
        let fields = [
            ("peer", args.peer.clone()),
            ("address", args.address.clone()),
            ("port", args.port.map(|port| port.to_string())),
            ("protocol", args.protocol.clone()),
            ("kind", args.kind.clone()),
            ("verdict", Some(args.verdict.clone())),
            ("limit", Some(args.limit.to_string())),
        ];
        Self::of(fields)
    }
}

impl Query {
    /// From fields that have a value.
    pub(crate) fn of<const N: usize>(fields: [(&str, Option<String>); N]) -> Self {
        Self(fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))).collect())
    }

    /// Fields and values.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(field, value)| (field.as_str(), value.as_str()))
    }

    /// Reads a query string.
    pub(crate) fn parse(text: &str) -> Self {
        let field = |part: &str| {
            let (field, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(field), decode(value))
        };
        Self(text.split('&').filter(|part| !part.is_empty()).map(field).collect())
    }

    /// What is asked. `keys` are those of the peers.
    pub(super) fn check(&self, keys: &PeerKeys) -> Result<Wanted, BadField> {
        let mut wanted = Wanted { filter: Filter::default(), verdict: Verdict::Allowed, limit: DEFAULT_LIMIT };
        let Wanted { filter, verdict, limit } = &mut wanted;
        for (field, value) in &self.0 {
            let refused = |fix: String| BadField { field: field.clone(), value: value.clone(), fix };
            match field.as_str() {
                "peer" => filter.peer = Some(peer(value, keys).map_err(refused)?),
                "address" => filter.address = Some(check_address(value).map_err(refused)?),
                "port" => filter.port = Some(number(value, &(1..=u16::MAX)).map_err(refused)?),
                "protocol" => filter.protocol = Some(choice(value, &PROTOCOLS).map_err(refused)?),
                "kind" => filter.kind = Some(choice(value, &KINDS).map_err(refused)?),
                "verdict" => *verdict = choice(value, &VERDICTS).map_err(refused)?,
                "limit" => *limit = number(value, &(1..=MAX_LIMIT)).map_err(refused)?,
                _ => {
                    let fields = "the fields are peer, address, port, protocol, kind, verdict and limit";
                    return Err(refused(fields.to_owned()));
                }
            }
        }
        Ok(wanted)
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (field, value)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "&" };
            write!(f, "{separator}{field}={}", encode(value))?;
        }
        Ok(())
    }
}

/// An address, or a prefix, as a prefix.
pub(crate) fn check_address(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse::<IpNet>()).map_err(|_| ADDRESS_FIX.to_owned())
}

/// Whether a text could name a peer: returns it as it is.
pub(crate) fn check_key_or_address(text: &str) -> Result<String, String> {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let key = (1..=44).contains(&text.len()) && text.bytes().all(base64);
    if key || check_address(text).is_ok() { Ok(text.to_owned()) } else { Err(PEER_FIX.to_owned()) }
}

fn peer(text: &str, keys: &PeerKeys) -> Result<PeerFilter, String> {
    if let Ok(net) = check_address(text) {
        return Ok(PeerFilter::Overlay(net));
    }
    check_key_or_address(text)?;
    peers_of(text, keys).map(PeerFilter::Ids)
}

/// Peers whose keys begin so; at least one.
pub(crate) fn peers_of(text: &str, keys: &PeerKeys) -> Result<BTreeSet<u32>, String> {
    let ids = keys.iter().filter(|(_, key)| key.to_string().starts_with(text)).map(|(id, _)| id);
    let ids: BTreeSet<u32> = ids.collect();
    if ids.is_empty() {
        return Err("no peer has a key that begins so: `peer-daemon status` lists them".to_owned());
    }
    Ok(ids)
}

pub(crate) fn number<T: FromStr + PartialOrd + fmt::Display>(
    text: &str,
    range: &RangeInclusive<T>,
) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("write a number from {} to {}", range.start(), range.end()))
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    chosen.ok_or_else(|| format!("write one of {}", names()))
}

/// RFC 3986 §2.1. What is reserved is encoded, as `+` and `/` of keys are.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).filter(|_| *first == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use peer_common::FlowKind;
    use peer_core::key::PublicKey;

    use super::*;

    fn check(text: &str) -> Result<Wanted, BadField> {
        let keys = [(1, PublicKey([0xfb; 32])), (2, PublicKey([0xff; 32])), (3, PublicKey([1; 32]))].into();
        Query::parse(text).check(&keys)
    }

    #[test]
    fn fields_make_a_filter() {
        let all = Wanted { filter: Filter::default(), verdict: Verdict::Allowed, limit: DEFAULT_LIMIT };
        assert_eq!(check(""), Ok(all));
        let wanted = check("address=10.0.0.1&port=80&protocol=tcp&kind=routed&verdict=any&limit=5").expect("a filter");
        assert_eq!((wanted.limit, wanted.verdict), (5, Verdict::Any));
        let filter = wanted.filter;
        assert_eq!(filter.address, "10.0.0.1/32".parse().ok());
        assert_eq!(
            (filter.port, filter.protocol, filter.kind),
            (Some(80), Some(Protocol::Tcp), Some(FlowKind::Routed))
        );
    }

    #[test]
    fn a_peer_is_named_by_key_or_its_beginning_or_address() {
        let peer =
            |text: &str| check(&Query(vec![("peer".to_owned(), text.to_owned())]).to_string()).expect(text).filter.peer;
        assert_eq!(peer(&PublicKey([0xfb; 32]).to_string()), Some(PeerFilter::Ids([1].into())), "with + and /");
        assert_eq!(peer("/"), Some(PeerFilter::Ids([2].into())));
        assert_eq!(peer("AQEB"), Some(PeerFilter::Ids([3].into())));
        assert_eq!(peer("fd00::/64"), Some(PeerFilter::Overlay("fd00::/64".parse().expect("a prefix"))));
    }

    #[test]
    fn bad_values_are_refused_with_field_value_and_fix() {
        for (text, value, fix) in [
            ("peer=10.0.0", "10.0.0", "overlay address"),
            ("peer=Zm9v", "Zm9v", "status"),
            ("peer=", "", "public key"),
            ("address=10.0.0.0%2F40", "10.0.0.0/40", "10.1.2.0/24"),
            ("port=0", "0", "from 1 to 65535"),
            ("port=http", "http", "from 1 to 65535"),
            ("protocol=sctp", "sctp", "tcp, udp, icmp"),
            ("kind=nat", "nat", "masqueraded, routed, to_node, from_node, from_lan"),
            ("verdict=dropped", "dropped", "allowed, denied, any"),
            ("limit=10001", "10001", "from 1 to 10000"),
            ("ports=80", "80", "the fields are"),
        ] {
            let error = check(text).expect_err(text).to_string();
            let field = text.split('=').next().expect("a field");
            assert!(error.starts_with(&format!("{field}: `{value}`")) && error.contains(fix), "{text}: {error}");
        }
    }

    #[test]
    fn any_text_comes_through_and_broken_codes_stay() {
        for text in ["a+b/c=", "%", "%4", "%zz", "ä&=", "100.64.0.0/10"] {
            assert_eq!(decode(&encode(text)), text);
        }
        assert_eq!(["%", "%4", "%zz", "a%2Fb"].map(decode), ["%", "%4", "%zz", "a/b"]);
    }
}
