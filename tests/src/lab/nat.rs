//! NAT boxes between a wire and those behind it: a namespace each, with rules of nftables.
//!
//! ```text
//! internet wire ── eth0 │ box │ lan ── eth0 of a node or member
//! ```
//!
//! A box preserves ports where it can, as Linux does, until [`NatBox::forget`] shifts them. What each kind does is in
//! the words of RFC 4787; `tests/nat_boxes.rs` measures it by [`Probe`].

mod conntrack;
mod probe;
mod rules;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::addresses::INTERNET6;
use super::link::{add_address, sysctl};
use super::namespace::Namespace;
use super::wire::{ROUTER6, Wire, inside6};
use rules::{INSIDE, OUTSIDE, Rules};

pub use probe::{Dependence, Hairpin, NatBehaviour, Probe};

/// How long Linux keeps a mapping in use by default.
const UDP_TIMEOUT: Duration = Duration::from_secs(120);
/// The timeout of [`NatKind::Forgetful`].
const SHORT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a box does to UDP. TCP passes all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// Endpoint-independent mapping and filtering ("full cone").
    EndpointIndependent,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address- and port-dependent filtering: the masquerade of Linux.
    PortRestricted,
    /// Another port for each destination, address- and port-dependent filtering.
    Symmetric,
    /// Two port-restricted boxes in a row.
    Double,
    /// Lets no UDP through.
    UdpBlocked,
    /// A router of an IPv6-only network: no translation, but nothing comes in unasked.
    Ipv6Only,
    /// Port-restricted, and forgets mappings that are not used for 30 s.
    Forgetful,
}

/// A box, or two in a row. Nothing of it is left when it is dropped.
pub struct NatBox {
    /// The box; of two, the inner one.
    pub namespace: Namespace,
    rules: Rules,
    inside: Wire,
    number: u8,
    /// Of two, the one towards the internet.
    outer: Option<Box<NatBox>>,
}

impl NatKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::EndpointIndependent,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Double,
        Self::UdpBlocked,
        Self::Ipv6Only,
        Self::Forgetful,
    ];
}

impl NatBox {
    /// Puts a box at a wire, under a number that nobody else has there, from 2 on. Those inside get addresses in
    /// `10.number.0.0/24` (behind two boxes `10.number.1.0/24`), or of the internet's IPv6 network.
    ///
    /// # Errors
    /// `ip` or `nft` fails.
    pub fn new(outside: &Wire, kind: NatKind, number: u8) -> Result<Self> {
        if kind != NatKind::Double {
            return Self::single(outside, kind, number, 0);
        }
        let outer = Self::single(outside, NatKind::PortRestricted, number, 0)?;
        let mut inner = Self::single(&outer.inside, NatKind::PortRestricted, number, 1)?;
        inner.outer = Some(Box::new(outer));
        Ok(inner)
    }

    /// Where nodes and members are attached instead of to the internet.
    #[must_use]
    pub fn inside(&self) -> &Wire {
        &self.inside
    }

    /// The address that the internet sees; [`NatKind::Ipv6Only`]: the router's own.
    #[must_use]
    pub fn outside(&self) -> IpAddr {
        self.outer.as_ref().map_or(self.rules.outside, |outer| outer.outside())
    }

    /// Lets those inside reach each other by their mapped addresses, or not; the default: not. A datagram that turns
    /// around is not filtered. Of two boxes, the inner one does it.
    ///
    /// # Errors
    /// The kind has no mapped addresses that could be found again; `nft` fails.
    pub fn hairpin(&mut self, on: bool) -> Result<()> {
        let kind = self.rules.kind;
        ensure!(!matches!(kind, NatKind::Symmetric | NatKind::Ipv6Only), "{kind:?} has no hairpin");
        self.rules.hairpin = on;
        self.apply()
    }

    /// Forgets all mappings, and shifts the ports of new ones: a mapping in use gets another port with its next
    /// datagram, as after a restart of the box. ICMP errors about shifted ports do not reach their sockets.
    ///
    /// # Errors
    /// `nft` or the kernel refuses.
    pub fn forget(&mut self) -> Result<()> {
        // Of two boxes the outer one alone: the second shift would undo the first. After 31 times it starts again.
        if self.rules.kind != NatKind::Ipv6Only && self.outer.is_none() {
            self.rules.shift = (self.rules.shift + 1024) % 32_768;
        }
        self.apply()?;
        conntrack::flush(&self.namespace)?;
        self.outer.as_mut().map_or(Ok(()), |outer| outer.forget())
    }

