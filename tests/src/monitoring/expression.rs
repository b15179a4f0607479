//! Whether what an expression names exists.

use std::collections::{BTreeMap, BTreeSet};

use crate::lab::Metrics;

/// Labels that Prometheus gives to what it scrapes, and those that it makes itself.
const FOREIGN: [&str; 4] = ["instance", "job", "pod", "namespace"];

/// Metrics that exist: for each name of samples its labels, and their values.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Names {
    /// Of what a node exposes.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        let mut names = Self::default();
        for sample in metrics.samples() {
            let labels = names.0.entry(sample.name.clone()).or_default();
            for (label, value) in &sample.labels {
                labels.entry(label.clone()).or_default().insert(value.clone());
            }
        }
        names
    }
}

/// What an expression names that does not exist: metrics, labels, values of labels.
#[must_use]
pub fn faults(expression: &str, names: &Names) -> Vec<String> {
    let mut faults = Vec::new();
    let mut known: BTreeSet<&str> = FOREIGN.into();
    let mut any = false;
    for (name, matchers) in selectors(expression) {
        any = true;
        let Some(labels) = names.0.get(name) else {
            faults.push(format!("no metric {name}"));
            continue;
        };
        known.extend(labels.keys().map(String::as_str));
        for (label, value) in matchers {
            if FOREIGN.contains(&label) {
                continue;
            }
            let Some(values) = labels.get(label) else {
                faults.push(format!("{name} has no label {label}"));
                continue;
            };
            let absent = value.split('|').filter(|value| !values.contains(*value));
            faults.extend(absent.map(|value| format!("{name} has no {label}={value:?}")));
        }
    }
    if !any {
        faults.push("it names no metric".to_owned());
    }
    faults
        .extend(groupings(expression).filter(|label| !known.contains(label)).map(|label| format!("no label {label}")));
    faults
}

/// Names of our metrics in an expression, each with the labels and values in the braces behind it.
fn selectors(expression: &str) -> impl Iterator<Item = (&str, Vec<(&str, &str)>)> {
    words(expression).filter(|(_, word)| word.starts_with("peer_") || word.starts_with("process_")).map(
        |(end, name)| {
            let braces = expression[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
            (name, braces.map(|(inside, _)| matchers(inside)).unwrap_or_default())
        },
    )
}

/// `label="value"` and its like, parted by commas; no value of ours has one.
fn matchers(inside: &str) -> Vec<(&str, &str)> {
    let matcher = |text| -> Option<(&str, &str)> {
        let (label, rest) = str::split_once(text, ['=', '!'])?;
        Some((label.trim(), rest.trim_start_matches(['=', '~']).trim_matches('"')))
    };
    inside.split(',').filter_map(matcher).collect()
}

/// Labels behind `by`, `without`, `on` and `ignoring`.
fn groupings(expression: &str) -> impl Iterator<Item = &str> {
    let lists = words(expression).filter(|(_, word)| ["by", "without", "on", "ignoring"].contains(word));
    lists.flat_map(|(end, _)| {
        let list = expression[end..].trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')'));
        list.map(|(list, _)| list).unwrap_or_default().split(',').map(str::trim).filter(|label| !label.is_empty())
    })
}

/// Words outside quotes, each with the place behind it.
fn words(expression: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = expression.as_bytes();
    let (mut at, mut quoted) = (0, false);
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            if bytes[at] == b'"' {
                quoted = !quoted;
            }
            if quoted || !is_word(bytes[at]) {
                at += 1;
                continue;
            }
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
            return Some((at, &expression[start..at]));
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let text = "# TYPE peer_a counter\npeer_a_total{reason=\"x\",way=\"in\"} 1\npeer_a_total{reason=\"y\",way=\"in\"} 1\n\
                    # TYPE peer_b gauge\npeer_b 1\n";
        Names::of(&Metrics::parse(text).expect("valid"))
    }

    #[test]
    fn what_exists_has_no_faults() {
        for expression in [
            "peer_b == 0",
            r#"sum without (reason) (rate(peer_a_total{reason=~"x|y", instance=~".*"}[5m])) > 10"#,
            r#"sum by (way, instance) (peer_a_total{way!="in"}) / ignoring (way) peer_b"#,
            "absent(peer_b)",
        ] {
            assert_eq!(faults(expression, &names()), [""; 0], "{expression}");
        }
    }

    #[test]
    fn what_was_renamed_is_found() {
        for (expression, fault) in [
            ("peer_c == 0", "no metric peer_c"),
            ("rate(peer_a[5m])", "no metric peer_a"),
            (r#"peer_a_total{cause="x"}"#, "peer_a_total has no label cause"),
            (r#"peer_a_total{reason=~"x|z"}"#, "peer_a_total has no reason=\"z\""),
            (r#"sum by (cause) (peer_a_total)"#, "no label cause"),
            ("vector(1)", "it names no metric"),
        ] {
            assert_eq!(faults(expression, &names()), [fault], "{expression}");
        }
    }
}
