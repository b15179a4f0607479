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
    pub(crate) on: On,
    /// Parts of the names of those that run; none: all.
    pub(crate) only: &'static [&'static str],
    /// Parts of the names of those that do not.
    pub(crate) skip: &'static [&'static str],
    /// A machine that takes longer hangs.
    pub(crate) limit_seconds: u64,
}

/// Which kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    All,
    WithTcx,
    WithoutTcx,
}

impl On {
    pub(crate) fn holds(self, has_tcx: bool) -> bool {
        match self {
            Self::All => true,
            Self::WithTcx => has_tcx,
            Self::WithoutTcx => !has_tcx,
        }
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
const SOURCES: Binary = scenario("sources");

/// What runs on the host alone, and why.
pub(crate) const LEFT_OUT: [(&str, &str); 7] = [
    (
        "other tests of the programs, property tests",
        "arithmetic on packets, for which one kernel is as good as another",
    ),
    (
        "others, uplinks, flows_shown, readiness, lan_opens",
        "speak of TCX programs of others, of nft, or of devices for which these kernels need more modules",
    ),
    (
        "packets, restarts, life, flows, demo, hostile_handshakes, members with downloads",
        "a load for a real CPU: minutes on an emulated one",
    ),
    (
        "reload, flow_log, policy_update, trace, ends, wall_clock",
        "what the daemon makes of its own tables, files and questions, for which one kernel is as good as another",
    ),
    ("direct", "signalling and checks of user space, for which one kernel is as good as another"),
    ("lab, nat_boxes", "show the lab itself, without anything of ours"),
    ("benches", "an emulated CPU has no speed worth knowing"),
];

const fn whole(binary: &'static Binary, name: &'static str) -> Suite {
    Suite { binary, name, on: On::All, only: &[], skip: &[], limit_seconds: 300 }
}

/// All, in their order.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        only: &["capabilities::the_programs"],
        ..whole(&PROGRAM, "all programs load, without and with CAP_PERFMON")
    },
    Suite {
        only: &[
            "events::a_",
            "fragments::fragments_in_order",
            "icmp::an_error_from",
            "log::",
            "mss::a_syn_is_lowered",
            "offload::",
            "own_errors::a_packet_too_big",
            "resets::the_next_packet",
            "sockets::a_",
            "translate::echo",
            "translate::tcp",
            "translate::udp",
        ],
        ..whole(&PROGRAM, "what the kernel does for the programs")
    },
    Suite { on: On::WithTcx, only: &["attach::tests::order::", "attach::tests::life::"], ..whole(&DATAPLANE, "links") },
    Suite {
        on: On::WithoutTcx,
        only: &["attach::tests::clsact::"],
        // These attach by TCX as well.
        skip: &["beside_cilium_by_tcx", "from_filters_to_links", "does_not_touch_links"],
        ..whole(&DATAPLANE, "filters")
    },
    whole(&KERNEL, "attached as the kernel has it"),
    whole(&START, "starts"),
    whole(&POLICY, "policy"),
    Suite { skip: &["at_once", "ipv6_through", "roams"], ..whole(&MEMBERS, "members") },
    whole(&INTRUDERS, "intruders"),
    whole(&SOURCES, "source addresses and uplinks"),
];
