//! Chains that see what the kernel forwards, by nfnetlink: those of nft, and of iptables where that is nft's. Reads only; needs
//! CAP_NET_ADMIN. `iptables-legacy` keeps its rules behind another interface, which this file does not read.

use std::fs;
use std::io;

use rtnetlink::packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETCHAIN`, of linux/netfilter/nfnetlink.h and nf_tables.h.
const GET_CHAIN: u16 = (10 << 8) | 4;
/// Family, version and number that stand before the attributes (`struct nfgenmsg`).
const GENERIC: usize = 4;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// `NF_DROP`.
const DROP: u32 = 0;

/// A base chain at the forward hook whose policy is to drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardChain {
    /// `ip`, `ip6` or `inet`.
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) name: String,
    /// Whether it has rules, which may accept.
    pub(crate) has_rules: bool,
}

impl ForwardChain {
    /// Whether it sees packets of that family.
    pub(crate) fn sees(&self, v4: bool) -> bool {
        self.family == "inet" || (self.family == "ip") == v4
    }
}

/// The chains that drop what the kernel forwards unless a rule accepts it. None where nf_tables is not loaded: to ask would load it.
pub(crate) fn closed_forward_chains() -> io::Result<Vec<ForwardChain>> {
    if !is_loaded() {
        return Ok(Vec::new());
    }
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&question(), 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let len = NetlinkBuffer::new_checked(rest).map_err(invalid)?.length() as usize;
            let answer = NetlinkMessage::<Chain>::deserialize(&rest[..len]).map_err(invalid)?;
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(found),
                // A kernel without nf_tables.
                NetlinkPayload::Error(error) if error.to_io().raw_os_error() == Some(libc::EINVAL) => {
                    return Ok(found);
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(Chain(chain)) => found.extend(chain),
                _ => {}
            }
        }
    }
}

/// A kernel that has no modules has it, or answers that it has not.
fn is_loaded() -> bool {
    fs::read_to_string("/proc/modules")
        .map_or(true, |modules| modules.lines().any(|line| line.starts_with("nf_tables ")))
}

/// All chains, of all families and tables.
fn question() -> Vec<u8> {
    const LEN: usize = 16 + GENERIC;
    let mut message = Vec::with_capacity(LEN);
    message.extend((LEN as u32).to_ne_bytes());
    message.extend(GET_CHAIN.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend([0; 8 + GENERIC]);
    message
}

/// A chain as it is listed, if it is one of those asked for.
#[derive(Debug)]
struct Chain(Option<ForwardChain>);

impl NetlinkDeserializable for Chain {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(read(payload)?))
    }
}

fn read(payload: &[u8]) -> Result<Option<ForwardChain>, DecodeError> {
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const HOOK_NUMBER: u16 = 1;
    const POLICY: u16 = 5;
    const USE: u16 = 6;
    let Some((generic, attributes)) = payload.split_at_checked(GENERIC) else { return Ok(None) };
    // `NFPROTO_…`.
    let family = match generic[0] {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return Ok(None),
    };
    let (mut table, mut name) = (String::new(), String::new());
    let (mut hook, mut policy, mut rules) = (None, None, 0);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            TABLE => table = text(value),
            NAME => name = text(value),
            HOOK => {
                for inner in NlasIterator::new(value) {
                    let inner = inner?;
                    if inner.kind() == HOOK_NUMBER {
                        hook = number(inner.value());
                    }
                }
            }
            POLICY => policy = number(value),
            USE => rules = number(value).unwrap_or(0),
            _ => {}
        }
    }
    let is_closed = hook == Some(FORWARD) && policy == Some(DROP);
    Ok(is_closed.then_some(ForwardChain { family, table, name, has_rules: rules > 0 }))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn chain(family: u8, hook: u32, policy: u32, rules: u32) -> Vec<u8> {
        let hook = [attribute(2, &0_u32.to_be_bytes()), attribute(1, &hook.to_be_bytes())].concat();
        [
            vec![family, 0, 0, 0],
            attribute(1, b"filter\0"),
            attribute(3, b"FORWARD\0"),
            attribute(4 | 0x8000, &hook),
            attribute(5, &policy.to_be_bytes()),
            attribute(6, &rules.to_be_bytes()),
        ]
        .concat()
    }

    #[test]
    fn a_closed_chain_at_the_forward_hook_is_read_as_the_kernel_writes_it() {
        let found = read(&chain(2, FORWARD, DROP, 3)).expect("whole").expect("closed");
        let expected = ForwardChain { family: "ip", table: "filter".into(), name: "FORWARD".into(), has_rules: true };
        assert_eq!(found, expected);
        assert!(found.sees(true) && !found.sees(false));
        let inet = read(&chain(1, FORWARD, DROP, 0)).expect("whole").expect("closed");
        assert!(inet.sees(true) && inet.sees(false) && !inet.has_rules);
        for open in [chain(2, FORWARD, 1, 0), chain(2, 1, DROP, 0), chain(5, FORWARD, DROP, 0), vec![2, 0, 0, 0]] {
            assert_eq!(read(&open).expect("whole"), None);
        }
    }

    #[test]
    fn whatever_the_bytes_nothing_panics() {
        let whole = chain(10, FORWARD, DROP, 1);
        for len in 0..whole.len() {
            let _ = read(&whole[..len]);
            let mut broken = whole.clone();
            broken[len] = 0xff;
            let _ = read(&broken);
        }
    }
}
