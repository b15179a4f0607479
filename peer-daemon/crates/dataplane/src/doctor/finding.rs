//! What is said about the node.

use std::fmt;

/// What was looked at. The names are labels of `peer_doctor_findings` and stand in the JSON of `doctor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Capabilities of the process.
    Capabilities,
    /// What the kernel has to have.
    Kernel,
    /// The BPF file system that keeps programs and maps.
    Bpffs,
    /// `/dev/net/tun`.
    Tun,
    /// Whether sysctls can be written.
    ProcSys,
    /// Our place in the chains.
    Order,
    /// Left-overs of Cilium's.
    StaleCilium,
    /// The mesh device taken by Cilium.
    CiliumDevice,
    /// Ports of source NAT.
    NatPorts,
    /// Further addresses of source NAT.
    NatAddresses,
    /// Our own addresses on the mesh device.
    MeshAddresses,
    /// `src_valid_mark`.
    SrcValidMark,
    /// `rp_filter`.
    RpFilter,
    /// The listening port.
    UdpPort,
    /// Offloads that harm forwarding.
    Offloads,
    /// Sizes.
    Mtu,
    /// IPv6 forwarding of the mesh device.
    Forwarding6,
    /// What the network map wants and this version cannot do.
    Unsupported,
    /// Whether the kernel forwards what the LAN opens on routes that keep sources.
    Forwarding,
    /// Devices that cannot be uplinks, and routes that are not served.
    Uplinks,
    /// Whether what the programs redirect leaves the devices.
    Traffic,
    /// What confines the running daemon.
    Hardening,
    /// The wall clock.
    Clock,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Capabilities,
        Self::Kernel,
        Self::Bpffs,
        Self::Tun,
        Self::ProcSys,
        Self::Order,
        Self::StaleCilium,
        Self::CiliumDevice,
        Self::NatPorts,
        Self::NatAddresses,
        Self::MeshAddresses,
        Self::SrcValidMark,
        Self::RpFilter,
        Self::UdpPort,
        Self::Offloads,
        Self::Mtu,
        Self::Forwarding6,
        Self::Unsupported,
        Self::Forwarding,
        Self::Uplinks,
        Self::Traffic,
        Self::Hardening,
        Self::Clock,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::Kernel => "kernel",
            Self::Bpffs => "bpffs",
            Self::Tun => "tun",
            Self::ProcSys => "proc_sys",
            Self::Order => "order",
            Self::StaleCilium => "stale_cilium",
            Self::CiliumDevice => "cilium_device",
            Self::NatPorts => "nat_ports",
            Self::NatAddresses => "nat_addresses",
            Self::MeshAddresses => "mesh_addresses",
            Self::SrcValidMark => "src_valid_mark",
            Self::RpFilter => "rp_filter",
            Self::UdpPort => "udp_port",
            Self::Offloads => "offloads",
            Self::Mtu => "mtu",
            Self::Forwarding6 => "forwarding6",
            Self::Unsupported => "unsupported",
            Self::Forwarding => "forwarding",
            Self::Uplinks => "uplinks",
            Self::Traffic => "traffic",
            Self::Hardening => "hardening",
            Self::Clock => "clock",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something does not work.
    Problem,
    /// Works, but not as it should, or not for long.
    Warning,
    /// Could not be looked at.
    Unknown,
    /// Nothing is wrong; worth knowing when something is.
    Note,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Note => "note",
        }
    }

    /// Something is to be done about it.
    #[must_use]
    pub fn is_conflict(self) -> bool {
        matches!(self, Self::Problem | Self::Warning)
    }
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// By which check.
    pub check: Check,
    /// How bad.
    pub severity: Severity,
    /// Which device or file, where it is about one.
    pub subject: Option<String>,
    /// Who causes it, where that is known.
    pub owner: Option<String>,
    /// What is so, and what follows from it.
    pub what: String,
    /// What to do; empty: nothing.
    pub remedy: String,
}

impl Finding {
    pub(crate) fn new(check: Check, severity: Severity, what: impl Into<String>) -> Self {
        Self { check, severity, subject: None, owner: None, what: what.into(), remedy: String::new() }
    }

    pub(crate) fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    pub(crate) fn by(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.severity.name(), self.check.name())?;
        if let Some(subject) = &self.subject {
            write!(f, " {subject}")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(owner) = &self.owner {
            write!(f, " (owner: {owner})")?;
        }
        Ok(())
    }
}
