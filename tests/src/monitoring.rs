//! What lies in `deploy/monitoring`: rules, dashboard, and whether they speak of metrics that exist.

mod dashboard;
mod expression;
mod reference;
mod rules;

use std::path::PathBuf;

use crate::manifests::workspace;

pub use dashboard::{Dashboard, Query};
pub use expression::{Names, faults};
pub use reference::{Family, families, reference};
pub use rules::{Alert, Rules};

/// A path below the repository's root.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    workspace().join(path)
}
