//! `docs/metrics.md`, as it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use super::rules::Alert;
use crate::lab::Metrics;

/// Labels whose values come from the node, its network, or the build.
const OPEN: [&str; 10] = ["device", "hardened", "le", "mode", "name", "peer", "profile", "route", "shard", "version"];

/// A family of metrics, as OpenMetrics declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, without `_total`.
    pub name: String,
    /// `counter`, `gauge`, `histogram`.
    pub kind: String,
    /// Empty: none.
    pub unit: String,
    /// What it means.
    pub help: String,
    /// Labels, and the values that they had.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

impl Family {
    /// The name that queries use.
    #[must_use]
    pub fn sample_name(&self) -> String {
        if self.kind == "counter" { format!("{}_total", self.name) } else { self.name.clone() }
    }
}

/// All families of an exposition, by name.
///
/// # Errors
/// One is not declared in full.
pub fn families(open_metrics: &str) -> Result<Vec<Family>> {
    let metrics = Metrics::parse(open_metrics)?;
    let mut families = BTreeMap::new();
    let declared = |keyword: &str| -> BTreeMap<&str, &str> {
        open_metrics.lines().filter_map(|line| line.strip_prefix(keyword)?.split_once(' ')).collect()
    };
    let (helps, units) = (declared("# HELP "), declared("# UNIT "));
    for (name, kind) in declared("# TYPE ") {
        let help = (*helps.get(name).with_context(|| format!("{name} has no help"))?).to_owned();
        let unit = units.get(name).map(|unit| (*unit).to_owned()).unwrap_or_default();
        let family = Family { name: name.to_owned(), kind: kind.to_owned(), unit, help, labels: BTreeMap::new() };
        families.insert(name, family);
    }
    for sample in metrics.samples() {
        let suffixes = ["", "_total", "_bucket", "_sum", "_count"];
        let family = suffixes
            .iter()
            .find_map(|suffix| sample.name.strip_suffix(suffix).filter(|name| families.contains_key(name)));
        let family =
            family.and_then(|name| families.get_mut(name)).with_context(|| format!("{} has no type", sample.name))?;
        for (label, value) in &sample.labels {
            family.labels.entry(label.clone()).or_default().insert(value.clone());
        }
    }
    ensure!(!families.is_empty(), "nothing is exposed");
    Ok(families.into_values().collect())
}

/// The document.
#[must_use]
pub fn reference(families: &[Family], alerts: &[Alert]) -> String {
    let mut text = String::from(
        "# Metrics and alerts\n\n\
         Made from what a running daemon exposes and from `deploy/monitoring/prometheusrule.yaml` by \
         `PEER_WRITE_DOCS=1 cargo test -p peer-tests --test monitoring reference`; a test compares. Do not edit.\n\n\
         `/metrics` on the health listener speaks OpenMetrics with those who ask for it, as Prometheus does, and Prometheus' \
         older text format with others. The page is made at most once a second and shared by all who ask. Counters begin anew with the process, those of the programs with their maps. No table \
         makes more series than a fixed number: routes have 200 of their own, peers with traffic 100, and what the others carry \
         is summed up under `other`.\n\n\
         ## Metrics\n\n| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n",
    );
    for family in families {
        let labels = family.labels.iter().filter(|(label, _)| *label != "le").map(label).collect::<Vec<_>>().join("; ");
        let (name, kind, unit, help) =
            (family.sample_name(), &family.kind, &family.unit, family.help.replace('|', "\\|"));
        writeln!(text, "| `{name}` | {kind} | {unit} | {labels} | {help} |").expect("a string");
    }
    text.push_str("\n## Alerts\n\n| alert | severity | when | for | meaning |\n|---|---|---|---|---|\n");
    for alert in alerts {
        let Alert { name, expression, hold, severity, description, runbook, .. } = alert;
        let link = runbook.strip_prefix("docs/").unwrap_or(runbook);
        let expression = expression.replace('|', "\\|");
        let description = filled(description);
        writeln!(text, "| [`{name}`]({link}) | {severity} | `{expression}` | {hold} | {description} |")
            .expect("a string");
    }
    text
}

/// With a letter in place of the figures that Prometheus fills in.
fn filled(template: &str) -> String {
    let mut parts = template.split("{{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "N" + part.split_once("}}").map_or("", |(_, rest)| rest))
}

/// A label, with its values where they are few and always the same.
fn label((label, values): (&String, &BTreeSet<String>)) -> String {
    const FEW: usize = 8;
    if OPEN.contains(&label.as_str()) || values.len() > FEW {
        return format!("`{label}`");
    }
    let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{label}`: {}", values.join(", "))
}
