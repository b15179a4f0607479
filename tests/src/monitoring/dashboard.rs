//! The dashboard.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::repository;

/// `dashboard.json`.
#[derive(Clone, Debug)]
pub struct Dashboard(Value);

/// One query of a panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The panel's title.
    pub panel: String,
    /// The expression, with Grafana's variables in it.
    pub expression: String,
}

impl Dashboard {
    /// Reads it.
    ///
    /// # Errors
    /// The file is missing or no JSON.
    pub fn load() -> Result<Self> {
        let path = repository("deploy/monitoring/dashboard.json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self(serde_json::from_str(&text).context("dashboard.json")?))
    }

    /// All panels but the rows between them.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        self.0["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] != "row")
    }

    /// All queries of all panels.
    pub fn queries(&self) -> impl Iterator<Item = Query> {
        self.panels().flat_map(|panel| {
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.map(|target| Query {
                panel: panel["title"].as_str().unwrap_or_default().to_owned(),
                expression: target["expr"].as_str().unwrap_or_default().to_owned(),
            })
        })
    }
}

impl Query {
    /// As Grafana sends it for all nodes, with this window for rates.
    #[must_use]
    pub fn filled(&self, window: &str) -> String {
        self.expression.replace("$__rate_interval", window).replace("$instance", ".*")
    }
}
