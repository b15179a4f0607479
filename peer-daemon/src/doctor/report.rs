//! The findings as JSON and as text. Fields of the JSON are only ever added.

use std::fmt;
use std::process::ExitCode;

use peer_dataplane::doctor::{self, Severity};
use serde::{Deserialize, Serialize};

use crate::status::{Answer, NobodyAnswers};

/// Name of a check that is none of the node's: what a running peer says of itself.
const READINESS: &str = "readiness";
/// Something is wrong.
const EXIT_CONFLICT: u8 = 1;
/// Something could not be looked at.
pub(super) const EXIT_UNKNOWN: u8 = 2;

/// Everything that was found.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Report {
    version: String,
    /// The mesh device that it is about.
    device: String,
    /// Whether its peer runs.
    running: bool,
    /// Whether that is ready; absent: it does not run.
    ready: Option<bool>,
    /// Findings that something is to be done about.
    conflicts: usize,
    /// Findings that something could not be looked at.
    unknown: usize,
    /// The worst first.
    findings: Vec<Finding>,
}

/// One finding.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Name of the check.
    pub(crate) check: String,
    /// `problem`, `warning`, `unknown` or `note`.
    pub(crate) severity: String,
    /// Device, file or route.
    pub(crate) subject: Option<String>,
    /// Who causes it.
    pub(crate) owner: Option<String>,
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl From<&doctor::Finding> for Finding {
    fn from(finding: &doctor::Finding) -> Self {
        Self {
            check: finding.check.name().to_owned(),
            severity: finding.severity.name().to_owned(),
            subject: finding.subject.clone(),
            owner: finding.owner.clone(),
            what: finding.what.clone(),
            remedy: (!finding.remedy.is_empty()).then(|| finding.remedy.clone()),
        }
    }
}

impl Finding {
    /// What a running peer says of its readiness: a problem for each part that is not ready, and for management if that may be why.
    pub(super) fn of_readiness(answer: &Answer) -> Vec<Self> {
        let Answer { overview, node } = answer;
        let problem = |subject: &str, what: &str| Self {
            check: READINESS.to_owned(),
            severity: Severity::Problem.name().to_owned(),
            subject: Some(subject.to_owned()),
            owner: None,
            what: format!("not ready: {what}"),
            remedy: None,
        };
        let parts = node.parts.iter().filter(|part| !part.ready);
        let mut found: Vec<_> = parts.map(|part| problem(&part.name, part.reason.as_deref().unwrap_or("-"))).collect();
        let management = &overview.management;
        if !found.is_empty() && !management.connected && !management.error.is_empty() {
            found.push(problem(&management.url, &management.error));
        }
        found
    }
}

impl Finding {
    /// What it means that the running peer gives no answer; nothing, if none runs.
    pub(super) fn of_silence(error: &anyhow::Error) -> Option<Self> {
        let (severity, what, remedy) = match error.downcast_ref::<NobodyAnswers>() {
            Some(NobodyAnswers { forbidden: false, .. }) => return None,
            Some(_) => {
                (Severity::Unknown, "a peer may run here, and must not be asked", "run doctor as the daemon's user")
            }
            None => (Severity::Problem, "the running peer gives no usable answer", "look at its log, and restart it"),
        };
        Some(Self {
            check: READINESS.to_owned(),
            severity: severity.name().to_owned(),
            subject: None,
            owner: None,
            what: format!("{what}: {error:#}"),
            remedy: Some(remedy.to_owned()),
        })
    }
}

