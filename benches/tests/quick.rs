//! The benches run, and their last line has every ratio. What the ratios are is for a full run to tell.

use std::process::Command;

#[test]
fn a_quick_run_ends_with_all_ratios() {
    let output = Command::new(env!("CARGO_BIN_EXE_peer-benches")).args(["dataplane", "--quick", "--json"]).output();
    let output = output.expect("the bench starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stderr));
    let last = text.lines().last().expect("a last line");
    let result: serde_json::Value = serde_json::from_str(last).expect("JSON");
    for ratio in [
        "established_vs_empty",
        "policy_10k_vs_10",
        "flows_100k_vs_1k",
        "flows_1m_vs_1k",
        "hot_1k_of_1m_vs_1k",
        "forward_vs_iptables",
        "forward_vs_nft",
        "noperfmon_vs_perfmon",
    ] {
        let value = result["ratios"][ratio].as_f64();
        assert!(value.is_some_and(|ratio| ratio.is_finite() && ratio > 0.0), "{ratio}: {last}");
    }
}