    /// Lets no UDP through from now on, or lets it again.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn block_udp(&mut self, blocked: bool) -> Result<()> {
        self.rules.udp_blocked = blocked;
        self.apply()
    }

    /// Drops the ICMP errors that say that a packet is too big, or lets them pass again.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn lose_icmp(&mut self, lost: bool) -> Result<()> {
        self.rules.icmp_lost = lost;
        self.apply()
    }

    /// Lets no packet larger than `mtu` bytes through, in both directions; the sender of one that may not be
    /// fragmented gets an ICMP error.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn set_mtu(&self, mtu: u16) -> Result<()> {
        let mtu = mtu.to_string();
        if self.rules.kind == NatKind::Ipv6Only {
            let inside = format!("{}/120", inside6(self.number, 0));
            for (network, device) in [(INTERNET6, OUTSIDE), (&inside[..], INSIDE)] {
                self.ip(&["-6", "route", "replace", network, "dev", device, "metric", "1", "mtu", "lock", &mtu])?;
            }
            return Ok(());
        }
        let routes = self.namespace.exec("ip", &["-4", "route", "show"])?;
        for route in routes.lines() {
            // A word for people, which `ip` does not take.
            let words = route.split_whitespace().filter(|word| *word != "linkdown");
            let mut arguments: Vec<_> = ["route", "replace"].into_iter().chain(words).collect();
            if let Some(at) = arguments.iter().position(|word| *word == "mtu") {
                arguments.truncate(at);
            }
            arguments.extend(["mtu", "lock", &mtu]);
            self.ip(&arguments)?;
        }
        Ok(())
    }

    /// Forgets mappings that are not used for so long, in whole seconds.
    ///
    /// # Errors
    /// The kernel or `nft` refuses.
    pub fn set_udp_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.rules.udp_timeout = timeout.as_secs();
        let seconds = timeout.as_secs().to_string();
        for key in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            sysctl(&self.namespace, &format!("net/netfilter/{key}"), &seconds)?;
        }
        self.apply()
    }

    /// UDP mappings that the box knows, one for each endpoint inside and destination.
    ///
    /// # Errors
    /// The kernel does not list its connections in `/proc`.
    pub fn udp_mappings(&self) -> Result<usize> {
        conntrack::udp_mappings(&self.namespace)
    }

    fn single(outside: &Wire, kind: NatKind, number: u8, depth: u8) -> Result<Self> {
        let namespace = Namespace::new(&format!("nat{number}-{depth}"))?;
        let v6 = kind == NatKind::Ipv6Only;
        if !v6 {
            for devices in ["all", "default"] {
                sysctl(&namespace, &format!("net/ipv6/conf/{devices}/disable_ipv6"), "1")?;
            }
        }
        let wire = if v6 { outside.only_v6() } else { outside.only_v4() };
        // Inside another box, its number would be the router's.
        let own = if depth == 0 { number } else { 2 };
        let address = *wire.attach(&namespace, OUTSIDE, own)?.first().context("an address outside")?;
        Wire::lay(&namespace, INSIDE)?;
        // Bridged frames are no business of the rules; there is no such sysctl where nobody bridges with filters.
        let _ = sysctl(&namespace, "net/bridge/bridge-nf-call-iptables", "0");
        let inside = if v6 {
            add_address(&namespace, INSIDE, ROUTER6.parse()?, 64)?;
            Wire::behind6(&namespace, INSIDE, number)
        } else {
            add_address(&namespace, INSIDE, [10, number, depth, 1].into(), 24)?;
            Wire::private(&namespace, INSIDE, [10, number, depth])
        };
        namespace.exec("ip", &["link", "set", INSIDE, "up"])?;
        if v6 {
            let network = format!("{}/120", inside6(number, 0));
            namespace.exec("ip", &["-6", "route", "add", &network, "dev", INSIDE])?;
            sysctl(&namespace, "net/ipv6/conf/all/forwarding", "1")?;
            sysctl(&namespace, &format!("net/ipv6/conf/{OUTSIDE}/proxy_ndp"), "1")?;
            sysctl(&namespace, &format!("net/ipv6/neigh/{OUTSIDE}/proxy_delay"), "0")?;
        } else {
            sysctl(&namespace, "net/ipv4/ip_forward", "1")?;
        }
        let rules = Rules {
            kind,
            outside: address,
            hairpin: false,
            udp_blocked: false,
            icmp_lost: false,
            shift: 0,
            udp_timeout: UDP_TIMEOUT.as_secs(),
        };
        let mut this = Self { namespace, rules, inside, number, outer: None };
        if kind == NatKind::Forgetful {
            this.set_udp_timeout(SHORT_TIMEOUT)?;
        } else {
            this.apply()?;
        }
        Ok(this)
    }

    /// Puts the rules into force; mappings that only the rules know are forgotten.
    fn apply(&self) -> Result<()> {
        self.namespace.write("/run/lab/box.nft".as_ref(), &self.rules.text())?;
        self.namespace.exec("nft", &["-f", "/run/lab/box.nft"])?;
        Ok(())
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        self.namespace.exec("ip", arguments)?;
        Ok(())
    }
}
