//! How metrics are named and written, and how many series a table may have.
//!
//! Collectors call [`describe`] and its short forms, so that a unit at the end of a name is declared as one. What is
//! encoded is OpenMetrics; [`classic()`] makes of it what older readers want. [`Series`] bounds the labels of tables that
//! grow with the network.
#![forbid(unsafe_code)]

mod classic;
mod series;
mod shown;

pub use classic::classic;
pub use series::Series;
pub use shown::{Figures, Shown};

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Units that a name may end with: the base units of OpenMetrics that we have use for.
static UNITS: [Unit; 2] = [Unit::Seconds, Unit::Bytes];

/// Begins a family. A unit at the end of `name` is declared; the names of counters come without `_total`.
///
/// # Errors
/// When the text cannot be written.
pub fn describe<'s>(
    encoder: &'s mut DescriptorEncoder<'_>,
    name: &'s str,
    help: &str,
    kind: MetricType,
) -> Result<MetricEncoder<'s>, fmt::Error> {
    let split = |unit: &'static Unit| Some((name.strip_suffix(unit.as_str())?.strip_suffix('_')?, unit));
    match UNITS.iter().find_map(split) {
        Some((stem, unit)) => encoder.encode_descriptor(stem, help, Some(unit), kind),
        None => encoder.encode_descriptor(name, help, None, kind),
    }
}

/// A counter without labels.
///
/// # Errors
/// When the text cannot be written.
pub fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(describe(encoder, name, help, MetricType::Counter)?)
}

/// A counter with labels.
///
/// # Errors
/// When the text cannot be written.
pub fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = describe(encoder, name, help, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A gauge without labels.
///
/// # Errors
/// When the text cannot be written.
pub fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstGauge::new(value).encode(describe(encoder, name, help, MetricType::Gauge)?)
}

/// A gauge with labels.
///
/// # Errors
/// When the text cannot be written.
pub fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = describe(encoder, name, help, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A gauge of time; `name` ends with `_seconds`.
///
/// # Errors
/// When the text cannot be written.
pub fn seconds(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, time: Duration) -> fmt::Result {
    ConstGauge::new(time.as_secs_f64()).encode(describe(encoder, name, help, MetricType::Gauge)?)
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct Two;

    impl Collector for Two {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            counters(&mut encoder, "peer_x_bytes", "X.", [([("way", "in")], 3), ([("way", "out")], 4)])?;
            gauge(&mut encoder, "peer_x_peers", "Y.", 5)?;
            seconds(&mut encoder, "peer_x_seconds", "Z.", Duration::from_millis(1500))
        }
    }

    #[test]
    fn a_unit_at_the_end_of_a_name_is_declared() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Two));
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        let expected = "# HELP peer_x_bytes X.\n# TYPE peer_x_bytes counter\n# UNIT peer_x_bytes bytes\n\
                        peer_x_bytes_total{way=\"in\"} 3\npeer_x_bytes_total{way=\"out\"} 4\n\
                        # HELP peer_x_peers Y.\n# TYPE peer_x_peers gauge\npeer_x_peers 5\n\
                        # HELP peer_x_seconds Z.\n# TYPE peer_x_seconds gauge\n# UNIT peer_x_seconds seconds\n\
                        peer_x_seconds 1.5\n# EOF\n";
        assert_eq!(text, expected);
    }
}
