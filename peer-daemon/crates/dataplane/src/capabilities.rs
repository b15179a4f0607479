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
    /// What is missing is granted, and this user does not get it: capabilities that a container adds are for uid 0.
    pub withheld: bool,
}

impl Capabilities {
    /// Those of the calling thread.
    #[must_use]
    pub fn current() -> Self {
        Self::of(&fs::read_to_string("/proc/thread-self/status").unwrap_or_default())
    }

    /// Of a process's status, see proc(5).
    fn of(status: &str) -> Self {
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let set = |name: &str| line(name).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        let own = Self::from_bits(set("CapEff:"));
        // Real, effective, saved and file system's.
        let is_root = line("Uid:").and_then(|ids| ids.split_whitespace().nth(1)) == Some("0");
        let withheld = own.missing().is_some() && !is_root && Self::from_bits(set("CapBnd:")).missing().is_none();
        Self { withheld, ..own }
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
            withheld: false,
        }
    }

    /// What loading programs lacks, as `CAP_… and CAP_…`; `None`: nothing.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let needed = [(self.bpf, "CAP_BPF"), (self.net_admin, "CAP_NET_ADMIN")];
        let missing: Vec<_> = needed.iter().filter(|(has, _)| !has).map(|(_, name)| *name).collect();
        (!missing.is_empty()).then(|| missing.join(" and "))
    }

    /// What to do where some are missing.
    #[must_use]
    pub fn remedy(self) -> String {
        let Some(missing) = self.missing() else { return String::new() };
        if self.withheld {
            return "run as uid 0 (the container's securityContext.runAsUser: 0): the capabilities are granted, but a process \
                    of another user does not get them"
                .to_owned();
        }
        let names = missing.replace("CAP_", "").replace(" and ", ", ");
        format!("add {names} to the container's securityContext.capabilities.add")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_a_container_grants_to_another_user_than_root_are_withheld() {
        let all = 1_u64 << CAP_NET_ADMIN | 1 << CAP_BPF | 1 << CAP_PERFMON;
        let status = |uid: u32, effective: u64, bounding: u64| {
            format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapEff:\t{effective:016x}\nCapBnd:\t{bounding:016x}\n")
        };
        let user = Capabilities::of(&status(1000, 0, all));
        assert!(user.withheld && user.remedy().contains("runAsUser: 0"), "{user:?}");
        let bounded = Capabilities::of(&status(1000, 0, 0));
        assert!(!bounded.withheld && bounded.remedy().starts_with("add BPF, NET_ADMIN to"), "{}", bounded.remedy());
        assert!(!Capabilities::of(&status(1000, all, all)).withheld, "ambient capabilities, as of a systemd unit");
        assert!(!Capabilities::of(&status(0, 0, all)).withheld, "root that gave them up");
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |bits: &[u32]| Capabilities::from_bits(bits.iter().map(|bit| 1 << bit).sum()).missing();
        assert_eq!(missing(&[CAP_NET_ADMIN, CAP_BPF]), None);
        assert_eq!(missing(&[CAP_NET_ADMIN, CAP_SYS_ADMIN]), None, "the old way");
        assert_eq!(missing(&[CAP_NET_ADMIN]).as_deref(), Some("CAP_BPF"));
        assert_eq!(missing(&[CAP_PERFMON]).as_deref(), Some("CAP_BPF and CAP_NET_ADMIN"));
    }
}
