//! Single values. Each function takes a node, reports what is wrong with it, and then returns `None`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use peer_core::desired::PortRange;
use peer_core::net::is_whole_internet;
use toml::de::DeValue;

use crate::node::{Node, Sink};

/// Why not, and what to write instead.
type Refusal = (String, String);

pub(crate) fn string<'a>(node: &Node<'a>, example: &str, sink: &mut Sink) -> Option<&'a str> {
    let text = node.value().as_str();
    if text.is_none() {
        sink.refuse(node, format!("must be a string, not {}", kind(node)), format!("write {example}"));
    }
    text
}

pub(crate) fn boolean(node: &Node<'_>, sink: &mut Sink) -> Option<bool> {
    let value = node.value().as_bool();
    if value.is_none() {
        sink.refuse(node, format!("must be a boolean, not {}", kind(node)), "write true or false, without quotes");
    }
    value
}

/// A whole number in `range`.
pub(crate) fn integer<T: TryFrom<i64>>(node: &Node<'_>, range: RangeInclusive<i64>, sink: &mut Sink) -> Option<T> {
    let (min, max) = (range.start(), range.end());
    let Some(number) = node.value().as_integer() else {
        let fix = format!("write a number from {min} to {max}, without quotes");
        sink.refuse(node, format!("must be a number, not {}", kind(node)), fix);
        return None;
    };
    let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
    let value = number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
    if value.is_none() {
        sink.refuse(node, "is out of range", format!("write a number from {min} to {max}"));
    }
    value
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(node: &Node<'_>, choices: &[(&str, T)], sink: &mut Sink) -> Option<T> {
    let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
    let words = words.join(" or ");
    let text = string(node, &words, sink)?;
    let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        sink.refuse(node, "is none of the values there are", format!("write {words}"));
    }
    found
}

/// The elements of a list.
pub(crate) fn list<'a>(node: &Node<'a>, example: &str, sink: &mut Sink) -> Vec<Node<'a>> {
    node.array().unwrap_or_else(|| {
        sink.refuse(node, format!("must be a list, not {}", kind(node)), format!("write {example}"));
        Vec::new()
    })
}

/// A key, secret or not: of a secret one only the length is told.
pub(crate) fn key<K: FromStr>(node: &Node<'_>, sink: &mut Sink) -> Option<K> {
    let text = string(node, "a key in quotes, as peer-daemon genkey or pubkey prints it", sink)?;
    let key = text.parse().ok();
    if key.is_none() {
        let why = format!("{} characters that are no key", text.chars().count());
        sink.refuse(
            node,
            why,
            "write the 44 characters that peer-daemon genkey or pubkey prints, the last of them '='",
        );
    }
    key
}

/// A prefix without host bits.
pub(crate) fn network(node: &Node<'_>, sink: &mut Sink) -> Option<IpNet> {
    let prefix = prefix(node, sink)?;
    if prefix.trunc() != prefix {
        let fix = format!("write the network address: \"{}\"", prefix.trunc());
        sink.refuse(node, "has bits set behind the prefix length", fix);
        return None;
    }
    Some(prefix)
}

/// Prefixes without host bits, with their places.
pub(crate) fn networks<'a>(node: Option<Node<'a>>, example: &str, sink: &mut Sink) -> Vec<(Node<'a>, IpNet)> {
    let items = node.map_or(Vec::new(), |node| list(&node, example, sink));
    items.into_iter().filter_map(|item| network(&item, sink).map(|prefix| (item, prefix))).collect()
}

/// An address with a prefix length.
pub(crate) fn prefix(node: &Node<'_>, sink: &mut Sink) -> Option<IpNet> {
    let text = string(node, "an address and a prefix length, such as \"10.0.0.0/8\"", sink)?;
    parse_prefix(text).map_err(|(why, fix)| sink.refuse(node, why, fix)).ok()
}

/// An address of this node with the prefix length of its network.
pub(crate) fn own_address(node: &Node<'_>, sink: &mut Sink) -> Option<IpNet> {
    let net = prefix(node, sink)?;
    let ip = net.addr();
    let why = if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || ip == Ipv4Addr::BROADCAST {
        "is no address that a node can have"
    } else if is_whole_internet(&net) {
        "would make the whole Internet the overlay"
    } else if is_ends_of_network(net) {
        "is the network's own address or its broadcast address"
    } else {
        return Some(net);
    };
    sink.refuse(node, why, "write the node's overlay address with the overlay's prefix length: \"100.64.0.1/16\"");
    None
}

/// The address and port of a peer.
pub(crate) fn endpoint(node: &Node<'_>, sink: &mut Sink) -> Option<SocketAddr> {
    let text = string(node, "an address and a port, such as \"192.0.2.1:51820\"", sink)?;
    parse_endpoint(text).map_err(|(why, fix)| sink.refuse(node, why, fix)).ok()
}

/// A port as a number, or a port or range as a string.
pub(crate) fn ports(node: &Node<'_>, sink: &mut Sink) -> Option<PortRange> {
    if node.value().is_integer() {
        return integer(node, 1..=65_535, sink).map(|port| PortRange { min: port, max: port });
    }
    let text = string(node, "a port as 80 or a range as \"8000-8100\"", sink)?;
    parse_ports(text).map_err(|(why, fix)| sink.refuse(node, why, fix)).ok()
}

