//! Prometheus' text format 0.0.4, for readers that do not ask for OpenMetrics.

use std::collections::BTreeSet;

/// Rewrites what [`prometheus_client`] encodes. Counters are declared under the names of their samples there, and units and
/// the end have no line.
#[must_use]
pub fn classic(open_metrics: &str) -> String {
    let counters: BTreeSet<&str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open_metrics.len() + 6 * 2 * counters.len());
    for line in open_metrics.lines() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        match declaration(line).filter(|(_, name, _)| counters.contains(name)) {
            Some((keyword, name, rest)) => text.extend([keyword, name, "_total ", rest]),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// Keyword, name and the rest of a line that declares a family.
fn declaration(line: &str) -> Option<(&str, &str, &str)> {
    let (keyword, rest) = ["# HELP ", "# TYPE "].iter().find_map(|&word| Some((word, line.strip_prefix(word)?)))?;
    let (name, rest) = rest.split_once(' ')?;
    Some((keyword, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_declared_by_the_names_of_their_samples() {
        let open = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{x=\"# EOF\"} 3\n\
                    # HELP a A gauge.\n# TYPE a gauge\na 1\n# EOF\n";
        let expected = "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total{x=\"# EOF\"} 3\n\
                        # HELP a A gauge.\n# TYPE a gauge\na 1\n";
        assert_eq!(classic(open), expected);
    }
}
