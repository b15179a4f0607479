//! The rules of a NAT box, as text for `nft`.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::NatKind;

/// Device towards the internet.
pub(super) const OUTSIDE: &str = "eth0";
/// Bridge towards those inside.
pub(super) const INSIDE: &str = "lan";

/// What a box does, at one time.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) kind: NatKind,
    /// The box's address on the outside.
    pub(super) outside: IpAddr,
    pub(super) hairpin: bool,
    pub(super) udp_blocked: bool,
    pub(super) icmp_lost: bool,
    /// Exclusive-or between the ports inside and outside; 0: ports are preserved.
    pub(super) shift: u16,
    /// Time after which a mapping is forgotten, seconds.
    pub(super) udp_timeout: u64,
}

impl Rules {
    /// The whole table; it replaces one that is there.
    pub(super) fn text(&self) -> String {
        let family = if self.kind == NatKind::Ipv6Only { "ip6" } else { "ip" };
        let mut text = format!("table {family} box\ndelete table {family} box\ntable {family} box {{\n");
        self.sets(&mut text);
        let mut chain = |name: &str, hook: &str, rules: &[String]| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  chain {name} {{\n    type {hook};");
            for rule in rules {
                let _ = writeln!(text, "    {rule}");
            }
            text.push_str("  }\n");
        };
        if self.shift != 0 {
            let shift = self.shift;
            let out = format!("iifname {INSIDE} udp sport set udp sport ^ {shift}");
            chain("shift_out", "filter hook prerouting priority raw", &[out]);
            let back = format!("oifname {INSIDE} udp dport set udp dport ^ {shift}");
            chain("shift_back", "filter hook postrouting priority 300", &[back]);
        }
        if self.learns() {
            let learn = format!(
                "oifname {OUTSIDE} meta l4proto udp update @mappings {{ udp sport : ip saddr }} \
                 update @contacted {{ udp sport . ip daddr }}"
            );
            chain("learn", "filter hook postrouting priority 50", &[learn]);
        }
        // Nobody at the box itself is to be reached; and an entry of conntrack for what came unasked would take the
        // port from a mapping that comes later. What is dropped here leaves no entry.
        chain("input", "filter hook input priority filter", &["meta l4proto udp drop".to_owned()]);
        chain("forward", "filter hook forward priority filter", &self.forward());
        if self.icmp_lost {
            chain("output", "filter hook output priority filter", &[self.too_big()]);
        }
        if self.kind != NatKind::Ipv6Only {
            chain("inbound", "nat hook prerouting priority dstnat", &self.inbound());
            chain("outbound", "nat hook postrouting priority srcnat", &self.outbound());
        }
        text.push_str("}\n");
        text
    }

    /// Whether the box must know its mappings beyond what conntrack knows.
    fn learns(&self) -> bool {
        let beyond = matches!(self.kind, NatKind::EndpointIndependent | NatKind::AddressRestricted);
        beyond || (self.hairpin && self.kind != NatKind::Ipv6Only)
    }

    fn sets(&self, text: &mut String) {
        if !self.learns() {
            return;
        }
        let shape = format!("flags dynamic,timeout; timeout {}s; size 4096;", self.udp_timeout);
        let _ = writeln!(text, "  map mappings {{ type inet_service : ipv4_addr; {shape} }}");
        let _ = writeln!(text, "  set contacted {{ type inet_service . ipv4_addr; {shape} }}");
    }

    fn forward(&self) -> Vec<String> {
        let mut rules = Vec::new();
        if self.udp_blocked || self.kind == NatKind::UdpBlocked {
            rules.push("meta l4proto udp drop".to_owned());
        }
        if self.icmp_lost {
            rules.push(self.too_big());
        }
        if self.kind == NatKind::Ipv6Only {
            rules.push(format!("iifname {OUTSIDE} ct state != {{ established, related }} drop"));
        }
        rules
    }

    /// Drops what says that a packet is too big for a path.
    fn too_big(&self) -> String {
        let kind = if self.kind == NatKind::Ipv6Only {
            "icmpv6 type packet-too-big"
        } else {
            "icmp type destination-unreachable"
        };
        format!("{kind} drop")
    }

    fn inbound(&self) -> Vec<String> {
        let mut rules = Vec::new();
        let udp = format!("iifname {OUTSIDE} meta l4proto udp");
        match self.kind {
            NatKind::EndpointIndependent => rules.push(format!("{udp} dnat to udp dport map @mappings")),
            NatKind::AddressRestricted => {
                rules.push(format!("{udp} udp dport . ip saddr @contacted dnat to udp dport map @mappings"));
            }
            // Conntrack lets in what answers; more does not come.
            _ => {}
        }
        if self.hairpin {
            let outside = self.outside;
            rules.push(format!("iifname {INSIDE} ip daddr {outside} meta l4proto udp dnat to udp dport map @mappings"));
        }
        rules
    }

    fn outbound(&self) -> Vec<String> {
        let mut rules = Vec::new();
        if self.hairpin {
            // RFC 4787 REQ-9: the source is the mapped address, with the mapped port.
            rules.push(format!("oifname {INSIDE} ip saddr 10.0.0.0/8 ct status dnat snat to {}", self.outside));
        }
        if self.kind == NatKind::Symmetric {
            rules.push(format!("oifname {OUTSIDE} meta l4proto udp masquerade fully-random"));
        }
        rules.push(format!("oifname {OUTSIDE} masquerade"));
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(kind: NatKind) -> Rules {
        let outside = IpAddr::from([192, 0, 2, 7]);
        Rules { kind, outside, hairpin: false, udp_blocked: false, icmp_lost: false, shift: 0, udp_timeout: 120 }
    }

    #[test]
    fn ports_are_shifted_only_when_asked_for() {
        let mut rules = rules(NatKind::PortRestricted);
        assert!(!rules.text().contains("set udp sport"));
        rules.shift = 2048;
        assert!(rules.text().contains("udp sport set udp sport ^ 2048"));
        assert!(rules.text().contains("udp dport set udp dport ^ 2048"));
    }

    #[test]
    fn only_symmetric_boxes_randomize() {
        for kind in NatKind::ALL {
            assert_eq!(rules(kind).text().contains("fully-random"), kind == NatKind::Symmetric, "{kind:?}");
        }
    }

    #[test]
    fn mappings_are_kept_where_conntrack_does_not_do() {
        let mut rules = rules(NatKind::PortRestricted);
        assert!(!rules.text().contains("@mappings"));
        rules.hairpin = true;
        assert!(rules.text().contains("dnat to udp dport map @mappings"));
        rules.udp_timeout = 30;
        assert!(rules.text().contains("timeout 30s"));
    }
}
