//! The report for people.

use std::fmt;

use super::report::{Control, Count, Peer, Report, Route};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Node, up {}:", Ago(self.uptime_seconds))?;
        if let Some(interface) = &self.interface {
            let addresses: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
            writeln!(f, "  {} {}, MTU {}", interface.name, addresses.join(", "), interface.mtu)?;
            writeln!(f, "  public key: {}", interface.public_key)?;
        }
        self.fmt_map(f)?;
        self.fmt_hardening(f)?;
        self.fmt_dataplane(f)?;
        if self.control == Control::Static {
            self.peers.iter().try_for_each(|peer| fmt_peer(f, peer))?;
        }
        for route in &self.routes {
            fmt_route(f, route)?;
        }
        Ok(())
    }
}

impl Report {
    /// What stands behind the summary: whether packets can flow, and what is not done.
    pub(super) fn verdict(&self) -> String {
        let mut text = format!("Ready: {}\n", if self.ready { "yes" } else { "no" });
        for part in self.parts.iter().filter(|part| !part.ready) {
            text += &format!("  {}: {}\n", part.name, part.reason.as_deref().unwrap_or("not ready"));
        }
        if let Some(dataplane) = &self.dataplane {
            let hardened = if dataplane.hardened { ", hardened" } else { "" };
            text += &format!("Dataplane: {}{hardened} ({})\n", dataplane.mode, dataplane.why);
        }
        for unsupported in &self.unsupported {
            text += &format!("Unsupported: {unsupported}\n");
        }
        text
    }

    fn fmt_map(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(map) = &self.map else { return Ok(()) };
        let kept = if map.kept { ", kept by an earlier run" } else { "" };
        writeln!(f, "  network map {}, received {} ago{kept}", map.serial, Ago(map.age_seconds))?;
        match &map.refused {
            Some(why) => writeln!(f, "  A NEWER MAP IS NOT IN FORCE: {why}"),
            None => Ok(()),
        }
    }

    fn fmt_hardening(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |on: bool| self.hardening.iter().filter(move |(_, held)| **held == on).map(|(name, _)| name.as_str());
        let (held, missing): (Vec<_>, Vec<_>) = (names(true).collect(), names(false).collect());
        if !held.is_empty() {
            writeln!(f, "  hardening: {}", held.join(", "))?;
        }
        if !missing.is_empty() {
            writeln!(f, "  HARDENING NOT IN FORCE: {} (see `doctor`)", missing.join(", "))?;
        }
        Ok(())
    }

    fn fmt_dataplane(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dataplane) = &self.dataplane else { return Ok(()) };
        let flows = &dataplane.flows;
        writeln!(f, "  flows: {} of {}, maps: {}", flows.used, flows.max, Size(dataplane.map_bytes))?;
        writeln!(f, "  policy: {} entries, generation {}", dataplane.policy.entries, dataplane.policy.generation)?;
        for program in &dataplane.programs {
            let place = match program.position {
                Some(place) => format!("place {} of {}", place + 1, program.chain),
                None => "NOT ATTACHED".to_owned(),
            };
            let behind = if program.ahead.is_empty() { "" } else { ", behind " };
            writeln!(f, "  {} on {}: {place}{behind}{}", program.program, program.device, program.ahead.join(", "))?;
        }
        for (reason, count) in &dataplane.drops {
            writeln!(f, "  dropped, {reason}: {count}")?;
        }
        for finding in &dataplane.findings {
            writeln!(f, "  {}", finding.to_string().trim_end().replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

fn fmt_peer(f: &mut fmt::Formatter<'_>, peer: &Peer) -> fmt::Result {
    writeln!(f, "  peer {}", peer.public_key)?;
    writeln!(f, "    status: {}", if peer.connected { "Connected" } else { "Idle" })?;
    if let Some(endpoint) = peer.endpoint {
        writeln!(f, "    endpoint: {endpoint}")?;
    }
    let allowed: Vec<_> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    writeln!(f, "    allowed IPs: {}", if allowed.is_empty() { "(none)".to_owned() } else { allowed.join(", ") })?;
    if let Some(seconds) = peer.last_handshake_seconds {
        writeln!(f, "    last handshake: {} ago", Ago(seconds))?;
    }
    writeln!(f, "    received: {}, sent: {}", peer.received, peer.sent)
}

fn fmt_route(f: &mut fmt::Formatter<'_>, route: &Route) -> fmt::Result {
    let how = if route.masquerade { "masqueraded" } else { "sources kept" };
    let by = match (&route.unserved, &route.by_kernel) {
        (Some(why), _) => format!("NOT SERVED: {why}"),
        (None, Some(device)) => format!("by the kernel's forwarding, {device}"),
        (None, None) => format!("by {}", route.uplinks.join(", ")),
    };
    writeln!(f, "  route {}: {how}, {by}; out {}, in {}", route.destination, route.forwarded_out, route.forwarded_in)
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets ({})", self.packets, Size(self.bytes))
    }
}

/// A duration in seconds, to two units.
pub(crate) struct Ago(pub(crate) u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0;
        match seconds {
            0..60 => write!(f, "{seconds}s"),
            60..3600 => write!(f, "{}m {}s", seconds / 60, seconds % 60),
            3600..86_400 => write!(f, "{}h {}m", seconds / 3600, seconds % 3600 / 60),
            _ => write!(f, "{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
        }
    }
}

/// Bytes, in binary units.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let unit = (self.0.ilog2() as usize / 10).min(UNITS.len());
        let value = self.0 as f64 / (1_u64 << (10 * unit)) as f64;
        write!(f, "{value:.1} {}", UNITS[unit - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_chosen_by_size() {
        let size = |bytes| Size(bytes).to_string();
        assert_eq!([0, 1023, 1024, 1536, 1 << 20].map(size), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB"]);
        let ago = |seconds| Ago(seconds).to_string();
        assert_eq!([59, 61, 3700, 90_000].map(ago), ["59s", "1m 1s", "1h 1m", "1d 1h"]);
    }
}
