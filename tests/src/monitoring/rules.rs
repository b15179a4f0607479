//! The alerts.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::repository;
use crate::manifests::parse;

/// `prometheusrule.yaml`.
#[derive(Clone, Debug)]
pub struct Rules(Value);

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// What it watches.
    pub expression: String,
    /// How long that must hold; empty: not at all.
    pub hold: String,
    /// `critical`, `warning`, `info`.
    pub severity: String,
    /// One line.
    pub summary: String,
    /// What it means.
    pub description: String,
    /// Where to read on: a file of the repository and an anchor in it.
    pub runbook: String,
}

impl Rules {
    /// Reads them.
    ///
    /// # Errors
    /// The file is missing, or not what the Prometheus operator takes.
    pub fn load() -> Result<Self> {
        let path = repository("deploy/monitoring/prometheusrule.yaml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let objects = parse(&text).context("prometheusrule.yaml")?;
        let [object] = &objects[..] else { bail!("{} objects in prometheusrule.yaml", objects.len()) };
        let kind = (&object["apiVersion"], &object["kind"]);
        ensure!(kind == (&json!("monitoring.coreos.com/v1"), &json!("PrometheusRule")), "{kind:?}");
        Ok(Self(object["spec"].clone()))
    }

    /// All alerts, in their order.
    ///
    /// # Errors
    /// One lacks a field.
    pub fn alerts(&self) -> Result<Vec<Alert>> {
        self.groups().flat_map(|group| group["rules"].as_array().into_iter().flatten()).map(alert).collect()
    }

    /// As a rules file: JSON, which is YAML as well.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// The same without annotations: unit tests would have to repeat them word by word.
    #[must_use]
    pub fn without_annotations(&self) -> String {
        self.changed(|rule| {
            rule.remove("annotations");
        })
    }

    /// The same with every time span cut to a few seconds; nothing else of the expressions changes.
    #[must_use]
    pub fn hastened(&self, window: &str, hold: &str) -> String {
        self.changed(|rule| {
            if rule.contains_key("for") {
                rule.insert("for".to_owned(), hold.into());
            }
            if let Some(Value::String(expression)) = rule.get_mut("expr") {
                *expression = hasten(expression, window);
            }
        })
    }

    fn groups(&self) -> impl Iterator<Item = &Value> {
        self.0["groups"].as_array().into_iter().flatten()
    }

    fn changed(&self, change: impl Fn(&mut serde_json::Map<String, Value>)) -> String {
        let mut spec = self.0.clone();
        for group in spec["groups"].as_array_mut().into_iter().flatten() {
            for rule in group["rules"].as_array_mut().into_iter().flatten() {
                rule.as_object_mut().into_iter().for_each(&change);
            }
        }
        spec.to_string()
    }
}

fn alert(rule: &Value) -> Result<Alert> {
    let field = |value: &Value, name: &str| -> Result<String> {
        let text = value.as_str().with_context(|| format!("{}: no {name}", rule["alert"]))?;
        ensure!(!text.trim().is_empty(), "{}: an empty {name}", rule["alert"]);
        Ok(text.to_owned())
    };
    let annotations = &rule["annotations"];
    Ok(Alert {
        name: field(&rule["alert"], "alert")?,
        expression: field(&rule["expr"], "expr")?,
        hold: rule["for"].as_str().unwrap_or_default().to_owned(),
        severity: field(&rule["labels"]["severity"], "severity")?,
        summary: field(&annotations["summary"], "summary")?,
        description: field(&annotations["description"], "description")?,
        runbook: field(&annotations["runbook"], "runbook")?,
    })
}

/// Every window `[…]` of an expression becomes this one.
fn hasten(expression: &str, window: &str) -> String {
    let mut out = String::new();
    let mut rest = expression;
    while let Some((before, after)) = rest.split_once('[') {
        let (_, behind) = after.split_once(']').unwrap_or((after, ""));
        out.extend([before, "[", window, "]"]);
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_cut_and_nothing_else() {
        assert_eq!(
            hasten("sum(rate(a[5m])) / rate(b{c=\"d\"}[1h]) > 3", "9s"),
            "sum(rate(a[9s])) / rate(b{c=\"d\"}[9s]) > 3"
        );
        assert_eq!(hasten("a == 0", "9s"), "a == 0");
    }
}
