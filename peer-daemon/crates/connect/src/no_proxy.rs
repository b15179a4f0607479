//! `NO_PROXY`: what is reached directly.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::Target;

/// A list as Go's `net/http` understands it, which the official client uses.
///
/// Entries are separated by commas: `*` (everything), an address or a prefix, a domain (itself and what is below it; with
/// a leading dot only what is below), each but the first two possibly with `:port`. Loopback hosts are always direct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NoProxy {
    everything: bool,
    nets: Vec<IpNet>,
    addresses: Vec<(IpAddr, Option<u16>)>,
    domains: Vec<Domain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Domain {
    /// Lower case, with a leading dot.
    suffix: String,
    itself: bool,
    port: Option<u16>,
}

impl NoProxy {
    pub(crate) fn parse(list: &str) -> Self {
        let mut rules = Self::default();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            rules.add(entry);
        }
        rules
    }

    /// Whether the target is reached without the proxy.
    pub(crate) fn contains(&self, target: &Target) -> bool {
        let applies = |port: Option<u16>| port.is_none_or(|port| port == target.port);
        if let Ok(ip) = target.host.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            return self.everything
                || ip.is_loopback()
                || self.nets.iter().any(|net| net.contains(&ip))
                || self.addresses.iter().any(|(address, port)| *address == ip && applies(*port));
        }
        let host = target.host.trim_end_matches('.').to_ascii_lowercase();
        self.everything
            || host == "localhost"
            || self.domains.iter().any(|domain| {
                let below = host.ends_with(&domain.suffix);
                applies(domain.port) && (below || domain.itself && host == domain.suffix[1..])
            })
    }

    fn add(&mut self, entry: &str) {
        if entry == "*" {
            self.everything = true;
        } else if let Ok(net) = entry.parse() {
            self.nets.push(net);
        } else if let Ok(ip) = entry.parse::<IpAddr>() {
            self.addresses.push((ip.to_canonical(), None));
        } else {
            let (host, port) = match entry.rsplit_once(':') {
                Some((host, port)) => match port.parse() {
                    Ok(port) => (host, Some(port)),
                    // No port, so nothing that could be a domain.
                    Err(_) => return tracing::warn!("NO_PROXY: {entry:?} is no host and is not used"),
                },
                None => (entry, None),
            };
            if let Ok(ip) = crate::target::without_brackets(host).parse::<IpAddr>() {
                return self.addresses.push((ip.to_canonical(), port));
            }
            let host = host.strip_prefix('*').unwrap_or(host).trim_end_matches('.').to_ascii_lowercase();
            let itself = !host.starts_with('.');
            let suffix = if itself { format!(".{host}") } else { host };
            self.domains.push(Domain { suffix, itself, port });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(list: &str, host: &str, port: u16) -> bool {
        NoProxy::parse(list).contains(&Target { tls: true, host: host.into(), port, fallback: None })
    }

    #[test]
    fn domains_cover_what_is_below_them() {
        for (list, host, expected) in [
            ("example.com", "example.com", true),
            ("example.com", "a.b.Example.COM", true),
            ("example.com", "notexample.com", false),
            (".example.com", "example.com", false),
            (".example.com", "a.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("x, example.com:8443", "example.com", true),
            ("example.com:443", "example.com", false),
            ("*", "anything", true),
            ("", "localhost", true),
            (" , ,", "example.com", false),
        ] {
            assert_eq!(direct(list, host, 8443), expected, "{list:?} {host}");
        }
    }

    #[test]
    fn addresses_and_prefixes_are_compared_as_such() {
        for (list, host, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3:80", "10.1.2.3", false),
            ("10.1.2.3:443", "10.1.2.3", true),
            ("fd00::/8", "fd12::1", true),
            ("[fd12::1]:443", "fd12::1", true),
            ("fd12::1", "fd12::1", true),
            ("1.2.3", "1.2.3.4", false),
            ("", "127.0.0.1", true),
            ("", "::1", true),
            ("a:b", "10.1.2.3", false),
        ] {
            assert_eq!(direct(list, host, 443), expected, "{list:?} {host}");
        }
    }
}
