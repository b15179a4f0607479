//! What must hold.

use std::fmt::Write as _;

use anyhow::Result;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// Checks in the order they were made.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Check>);

#[derive(Debug)]
struct Check {
    name: &'static str,
    passed: bool,
    detail: String,
}

impl Checks {
    /// Passed with what was seen, or failed with what was wrong.
    pub(crate) fn add(&mut self, name: &'static str, outcome: Result<String>) {
        let passed = outcome.is_ok();
        let detail = outcome.unwrap_or_else(|error| format!("{error:#}"));
        self.0.push(Check { name, passed, detail });
    }

    /// Every check passed, and there was one.
    pub(crate) fn all_passed(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|check| check.passed)
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let width = self.0.iter().map(|check| check.name.len()).max().unwrap_or_default();
        let mut text = String::new();
        for Check { name, passed, detail } in &self.0 {
            let mark = if *passed { "pass" } else { "FAIL" };
            let _ = writeln!(text, "{mark}  {name:width$}  {detail}");
        }
        text
    }
}

impl Serialize for Checks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for check in &self.0 {
            map.serialize_entry(check.name, &check.passed)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::Checks;

    #[test]
    fn one_failure_fails_all_and_none_is_not_enough() {
        let mut checks = Checks::default();
        assert!(!checks.all_passed());
        checks.add("first", Ok("seen".to_owned()));
        assert!(checks.all_passed());
        checks.add("second", Err(anyhow!("inner").context("outer")));
        assert!(!checks.all_passed());
        assert_eq!(checks.table(), "pass  first   seen\nFAIL  second  outer: inner\n");
        assert_eq!(serde_json::to_string(&checks).expect("JSON"), r#"{"first":true,"second":false}"#);
    }
}
