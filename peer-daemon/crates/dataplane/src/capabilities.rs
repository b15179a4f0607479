//! What this process may do.

use std::fs;

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The effective capabilities that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `CAP_NET_ADMIN`.
    pub net_admin: bool,
    /// `CAP_BPF`.
    pub bpf: bool,
    /// `CAP_PERFMON`: without it the verifier adds Spectre fences.
    pub perfmon: bool,
    /// `CAP_SYS_ADMIN`: never needed; with it foreign programs can be named.
    pub sys_admin: bool,
}

impl Capabilities {
    /// Those of the calling thread.
    #[must_use]
    pub fn current() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self::from_bits(line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
    }

    fn from_bits(bits: u64) -> Self {
        let has = |capability: u32| bits & (1 << capability) != 0;
        // CAP_SYS_ADMIN is what the narrower ones were split from: the kernel takes it for either.
        let sys_admin = has(CAP_SYS_ADMIN);
        Self {
            net_admin: has(CAP_NET_ADMIN),
            bpf: has(CAP_BPF) || sys_admin,
            perfmon: has(CAP_PERFMON) || sys_admin,
            sys_admin,
        }
    }

    /// What loading programs lacks, as `CAP_… and CAP_…`; `None`: nothing.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let needed = [(self.bpf, "CAP_BPF"), (self.net_admin, "CAP_NET_ADMIN")];
        let missing: Vec<_> = needed.iter().filter(|(has, _)| !has).map(|(_, name)| *name).collect();
        (!missing.is_empty()).then(|| missing.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let missing = |bits: &[u32]| Capabilities::from_bits(bits.iter().map(|bit| 1 << bit).sum()).missing();
        assert_eq!(missing(&[CAP_NET_ADMIN, CAP_BPF]), None);
        assert_eq!(missing(&[CAP_NET_ADMIN, CAP_SYS_ADMIN]), None, "the old way");
        assert_eq!(missing(&[CAP_NET_ADMIN]).as_deref(), Some("CAP_BPF"));
        assert_eq!(missing(&[CAP_PERFMON]).as_deref(), Some("CAP_BPF and CAP_NET_ADMIN"));
    }
}
