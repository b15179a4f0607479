//! What an image was made from.

use std::env;

use anyhow::{Context as _, Result};

use crate::process::{self, command};

/// A commit, and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// `None`: this is no checkout.
    pub(crate) revision: Option<String>,
    /// RFC 3339. Of the commit, so that the same sources give the same image.
    pub(crate) created: String,
}

impl Source {
    /// What git says; `SOURCE_DATE_EPOCH` counts more.
    pub(crate) fn find() -> Result<Self> {
        let git = |arguments: &[&str]| {
            let said = process::output(command("git").args(arguments)).ok()?;
            Some(said.trim().to_owned())
        };
        let revision = git(&["rev-parse", "HEAD"]).map(|commit| match git(&["status", "--porcelain"]).as_deref() {
            Some("") => commit,
            _ => commit + "-dirty",
        });
        let said = env::var("SOURCE_DATE_EPOCH").ok();
        let committed = || git(&["log", "-1", "--format=%ct"]);
        Ok(Self { revision, created: date(said.or_else(committed).as_deref().unwrap_or("0"))? })
    }
}

fn date(seconds: &str) -> Result<String> {
    let parsed = seconds.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let time = parsed.with_context(|| format!("SOURCE_DATE_EPOCH={seconds}: not seconds since 1970"))?;
    Ok(time.to_string())
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn seconds_become_a_date() {
        assert_eq!(date("1700000000").expect("seconds"), "2023-11-14T22:13:20Z");
        let error = date("yesterday").expect_err("no number").to_string();
        assert!(error.contains("SOURCE_DATE_EPOCH") && error.contains("yesterday"), "{error}");
    }
}
