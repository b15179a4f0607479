//! What is certainly wrong with a wall clock.
//!
//! Only what is certain: that the kernel calls the clock unsynchronised is no finding, as virtual machines and containers often
//! have a good clock that nobody in them disciplines.

use std::path::Path;
use std::time::Duration;

use peer_dataplane::doctor::{Check, Finding, Severity};
use peer_identity::StampFile;

use super::reading::Reading;

/// 2026-01-01. No release is older, so that a clock before it is not set; to be moved on with releases.
const RELEASED: Duration = Duration::from_secs(1_767_225_600);
/// So far behind its earlier self a clock may be: what is reserved for a reboot, and some more.
const BEHIND: Duration = Duration::from_secs(super::stamps::RESERVE.as_secs() + 60);

const REMEDY: &str = "set it by a time service (chrony, systemd-timesyncd, NTP of the hypervisor), and give the machine a clock that \
                      survives a power cut";

/// A clock that was never set.
pub(super) fn unset(wall: Duration) -> Option<Finding> {
    let what = || {
        format!(
            "the wall clock says {}, which is before this release: certificates of servers are refused as not valid yet",
            text(wall)
        )
    };
    (wall < RELEASED).then(|| finding(Severity::Problem, what()))
}

/// A clock behind what it has said before.
pub(super) fn behind(wall: Duration, stamped: Duration) -> Option<Finding> {
    let by = stamped.checked_sub(wall).filter(|by| *by > BEHIND)?;
    let what = format!(
        "the wall clock says {}, and has said {} before: handshakes are stamped from there on, {} s ahead of it, as peers refuse earlier \
         ones; another client with this key could not begin any until then",
        text(wall),
        text(stamped),
        by.as_secs()
    );
    Some(finding(Severity::Warning, what))
}

/// What is wrong now, as far as the state directory shows it.
pub(crate) fn findings(state_dir: &Path) -> Vec<Finding> {
    let Reading { wall, boot, .. } = Reading::now();
    // One that cannot be read is not about the clock; the daemon that needs it says so.
    let kept = StampFile::look(state_dir).ok().flatten();
    let stamped = kept.map(|kept| kept.newest(&super::stamps::boot_id(), boot));
    [unset(wall), stamped.and_then(|stamped| behind(wall, stamped))].into_iter().flatten().collect()
}

fn finding(severity: Severity, what: String) -> Finding {
    Finding { check: Check::Clock, severity, subject: None, owner: None, what, remedy: REMEDY.to_owned() }
}

fn text(unix: Duration) -> String {
    let time = i64::try_from(unix.as_secs()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| format!("{} s since 1970", unix.as_secs()), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_1970_is_a_problem_and_one_of_today_is_none() {
        let finding = unset(Duration::from_secs(3600)).expect("wrong");
        assert_eq!((finding.check, finding.severity), (Check::Clock, Severity::Problem));
        assert!(
            finding.what.contains("1970-01-01T01:00:00Z") && finding.remedy.contains("time service"),
            "{finding:?}"
        );
        assert_eq!(unset(RELEASED), None);
        assert_eq!(unset(Reading::now().wall), None, "of the machine that runs this test");
    }

    #[test]
    fn a_clock_behind_what_it_has_said_before_is_a_warning() {
        let wall = RELEASED + Duration::from_secs(1000);
        let finding = behind(wall, wall + Duration::from_secs(7200)).expect("wrong");
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.what.contains("2026-01-01T00:16:40Z") && finding.what.contains("7200 s ahead"), "{finding:?}");
        // A reboot within what was reserved ahead is the ordinary case.
        assert_eq!(behind(wall, wall + super::super::stamps::RESERVE), None);
        assert_eq!(behind(wall, wall - Duration::from_secs(1)), None);
    }

    #[test]
    fn the_doctor_reads_what_the_daemon_has_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(findings(dir.path()), []);
        let own = peer_core::key::PublicKey([1; 32]);
        let file = StampFile::open(dir.path(), own).expect("opened");
        let ahead = Reading::now().wall + Duration::from_secs(86_400);
        file.write(&super::super::stamps::kept(ahead, super::super::stamps::RESERVE)).expect("written");
        let found = findings(dir.path());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.contains("ahead of it"), "{found:?}");
    }
}
