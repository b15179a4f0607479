//! The packet path, drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::lab::{GATEWAY, Metrics, NODE_LAN, Sample};

/// How far a counter moved.
pub(crate) fn moved(before: &Metrics, after: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
    after.sum(name, labels) - before.sum(name, labels)
}

/// The path with its counters, then every counter of ours that moved.
pub(crate) fn draw(way: &str, before: &Metrics, after: &Metrics) -> String {
    let path = |name: &str| moved(before, after, "peer_packets_total", &[("path", name)]);
    let dropped = moved(before, after, "peer_dropped_packets_total", &[]);
    let mut text = format!(
        "  remote   wireguard-go
     │ ▲   {way}
     ▼ │
  node     peer-daemon: decrypts, checks the source, writes to wt0; reads wt0, encrypts
     │ │
     ▼ │   wt0 ingress (eBPF)    forwarded out {:>10}   flows opened {}   dropped {dropped}
     │ │       source becomes {NODE_LAN}, straight out of eth0
     │ ▲   eth0 ingress (eBPF)   forwarded in  {:>10}   not ours, passed on {}
     ▼ │
  gateway  {GATEWAY}: sees {NODE_LAN}, has no route to the mesh

  counters that moved
",
        path("forwarded_out"),
        path("flows_opened"),
        path("forwarded_in"),
        path("uplink_next"),
    );
    for (counter, by) in all_moved(before, after) {
        let _ = writeln!(text, "    {counter:<84} +{by}");
    }
    text
}

fn all_moved(before: &Metrics, after: &Metrics) -> BTreeMap<String, f64> {
    let counters = after.samples().iter().filter(|sample| sample.name.ends_with("_total"));
    let moved = counters.map(|sample| (title(sample), sample.value - value(before, sample)));
    moved.filter(|(_, by)| *by > 0.0).collect()
}

fn title(sample: &Sample) -> String {
    let labels: Vec<_> = sample.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() { sample.name.clone() } else { format!("{}{{{}}}", sample.name, labels.join(",")) }
}

fn value(metrics: &Metrics, like: &Sample) -> f64 {
    let same = |sample: &&Sample| sample.name == like.name && sample.labels == like.labels;
    metrics.samples().iter().find(same).map_or(0.0, |sample| sample.value)
}

#[cfg(test)]
mod tests {
    use super::{draw, moved};
    use crate::lab::Metrics;

    #[test]
    fn shows_what_moved_and_nothing_else() {
        let text = |out: u32| {
            let text = format!(
                "# TYPE peer_packets counter\npeer_packets_total{{path=\"forwarded_out\"}} {out}\n\
                 peer_packets_total{{path=\"to_node\"}} 7\n"
            );
            Metrics::parse(&text).expect("valid")
        };
        let (before, after) = (text(2), text(14));
        assert_eq!(moved(&before, &after, "peer_packets_total", &[]), 12.0);
        let drawn = draw("UDP", &before, &after);
        assert!(drawn.contains("forwarded out         12"), "{drawn}");
        assert!(drawn.contains("peer_packets_total{path=forwarded_out}") && !drawn.contains("to_node"), "{drawn}");
    }
}