impl Report {
    /// `ready`: whether the peer is, if it runs.
    pub(super) fn new(device: &str, ready: Option<bool>, findings: Vec<Finding>) -> Self {
        let of = |severity: Severity| findings.iter().filter(|finding| finding.severity == severity.name()).count();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.to_owned(),
            running: ready.is_some(),
            ready,
            conflicts: of(Severity::Problem) + of(Severity::Warning),
            unknown: of(Severity::Unknown),
            findings,
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match (self.conflicts, self.unknown) {
            (0, 0) => 0,
            (0, _) => EXIT_UNKNOWN,
            _ => EXIT_CONFLICT,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.ready {
            None if self.findings.iter().any(|finding| finding.check == READINESS) => "no answer",
            None => "not running",
            Some(true) => "running",
            Some(false) => "running, not ready",
        };
        writeln!(f, "Peer of {}: {state}", self.device)?;
        self.findings.iter().try_for_each(|finding| write!(f, "{finding}"))?;
        match (self.conflicts, self.unknown) {
            (0, 0) => writeln!(f, "Nothing stands in the way."),
            (conflicts, 0) => writeln!(f, "Conflicts: {conflicts}"),
            (conflicts, unknown) => writeln!(f, "Conflicts: {conflicts}, not looked at: {unknown}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.severity, self.check)?;
        if let Some(subject) = &self.subject {
            write!(f, " {subject}")?;
        }
        writeln!(f, ": {}", self.what)?;
        if let Some(owner) = &self.owner {
            writeln!(f, "  owner: {owner}")?;
        }
        if let Some(remedy) = &self.remedy {
            writeln!(f, "  remedy: {remedy}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use peer_dataplane::doctor::Check;

    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding::from(&doctor::Finding {
            check: Check::Order,
            severity,
            subject: Some("eth0".into()),
            owner: Some("Cilium (cil_from_netdev)".into()),
            what: "it runs before ours".into(),
            remedy: "wait".into(),
        })
    }

    #[test]
    fn the_exit_code_tells_wrong_from_not_looked_at() {
        let code = |severities: &[Severity]| {
            let findings: Vec<_> = severities.iter().map(|severity| finding(*severity)).collect();
            Report::new("wt0", Some(true), findings).code()
        };
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[Severity::Note]), 0);
        assert_eq!(code(&[Severity::Warning]), 1);
        assert_eq!(code(&[Severity::Problem, Severity::Unknown]), 1);
        assert_eq!(code(&[Severity::Unknown, Severity::Note]), 2);
    }

    #[test]
    fn text_names_owner_and_remedy() {
        let text = Report::new("wt0", None, vec![finding(Severity::Problem)]).to_string();
        let expected = "Peer of wt0: not running\nproblem [order] eth0: it runs before ours\n  owner: Cilium \
                        (cil_from_netdev)\n  remedy: wait\nConflicts: 1\n";
        assert_eq!(text, expected);
        assert!(Report::new("wt0", Some(true), Vec::new()).to_string().ends_with("Nothing stands in the way.\n"));
    }

    #[test]
    fn a_peer_that_does_not_answer_is_not_taken_for_none() {
        let none = anyhow::Error::from(NobodyAnswers { refused: String::new(), forbidden: false });
        assert_eq!(Finding::of_silence(&none), None);
        let forbidden = anyhow::Error::from(NobodyAnswers { refused: String::new(), forbidden: true });
        for (error, code) in [(forbidden, EXIT_UNKNOWN), (anyhow::anyhow!("no answer within 5 s"), EXIT_CONFLICT)] {
            let report = Report::new("wt0", None, Finding::of_silence(&error).into_iter().collect());
            assert_eq!(report.code(), code, "{report}");
            assert!(report.to_string().starts_with("Peer of wt0: no answer\n"), "{report}");
        }
    }

    #[test]
    fn json_has_every_field() {
        let report = Report::new("wt0", Some(true), vec![finding(Severity::Warning)]);
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!((&json["conflicts"], &json["unknown"], &json["running"]), (&1.into(), &0.into(), &true.into()));
        let expected = serde_json::json!({
            "check": "order", "severity": "warning", "subject": "eth0", "owner": "Cilium (cil_from_netdev)",
            "what": "it runs before ours", "remedy": "wait",
        });
        assert_eq!(json["findings"][0], expected);
    }
}