/// The name of a network device, as the kernel allows it and without what the TUN driver would replace.
pub(crate) fn device_name(node: &Node<'_>, sink: &mut Sink) -> Option<String> {
    let text = string(node, "a device's name, such as \"eth0\"", sink)?;
    let fix = "write 1 to 15 letters, digits, '-', '_' or '.'";
    let bad = |c: char| !c.is_ascii_graphic() || matches!(c, '/' | ':' | '%');
    let why = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > 15 {
        format!("has {} bytes, the kernel allows 15", text.len())
    } else if let Some(c) = text.chars().find(|&c| bad(c)) {
        format!("must not have {c:?} in it")
    } else if matches!(text, "." | ".." | "all" | "default") {
        "is a name that the kernel keeps for itself".to_owned()
    } else {
        return Some(text.to_owned());
    };
    sink.refuse(node, why, fix);
    None
}

/// What kind of value it is, with its article.
pub(crate) fn kind(node: &Node<'_>) -> &'static str {
    match node.value() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn parse_prefix(text: &str) -> Result<IpNet, Refusal> {
    let refused = |why: &str, fix: String| Err((why.to_owned(), fix));
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return refused("has no IP address in it", "write one, such as \"10.0.0.0/8\" or \"fd00::/8\"".to_owned());
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let Some(length) = length else {
        return refused("has no prefix length", format!("write \"{address}/{most}\" for this address alone"));
    };
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let Some(length) = length.parse().ok().filter(|length| digits && *length <= most) else {
        return refused("has a bad prefix length", format!("write one from 0 to {most}, such as \"{address}/{most}\""));
    };
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
        && length >= 96
    {
        return refused("is IPv4 in IPv6 notation", format!("write \"{v4}/{}\"", length - 96));
    }
    IpNet::new(address, length).map_err(|error| (error.to_string(), format!("write one from 0 to {most}")))
}

fn parse_endpoint(text: &str) -> Result<SocketAddr, Refusal> {
    let Ok(endpoint) = text.parse::<SocketAddr>() else { return Err(why_no_endpoint(text)) };
    let (ip, port) = (endpoint.ip(), endpoint.port());
    let refused = |why: &str, fix: String| Err((why.to_owned(), fix));
    if port == 0 {
        return refused(
            "port 0 is none",
            format!("write the port that the peer listens on: \"{}\"", with_port(ip, 51820)),
        );
    }
    if ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST {
        return refused("is no address of a host", "write the address that the peer is reached at".to_owned());
    }
    if let SocketAddr::V6(v6) = endpoint {
        if let Some(v4) = v6.ip().to_ipv4_mapped() {
            return refused("is IPv4 in IPv6 notation", format!("write \"{v4}:{port}\""));
        }
        if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 {
            let fix = format!("write the number of the interface behind it: \"[{}%2]:{port}\"", v6.ip());
            return refused("is a link-local address without its interface", fix);
        }
    }
    Ok(endpoint)
}

fn why_no_endpoint(text: &str) -> Refusal {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port_number = port.parse::<u16>().ok().filter(|port| *port > 0);
    // `2001:db8::1:51820` is meant as address and port more often than not.
    if let (Ok(IpAddr::V6(ip)), Some(number)) = (host.parse(), port_number) {
        return ("IPv6 needs brackets".to_owned(), format!("write \"{}\"", with_port(ip.into(), number)));
    }
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return ("a port is missing".to_owned(), format!("write \"{}\"", with_port(ip, 51820)));
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = host.parse::<IpAddr>() {
        let fix = format!("write a port from 1 to 65535: \"{}\"", with_port(ip, 51820));
        return ("has a bad port".to_owned(), fix);
    }
    let example = with_port(Ipv4Addr::new(192, 0, 2, 1).into(), port_number.unwrap_or(51820));
    let name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if name && host.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        let fix = format!("write the IP address that the name stands for, such as \"{example}\"");
        return ("names are not looked up".to_owned(), fix);
    }
    ("has no IP address in it".to_owned(), format!("write an address and a port, such as \"{example}\""))
}

fn with_port(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

fn parse_ports(text: &str) -> Result<PortRange, Refusal> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let (min, max) = match text.split_once('-') {
        Some((min, max)) => (port(min), port(max)),
        None => (port(text), port(text)),
    };
    match (min, max) {
        (Some(min), Some(max)) if min <= max => Ok(PortRange { min, max }),
        (Some(min), Some(max)) => Err(("the range ends before it begins".to_owned(), format!("write \"{max}-{min}\""))),
        _ => {
            let fix = "write ports from 1 to 65535, such as 80, \"80\" or \"8000-8100\"; leave ports out for all";
            Err(("is no port and no range".to_owned(), fix.to_owned()))
        }
    }
}

/// The first and last address of an IPv4 network of more than two.
fn is_ends_of_network(net: IpNet) -> bool {
    let ends = |net: Ipv4Net| net.prefix_len() < 31 && (net.addr() == net.network() || net.addr() == net.broadcast());
    matches!(net, IpNet::V4(net) if ends(net))
}
