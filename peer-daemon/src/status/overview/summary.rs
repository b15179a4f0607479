//! The summary: what today's probes look for with `grep`.

use std::fmt;

use super::{DaemonStatus, NameServers, Overview, Relay, Server};

/// The summary as text.
pub(crate) struct Summary<'a> {
    pub(crate) overview: &'a Overview,
    pub(crate) expanded: Expanded,
    /// There is a configuration file instead of servers.
    pub(crate) is_static: bool,
}

/// Whether servers are told with their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expanded {
    Yes,
    No,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overview = self.overview;
        writeln!(f, "OS: linux/{}", go_architecture())?;
        writeln!(f, "Daemon version: {}", overview.daemon_version)?;
        writeln!(f, "CLI version: {}", overview.cli_version)?;
        writeln!(f, "Profile: {}", overview.profile_name)?;
        self.servers(f)?;
        self.relays(f)?;
        self.name_servers(f)?;
        writeln!(f, "FQDN: {}", overview.fqdn)?;
        match overview.netbird_ip {
            Some(ip) => writeln!(f, "NetBird IP: {ip}")?,
            None => writeln!(f, "NetBird IP: N/A")?,
        }
        if let Some(ip) = overview.netbird_ipv6 {
            writeln!(f, "NetBird IPv6: {ip}")?;
        }
        let kind = match (overview.uses_kernel_interface, overview.netbird_ip) {
            (true, _) => "Kernel",
            (false, Some(_)) => "Userspace",
            (false, None) => "N/A",
        };
        writeln!(f, "Interface type: {kind}")?;
        match overview.wireguard_port {
            0 => writeln!(f, "Wireguard port: N/A")?,
            port => writeln!(f, "Wireguard port: {port}")?,
        }
        let permissive = if overview.quantum_resistance_permissive { " (permissive)" } else { "" };
        writeln!(f, "Quantum resistance: {}{permissive}", overview.quantum_resistance)?;
        writeln!(f, "Lazy connection: {}", overview.lazy_connection_enabled)?;
        writeln!(f, "SSH Server: {}", if overview.ssh_server.enabled { "Enabled" } else { "Disabled" })?;
        writeln!(f, "Networks: {}", joined_or_dash(&overview.networks))?;
        if overview.forwarding_rules > 0 {
            writeln!(f, "Forwarding rules: {}", overview.forwarding_rules)?;
        }
        if let Some(expires) = overview.session_expires_at {
            writeln!(f, "Session expires: {expires}")?;
        }
        writeln!(f, "Peers count: {}/{} Connected", overview.peers.connected, overview.peers.total)
    }
}

impl Summary<'_> {
    fn servers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, server) in [("Management", &self.overview.management), ("Signal", &self.overview.signal)] {
            write!(f, "{name}: ")?;
            if self.is_static {
                f.write_str("none, the configuration is static")?;
            } else {
                self.server(f, server)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn server(&self, f: &mut fmt::Formatter<'_>, server: &Server) -> fmt::Result {
        match (server.connected, self.expanded) {
            (true, Expanded::Yes) => write!(f, "Connected to {}", server.url),
            (true, Expanded::No) => f.write_str("Connected"),
            (false, _) if server.error.is_empty() => f.write_str("Disconnected"),
            (false, _) => write!(f, "Disconnected, reason: {}", one_line(&server.error)),
        }
    }

    fn relays(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relays = &self.overview.relays;
        if self.expanded == Expanded::No {
            return writeln!(f, "Relays: {}/{} Available", relays.available, relays.total);
        }
        f.write_str("Relays: ")?;
        relays.details.iter().try_for_each(|relay| write_relay(f, relay))?;
        writeln!(f)
    }

    fn name_servers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = &self.overview.dns_servers;
        if self.expanded == Expanded::No {
            let enabled = groups.iter().filter(|group| group.enabled).count();
            return writeln!(f, "Nameservers: {enabled}/{} Available", groups.len());
        }
        f.write_str("Nameservers: ")?;
        groups.iter().try_for_each(|group| write_name_servers(f, group))?;
        writeln!(f)
    }
}

impl Overview {
    /// What stands instead of the summary while somebody has to act.
    pub(crate) fn needs_help(&self) -> Option<String> {
        let fix = match self.daemon_status {
            DaemonStatus::Idle | DaemonStatus::Connecting | DaemonStatus::Connected => return None,
            DaemonStatus::NeedsLogin => "give it a setup key by NB_SETUP_KEY or --setup-key-file, and start it again",
            DaemonStatus::LoginFailed => {
                "look at the reason; a setup key must be valid, not used up and of this account"
            }
            DaemonStatus::SessionExpired => {
                "the peer belongs to a user whose login has ended: delete it in the dashboard and register it by setup key"
            }
        };
        let reason = match self.management.error.as_str() {
            "" => String::new(),
            error => format!("\nReason: {}", one_line(error)),
        };
        Some(format!("Daemon status: {:?}{reason}\n\nTo help: {fix}.\n", self.daemon_status))
    }
}

pub(super) fn joined_or_dash(items: &[String]) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    let mut items = items.to_vec();
    items.sort();
    items.join(", ")
}

fn write_relay(f: &mut fmt::Formatter<'_>, relay: &Relay) -> fmt::Result {
    write!(f, "\n  [{}] is ", relay.uri)?;
    match (relay.available, &relay.transport) {
        (true, Some(transport)) => write!(f, "Available via {transport}"),
        (true, None) => f.write_str("Available"),
        (false, _) if relay.error.is_empty() => f.write_str("Checking..."),
        (false, _) => write!(f, "Unavailable, reason: {}", one_line(&relay.error)),
    }
}

fn write_name_servers(f: &mut fmt::Formatter<'_>, group: &NameServers) -> fmt::Result {
    let domains = if group.domains.is_empty() { ".".to_owned() } else { group.domains.join(", ") };
    write!(f, "\n  [{}] for [{domains}] is ", group.servers.join(", "))?;
    match (group.enabled, group.error.as_str()) {
        (true, _) => f.write_str("Available"),
        (false, "") => f.write_str("Unavailable"),
        (false, error) => write!(f, "Unavailable, reason: {}", one_line(error)),
    }
}

/// A reason may come from elsewhere: it must not look like lines of ours.
fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(" ")
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
