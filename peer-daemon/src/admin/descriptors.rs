//! File descriptors: as many as the process may have, and how many of them strangers may occupy.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What to do when they end.
pub(crate) const REMEDY: &str = "raise the limit of open files: LimitNOFILE in the systemd unit, ulimit -n in a shell";

/// What is assumed where there is no limit.
const PLENTY: usize = 1 << 20;

/// Raises the soft limit to the hard one. What is left is the reserve: listeners never take more than [`part`] of it.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => tracing::debug!(from = limit.current, to = limit.maximum, "open files"),
        Err(error) => tracing::warn!(%error, limit = limit.current, "the limit of open files stays"),
    }
}

/// Descriptors that the process may have.
pub(super) fn limit() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PLENTY)
}

/// How many of `wanted` a listener may have, so that sockets, device, tables and connections to servers find theirs.
pub(super) fn part(wanted: usize, limit: usize) -> usize {
    wanted.min(limit / 8).max(2)
}

/// Whether an error comes of having no descriptors left, of the process or of the system.
pub(crate) fn have_ended(error: &anyhow::Error) -> bool {
    let is = |error: &std::io::Error| {
        let errno = rustix::io::Errno::from_io_error(error);
        matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
    };
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_leave_most_descriptors_to_the_rest() {
        assert_eq!(part(96, 1024), 96);
        assert_eq!(part(96, 256), 32);
        assert_eq!(part(96, 0), 2);
    }

    #[test]
    fn an_error_of_too_many_open_files_is_known_below_its_context() {
        let of = |errno| anyhow::Error::new(std::io::Error::from_raw_os_error(errno)).context("open a socket");
        assert!(have_ended(&of(24)) && have_ended(&of(23)));
        assert!(!have_ended(&of(13)) && !have_ended(&anyhow::anyhow!("Too many open files")));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(super::limit() >= 256, "{limit:?}");
    }
}
