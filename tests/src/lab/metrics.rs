//! A strict reader of metrics text: Prometheus text format, and OpenMetrics where it differs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name with suffix.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// A whole exposition.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads an exposition.
    ///
    /// # Errors
    /// A line that the format does not have, a family declared twice, a sample without a declared family, a sample given
    /// twice, text after `# EOF`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut metrics = Self::default();
        let (mut helped, mut seen, mut ended) = (BTreeSet::new(), BTreeSet::new(), false);
        ensure!(text.ends_with('\n'), "the last line is not ended");
        for (number, line) in text.lines().enumerate() {
            metrics
                .line(line, &mut helped, &mut seen, &mut ended)
                .with_context(|| format!("line {}: {line}", number + 1))?;
        }
        Ok(metrics)
    }

    /// Sum of all samples of `name` that have these labels, and maybe more; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(matches).map(|sample| sample.value).sum()
    }

    /// All samples.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    fn line(
        &mut self,
        line: &str,
        helped: &mut BTreeSet<String>,
        seen: &mut BTreeSet<String>,
        ended: &mut bool,
    ) -> Result<()> {
        ensure!(!*ended, "text after # EOF");
        if line.is_empty() {
            return Ok(());
        }
        if line == "# EOF" {
            *ended = true;
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap_or_default();
            check_name(name)?;
            ensure!(helped.insert(name.to_owned()), "a second HELP");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("TYPE without a type")?;
            check_name(name)?;
            let known = ["counter", "gauge", "histogram", "summary", "untyped", "unknown", "info", "stateset"];
            ensure!(known.contains(&kind), "unknown type {kind}");
            ensure!(self.types.insert(name.to_owned(), kind.to_owned()).is_none(), "a second TYPE");
        } else if line.starts_with("# UNIT ") {
            return Ok(());
        } else if line.starts_with('#') {
            bail!("neither HELP nor TYPE nor UNIT nor EOF");
        } else {
            let sample = parse_sample(line)?;
            ensure!(self.has_family(&sample.name), "no TYPE before it");
            ensure!(seen.insert(format!("{}{:?}", sample.name, sample.labels)), "the same sample again");
            self.samples.push(sample);
        }
        Ok(())
    }

    fn has_family(&self, name: &str) -> bool {
        let suffixes = ["", "_total", "_created", "_bucket", "_sum", "_count", "_info"];
        suffixes.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|family| self.types.contains_key(family)))
    }
}

fn check_name(name: &str) -> Result<()> {
    let valid = |(index, byte): (usize, u8)| {
        byte.is_ascii_alphabetic() || byte == b'_' || byte == b':' || (index > 0 && byte.is_ascii_digit())
    };
    ensure!(!name.is_empty() && name.bytes().enumerate().all(valid), "bad name {name:?}");
    Ok(())
}

fn parse_sample(line: &str) -> Result<Sample> {
    let name_end = line.find(['{', ' ']).context("a name alone")?;
    let (name, rest) = line.split_at(name_end);
    check_name(name)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let mut fields = rest.strip_prefix(' ').context("no blank before the value")?.split(' ');
    let value = fields.next().context("no value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        text => text.parse().with_context(|| format!("bad value {text:?}"))?,
    };
    if let Some(time) = fields.next() {
        time.parse::<f64>().with_context(|| format!("bad time {time:?}"))?;
    }
    ensure!(fields.next().is_none(), "text after the value");
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Reads what follows `{`; returns what follows `}`.
fn parse_labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").context("a label without value")?;
        check_name(name)?;
        let (value, after) = parse_quoted(after)?;
        ensure!(labels.insert(name.to_owned(), value).is_none(), "label {name} twice");
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None if after.starts_with('}') => after,
            None => bail!("neither , nor }} after a label"),
        };
    }
}

/// Reads what follows `"`; returns what follows the closing one.
fn parse_quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('"' | '\\'))) => escaped,
                _ => bail!("bad escape"),
            }),
            other => value.push(other),
        }
    }
    bail!("a label value without end")
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    const TEXT: &str = "# HELP a_packets Packets.\n# TYPE a_packets counter\na_packets_total{path=\"x \\\"y\\\"\"} 3\n\
                        a_packets_total{path=\"z\"} 4.5\n# TYPE up gauge\nup 1\n# EOF\n";

    #[test]
    fn reads_and_sums() {
        let metrics = Metrics::parse(TEXT).expect("valid");
        assert_eq!(metrics.samples().len(), 3);
        assert_eq!(metrics.sum("a_packets_total", &[]), 7.5);
        assert_eq!(metrics.sum("a_packets_total", &[("path", "x \"y\"")]), 3.0);
        assert_eq!(metrics.sum("a_packets_total", &[("path", "none")]), 0.0);
    }

    #[test]
    fn refuses_what_the_format_does_not_have() {
        for bad in [
            "up 1\n",                                   // no TYPE
            "# TYPE up gauge\nup 1\nup 2\n",            // twice
            "# TYPE up gauge\n# TYPE up gauge\n",       // twice
            "# TYPE up gauge\nup\n",                    // no value
            "# TYPE up gauge\nup x\n",                  // no number
            "# TYPE up gauge\nup{a=\"b} 1\n",           // no end
            "# TYPE up gauge\nup{a=\"b\" c=\"d\"} 1\n", // no comma
            "# TYPE 1up gauge\n",                       // bad name
            "# TYPE up gauge\nup 1",                    // no line end
            "# EOF\n# TYPE up gauge\n",                 // after the end
        ] {
            assert!(Metrics::parse(bad).is_err(), "{bad}");
        }
    }
}
