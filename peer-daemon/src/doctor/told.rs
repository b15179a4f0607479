//! What the running daemon found, and what was found here, as one list.

use peer_dataplane::doctor;

use super::Finding;

/// The daemon's findings with ours. Of what both found, ours may name an owner that the daemon is not allowed to see. What only
/// we found stands where `is_asked_for` says so: else we just know less of what the daemon is to do.
pub(super) fn merge(
    daemon: &[Finding],
    own: &[doctor::Finding],
    is_asked_for: impl Fn(&doctor::Finding) -> bool,
) -> Vec<Finding> {
    let same = |one: &Finding, other: &Finding| {
        (&one.check, &one.severity, &one.subject, &one.what)
            == (&other.check, &other.severity, &other.subject, &other.what)
    };
    let mut found: Vec<Finding> = daemon.to_vec();
    for ours in own {
        let finding = Finding::from(ours);
        match found.iter_mut().find(|known| same(known, &finding)) {
            Some(known) => known.owner = known.owner.take().or(finding.owner),
            None if is_asked_for(ours) => found.push(finding),
            None => {}
        }
    }
    found.sort_by_key(|finding| severity(&finding.severity));
    found
}

/// The worst first; what a newer daemon has and we do not know comes last.
fn severity(name: &str) -> usize {
    use doctor::Severity::{Note, Problem, Unknown, Warning};
    let order = [Problem, Warning, Unknown, Note];
    order.iter().position(|severity| severity.name() == name).unwrap_or(order.len())
}

#[cfg(test)]
mod tests {
    use peer_dataplane::doctor::{Check, Severity};

    use super::*;

    fn finding(check: Check, severity: Severity, what: &str) -> doctor::Finding {
        doctor::Finding {
            check,
            severity,
            subject: Some("10.222.0.0/24".to_owned()),
            owner: None,
            what: what.to_owned(),
            remedy: String::new(),
        }
    }

    #[test]
    fn what_the_daemon_found_stands_and_comes_once() {
        let unserved = finding(Check::Uplinks, Severity::Problem, "the route is not served");
        let note = finding(Check::Forwarding6, Severity::Note, "off");
        let owned = doctor::Finding { owner: Some("Cilium".to_owned()), ..unserved.clone() };
        let found = merge(&[Finding::from(&note), Finding::from(&unserved)], std::slice::from_ref(&owned), |_| false);
        assert_eq!(found, [Finding::from(&owned), Finding::from(&note)], "the worst first, with the owner that we see");
    }

    #[test]
    fn what_only_we_found_needs_to_be_asked_for() {
        let own =
            [finding(Check::Kernel, Severity::Warning, "no TCX"), finding(Check::Mtu, Severity::Warning, "large")];
        let found = merge(&[], &own, |finding| finding.check == Check::Kernel);
        assert_eq!(found, [Finding::from(&own[0])]);
    }
}
