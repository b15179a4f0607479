//! What runs in the machines, most valuable first: that the kernel's verifier takes the programs, in both capability
//! modes, then that they do what they should, then whole scenarios.

/// A test binary: folder of its package, its name, and whether it is the library's unit tests.
pub(crate) struct Binary {
    pub(crate) package: &'static str,
    pub(crate) target: &'static str,
    pub(crate) unit: bool,
}

/// Tests of one binary.
pub(crate) struct Suite {
    pub(crate) binary: &'static Binary,
    /// For people.
    pub(crate) name: &'static str,
    /// Parts of the names of those that run; none: all.
    pub(crate) only: &'static [&'static str],
    /// Parts of the names of those that do not.
    pub(crate) skip: &'static [LeftOut],
    /// A machine that takes longer hangs.
    pub(crate) limit_seconds: u64,
}

/// A test that does not run, where, and why.
pub(crate) struct LeftOut {
    pub(crate) test: &'static str,
    /// On kernels without TCX alone.
    pub(crate) without_tcx: bool,
    pub(crate) why: &'static str,
}

impl LeftOut {
    const fn everywhere(test: &'static str, why: &'static str) -> Self {
        Self { test, without_tcx: false, why }
    }

    const fn without_tcx(test: &'static str, why: &'static str) -> Self {
        Self { test, without_tcx: true, why }
    }

    /// Whether it holds on a kernel.
    pub(crate) fn holds(&self, has_tcx: bool) -> bool {
        !(self.without_tcx && has_tcx)
    }
}

const PROGRAM: Binary = Binary { package: "peer-daemon/crates/dataplane", target: "program", unit: false };
const DATAPLANE: Binary = Binary { package: "peer-daemon/crates/dataplane", target: "peer_dataplane", unit: true };

const fn scenario(target: &'static str) -> Binary {
    Binary { package: "tests", target, unit: false }
}

const KERNEL: Binary = scenario("kernel");
const START: Binary = scenario("start");
const POLICY: Binary = scenario("policy");
const MEMBERS: Binary = scenario("members");
const INTRUDERS: Binary = scenario("intruders");
const RESTARTS: Binary = scenario("restarts");

const TOO_LONG: &str = "takes minutes on an emulated CPU, and asks nothing of the kernel that the others do not";
const FOREIGN_LINK: &str = "is about programs that others attach by TCX";

/// All, in their order.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        binary: &PROGRAM,
        name: "all programs load, without and with CAP_PERFMON",
        only: &["capabilities::"],
        skip: &[],
        limit_seconds: 120,
    },
    Suite {
        binary: &PROGRAM,
        name: "what the programs do to packets",
        only: &[],
        skip: &[LeftOut::everywhere("capabilities::", "has run before"), LeftOut::everywhere("property::", TOO_LONG)],
        limit_seconds: 300,
    },
    Suite {
        binary: &DATAPLANE,
        name: "attaching",
        only: &["ebpf::attach::tests::"],
        skip: &[LeftOut::without_tcx("tcx", FOREIGN_LINK)],
        limit_seconds: 300,
    },
    Suite { binary: &KERNEL, name: "attached as the kernel has it", only: &[], skip: &[], limit_seconds: 120 },
    Suite { binary: &START, name: "starts", only: &[], skip: &[], limit_seconds: 120 },
    Suite { binary: &POLICY, name: "policy", only: &[], skip: &[], limit_seconds: 120 },
    Suite { binary: &MEMBERS, name: "members", only: &[], skip: &[], limit_seconds: 300 },
    Suite { binary: &INTRUDERS, name: "intruders", only: &[], skip: &[], limit_seconds: 300 },
    Suite { binary: &RESTARTS, name: "restarts", only: &[], skip: &[], limit_seconds: 300 },
];
