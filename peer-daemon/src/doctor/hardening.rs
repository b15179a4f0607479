//! What the running daemon has more than it needs.

use std::collections::BTreeMap;

use peer_confine::Measure;
use peer_dataplane::doctor::{Check, Finding, Severity};

/// A warning for each measure that the daemon's status reports as not in force. Measures of another release, which have no
/// remedy here, are left out.
pub(super) fn findings(status: &BTreeMap<String, bool>) -> impl Iterator<Item = Finding> {
    let missing = |measure: &Measure| status.get(measure.name()) == Some(&false);
    Measure::ALL.into_iter().filter(missing).map(|measure| Finding {
        check: Check::Hardening,
        severity: Severity::Warning,
        subject: Some(measure.name().to_owned()),
        owner: None,
        what: "not in force: the daemon has more than it needs".to_owned(),
        remedy: measure.remedy().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_reported_as_missing_is_found() {
        let status = [("seccomp", false), ("no_core", true), ("of_tomorrow", false)];
        let status = status.map(|(name, on)| (name.to_owned(), on)).into();
        let found: Vec<_> = findings(&status).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].check, found[0].subject.as_deref()), (Check::Hardening, Some("seccomp")));
        assert_eq!(found[0].remedy, Measure::Seccomp.remedy());
        assert_eq!(findings(&BTreeMap::new()).count(), 0, "a daemon of before says nothing");
    }
}
