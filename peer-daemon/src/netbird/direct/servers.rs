//! STUN servers: from the URIs that management names to addresses.

use std::net::SocketAddr;

/// STUN's port (RFC 8489 §18.6).
const PORT: u16 = 3478;
/// Servers that are asked at most: two of different providers say all there is to know.
const MOST: usize = 8;

/// A URI that names no STUN server that can be asked by UDP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{uri:?} is no STUN server's URI: write stun:HOST or stun:HOST:PORT")]
pub(in super::super) struct BadStunUri {
    uri: String,
}

/// Host and port of `stun:host[:port]` (RFC 7064), for a lookup.
///
/// # Errors
/// When it is something else.
pub(in super::super) fn host_and_port(uri: &str) -> Result<(String, u16), BadStunUri> {
    let bad = || BadStunUri { uri: uri.to_owned() };
    let rest = uri.strip_prefix("stun:").ok_or_else(bad)?;
    // Old servers name the transport, as TURN's URIs do.
    let rest = rest.split('?').next().unwrap_or_default().trim_start_matches("//");
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(bad)?;
            (host, after.strip_prefix(':'))
        }
        None => match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| bad()))?;
    if host.is_empty() || port == 0 {
        return Err(bad());
    }
    Ok((host.to_owned(), port))
}

/// Addresses of all the servers: of each host the first of either family. What cannot be resolved is left out; whether all
/// could be is the second value.
pub(in super::super) async fn resolve(uris: Vec<String>) -> (Vec<SocketAddr>, bool) {
    let (mut servers, mut complete) = (Vec::new(), true);
    for uri in uris.iter().take(MOST) {
        let (host, port) = match host_and_port(uri) {
            Ok(named) => named,
            Err(error) => {
                tracing::warn!(%error, "management names a STUN server that cannot be used");
                continue;
            }
        };
        match tokio::net::lookup_host((host.as_str(), port)).await {
            Ok(found) => {
                let found: Vec<SocketAddr> = found.collect();
                for v4 in [true, false] {
                    servers.extend(found.iter().find(|address| address.is_ipv4() == v4));
                }
            }
            Err(error) => {
                complete = false;
                tracing::debug!(host, %error, "a STUN server's name is not resolved");
            }
        }
    }
    servers.sort_unstable();
    servers.dedup();
    (servers, complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_name_host_and_port() {
        for (uri, host, port) in [
            ("stun:stun.example:3478", "stun.example", 3478),
            ("stun:stun.example", "stun.example", 3478),
            ("stun:192.0.2.1:5555", "192.0.2.1", 5555),
            ("stun:[2001:db8::1]:5555", "2001:db8::1", 5555),
            ("stun:[2001:db8::1]", "2001:db8::1", 3478),
            ("stun:stun.example:80?transport=udp", "stun.example", 80),
        ] {
            assert_eq!(host_and_port(uri), Ok((host.to_owned(), port)), "{uri}");
        }
        for uri in ["", "stun:", "stun::1", "turn:host", "stuns:host:5349", "stun:host:0", "stun:host:x", "stun:[::1"] {
            assert!(host_and_port(uri).is_err(), "{uri}");
        }
    }

    #[tokio::test]
    async fn addresses_need_no_lookup_and_each_counts_once() {
        let uris = ["stun:127.0.0.1:3478", "stun:127.0.0.1", "stun:[::1]:3478", "turn:127.0.0.1"];
        let (servers, complete) = resolve(uris.map(str::to_owned).into()).await;
        let expected = ["127.0.0.1:3478", "[::1]:3478"].map(|text| text.parse().expect("an address"));
        assert_eq!((servers, complete), (expected.to_vec(), true));
    }
}
