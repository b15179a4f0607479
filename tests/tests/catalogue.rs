//! The list of 28 scenarios beside Cilium, and where each is tested. It is printed, and what it names must exist.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// One of the list.
struct Entry {
    number: u8,
    title: &'static str,
    /// Names of tests.
    tests: &'static [&'static str],
    /// What of it is not tested here, or was overruled, and why.
    note: &'static str,
}

const fn entry(number: u8, title: &'static str, tests: &'static [&'static str], note: &'static str) -> Entry {
    Entry { number, title, tests, note }
}

const LIST: [Entry; 28] = [
    entry(
        1,
        "a program at the tail that ends the chain sees misses only",
        &["t01_tail_program_sees_misses_and_none_of_ours"],
        "",
    ),
    entry(
        2,
        "order and flows stay while a foreign program comes, is updated and goes",
        &["t02_order_and_flows_stay_over_updates_of_a_foreign_program", "we_are_first_whoever_was_there_before"],
        "",
    ),
    entry(
        3,
        "all legacy filters are wiped",
        &["t03_a_wipe_of_all_legacy_filters_harms_nothing", "test_3_wiping_all_legacy_filters_does_not_touch_links"],
        "",
    ),
    entry(
        4,
        "a legacy filter at priority 1 beside us",
        &[
            "t04_a_legacy_filter_behind_us_sees_misses_and_none_of_ours",
            "t04_as_legacy_filters_we_forward_live_on_and_go",
            "test_4_beside_cilium_at_priority_1_it_is_refused_unless_allowed",
        ],
        "",
    ),
    entry(
        5,
        "a tracker of host ports rewrites ports from 32768 up",
        &["t05_ports_below_the_trackers_range_are_left_alone_and_ports_above_are_lost"],
        "",
    ),
    entry(
        6,
        "what leaves has no queue mapping, mark or tc index",
        &["t06_what_leaves_has_no_mark_no_queue_and_no_tc_index"],
        "",
    ),
    entry(7, "NOTRACK for everything", &["t07_untracked_packets_are_translated_all_the_same"], ""),
    entry(
        8,
        "strict rules of the node's firewall",
        &["t08_rules_of_the_nodes_firewall_do_not_matter_to_forwarding"],
        "",
    ),
    entry(9, "src_valid_mark, rp_filter and all other sysctls are unchanged", &["t09_no_sysctl_changes"], ""),
    entry(
        10,
        "a VIP of the node itself, by injection",
        &["another_own_address_is_reached_by_peer_rules_or_by_a_route_that_covers_it"],
        "injection is overruled: on real Cilium it fails in every mode with a local backend. An own address goes to the \
         node's stack where rules accept; what only a service load balancer answers for is to be served through sockets",
    ),
    entry(
        11,
        "wt0 carries a program named cil_from_netdev",
        &[
            "t11_forwards_ahead_of_a_cilium_program_on_wt0",
            "test_11_a_mesh_device_that_cilium_took_is_reported_and_we_go_on_ahead",
        ],
        "",
    ),
    entry(
        12,
        "without a link header packets are lost, and counters show it",
        &["t12_a_redirect_without_link_header_shows_in_the_counters"],
        "the fault is a program of the test's at the head, not another build of ours",
    ),
    entry(
        13,
        "bulk with offloads on and off",
        &[
            "t13_bulk_with_every_combination_of_offloads",
            "t13_upload_arrives_whole",
            "a_refused_super_packet_goes_packet_by_packet_from_then_on",
        ],
        "the mesh device always has vnet headers; that a kernel refuses what they offer is a test of packet I/O",
    ),
    entry(
        14,
        "UDP without checksum, UDP in super-packets, small segments",
        &[
            "t14_udp_without_checksum_and_in_super_packets",
            "t14_small_segments_go_through",
            "a_missing_udp_checksum_stays_missing",
        ],
        "",
    ),
    entry(
        15,
        "MTU: clamped, answered, fragmented",
        &[
            "t15_segment_sizes_are_clamped_both_ways",
            "t15_too_large_for_the_mesh_is_answered_and_the_sender_learns",
            "t15_too_large_for_the_lan_is_answered_and_the_member_learns",
            "t15_a_download_recovers_when_the_mesh_gets_narrower",
            "t15_what_may_be_fragmented_is",
            "fragments_reassemble_to_the_original",
        ],
        "",
    ),
    entry(
        16,
        "fragments in order, reversed, interleaved, of ICMP",
        &[
            "t16_fragments_in_order_reversed_and_interleaved",
            "t16_on_the_uplink_only_what_comes_with_its_first_fragment_late_is_lost",
            "t16_fragmented_pings_are_answered",
        ],
        "",
    ),
    entry(
        17,
        "ICMP errors both ways, traceroute by UDP, ICMP and TCP",
        &["t17_traceroute_by_udp_icmp_and_tcp", "t17_unreachable_reaches_the_right_socket_both_ways"],
        "",
    ),
    entry(18, "TTL 1 at wt0", &["t18_a_last_hop_is_not_passed_on_and_answered", "the_last_hop_is_not_passed_on"], ""),
    entry(
        19,
        "kill -9, restart, upgrade, another layout",
        &[
            "t19_kill9_200_cycles",
            "t19_upgrade_and_rollback_between_two_layouts",
            "a_download_goes_on_over_kill_9",
            "a_download_goes_on_over_a_clean_restart",
            "a_restart_updates_links_in_place",
        ],
        "",
    ),
    entry(
        20,
        "wt0 and eth0 deleted and made anew",
        &[
            "t20_without_wt0_the_daemon_ends_and_the_next_makes_a_new_one",
            "t20_the_only_uplink_is_made_anew",
            "t20_an_uplink_that_comes_late_goes_and_comes_again",
            "test_20_a_device_that_was_made_anew_gets_a_new_link",
        ],
        "",
    ),
    entry(
        21,
        "exhaustion of ports, quota per peer, a flood",
        &[
            "t21_exhausted_ports_refuse_one_remote_and_no_other",
            "t21_a_million_random_flows_of_one_peer_harm_no_other",
            "a_port_is_used_again_for_another_remote_but_never_for_the_same",
            "a_peer_has_as_many_flows_as_its_quota_and_no_more",
        ],
        "16 ports are the least that the daemon takes, of which it uses 13",
    ),
    entry(
        22,
        "sockets of the node inside the range",
        &[
            "t22_sockets_of_the_node_keep_their_ports",
            "a_connection_blocks_its_own_remote_only",
            "a_tcp_listener_is_avoided",
        ],
        "",
    ),
    entry(
        23,
        "VLAN, bond and bridge as uplink",
        &[
            "t23_a_bridge_is_an_uplink",
            "t23_a_device_upon_another_is_an_uplink",
            "test_23_a_device_with_the_name_of_a_vlan_is_an_uplink",
            "test_23_a_vlan_is_an_uplink",
            "test_23_a_bond_is_an_uplink_and_its_slave_is_none",
        ],
        "the tests of a VLAN and of a bond are ignored: they need a kernel with such devices, and run there with --ignored; \
         a macvlan and a veth named eth0.100 stand for the former",
    ),
    entry(
        24,
        "several uplinks; routes, neighbours and addresses that change",
        &[
            "t24_two_uplinks_and_a_flow_that_changes_between_them",
            "t24_a_route_with_an_uplink_of_its_own_leaves_by_that",
            "t24_a_route_change_in_mid_flow_is_followed",
            "t24_a_moving_address_is_followed_at_once",
            "t24_a_changed_address_of_the_node_flushes_and_is_used",
        ],
        "",
    ),
    entry(25, "several CPUs open one tuple at once", &["t25_two_cpus_that_open_one_tuple_make_one_mapping"], ""),
    entry(
        26,
        "expiry: each class, nothing alive removed",
        &[
            "each_class_has_its_timer",
            "either_direction_keeps_a_flow",
            "pressure_shortens_what_is_not_established",
            "scans_under_traffic_remove_the_dead_and_none_that_lives",
            "a_flow_used_since_the_batch_was_read_stays",
            "a_mapping_used_since_it_was_looked_at_stays",
            "a_lost_mapping_comes_back_with_the_next_packet_that_refreshes",
            "a_mapping_without_its_flow_is_taken_up_again",
        ],
        "the clock is an argument, not scaled; what a race may still remove is shown to heal",
    ),
    entry(
        27,
        "programs load on the oldest and the newest kernel",
        &["the_programs_load_without_perfmon", "the_programs_load_with_perfmon"],
        "here on the kernel of this machine; on 6.1 and 6.12 in virtual machines, by `cargo xtask vmtest`",
    ),
    entry(
        28,
        "another user of the head after us",
        &[
            "t28_another_first_program_is_reported_and_not_fought",
            "test_28_another_user_of_the_head_is_reported_and_not_fought",
        ],
        "",
    ),
];

#[test]
fn every_test_of_the_list_exists_or_says_why_not() {
    let mut known = BTreeSet::new();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    for folder in ["tests/tests", "peer-daemon", "peer-common"] {
        collect(&workspace.join(folder), &mut known);
    }
    let mut text = String::from("\nTests of coexistence by number\n");
    let mut missing = Vec::new();
    for (expected, entry) in (1..).zip(&LIST) {
        assert_eq!(entry.number, expected, "in order, none left out");
        assert!(!entry.tests.is_empty() || !entry.note.is_empty(), "{expected} has neither test nor reason");
        let _ = writeln!(text, "{:>4}  {}", entry.number, entry.title);
        for test in entry.tests {
            let _ = writeln!(text, "        {test}");
            if !known.contains(*test) {
                missing.push(*test);
            }
        }
        if !entry.note.is_empty() {
            let _ = writeln!(text, "        ({})", entry.note);
        }
    }
    // To the error stream itself: also when the test passes.
    let _ = std::io::stderr().write_all(text.as_bytes());
    assert_eq!(missing, Vec::<&str>::new(), "tests that are in no source");
}

/// Names of all functions in Rust sources that have a test attribute, those inside `proptest!` too.
fn collect(folder: &Path, known: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, known);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("a source");
            let mut marked = false;
            for line in source.lines().map(str::trim) {
                if line == "#[test]" {
                    marked = true;
                } else if let (true, Some(name)) = (marked, line.strip_prefix("fn ")) {
                    known.extend(name.split(['(', '<']).next().map(str::to_owned));
                    marked = false;
                } else if !line.starts_with("#[") && !line.starts_with("//") {
                    marked = false;
                }
            }
        }
    }
}
