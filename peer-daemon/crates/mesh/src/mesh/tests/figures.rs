//! What the metrics say.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::*;
use crate::metrics::PathCollector;

#[test]
fn paths_are_counted_as_they_change_and_timed_from_the_wish() {
    let mut lab = Lab::controller();
    lab.passed(700);
    lab.answer();
    lab.up(1);
    lab.handshake();
    lab.down(1);
    lab.passed(3000);
    lab.answer();
    lab.up(2);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(PathCollector::new(lab.mesh.stats())));
    let mut text = String::new();
    encode(&mut text, &registry).expect("text");
    for line in [
        r#"peer_mesh_path_changes_total{path="relay"} 2"#,
        r#"peer_mesh_path_changes_total{path="none"} 1"#,
        r#"peer_mesh_path_changes_total{path="direct"} 0"#,
        "peer_mesh_connect_seconds_sum 3.7",
        "peer_mesh_connect_seconds_count 2",
        r#"peer_mesh_connect_seconds_bucket{le="1.0"} 1"#,
        r#"peer_mesh_connect_seconds_bucket{le="5.0"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
