//! Servers that cannot be reached: how far an attempt went, and which failures are worth a line in the log.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// Outages that are remembered unless told otherwise. Peers choose relays, so their number is not ours.
const MOST: usize = 64;

/// How far an attempt went: this step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Resolving the server's or the proxy's name.
    Name,
    /// The TCP connection.
    Connect,
    /// Getting through the HTTP proxy.
    Proxy,
    /// The TLS session.
    Tls,
    /// Changing from HTTP to WebSocket.
    Upgrade,
    /// The server's answer to who we are.
    Login,
    /// A stream or connection that was there, or should have been.
    Stream,
}

impl Step {
    /// Its name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "TLS",
            Self::Upgrade => "websocket",
            Self::Login => "login",
            Self::Stream => "stream",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a server was not reached. Displayed, it is the error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// What failed.
    pub step: Step,
    /// Why.
    pub error: String,
    /// What to do; `None`: nothing is known that helps.
    pub remedy: Option<&'static str>,
}

/// Which servers are out of reach, and why: decides what the log says.
///
/// The first failure of an outage is worth a warning, and so is each change of its reason. The same reason again is not, however
/// often it comes.
#[derive(Debug)]
pub struct Outages<K> {
    open: HashMap<K, (Step, String)>,
    most: usize,
}

impl<K> Default for Outages<K> {
    fn default() -> Self {
        Self { open: HashMap::new(), most: MOST }
    }
}

impl<K: Eq + Hash> Outages<K> {
    /// An attempt failed, or a connection broke. Whether to warn.
    pub fn failed(&mut self, server: K, failure: &Failure) -> bool {
        let reason = (failure.step, failure.error.clone());
        if let Some(known) = self.open.get_mut(&server) {
            let changed = *known != reason;
            *known = reason;
            return changed;
        }
        // What cannot be remembered would be warned of each time.
        if self.open.len() >= self.most {
            return false;
        }
        self.open.insert(server, reason);
        true
    }

    /// The server is reached. Whether that ends an outage.
    pub fn reached(&mut self, server: &K) -> bool {
        self.open.remove(server).is_some()
    }

    /// Forgets servers that nobody wants to reach any more.
    pub fn retain(&mut self, wanted: impl Fn(&K) -> bool) {
        self.open.retain(|server, _| wanted(server));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(step: Step, error: &str) -> Failure {
        Failure { step, error: error.to_owned(), remedy: None }
    }

    #[test]
    fn a_reason_is_a_warning_once_and_again_when_it_changes() {
        let mut outages = Outages::default();
        let (refused, unknown) = (failure(Step::Connect, "refused"), failure(Step::Name, "no such name"));
        assert!(outages.failed("management", &refused), "the first");
        assert!(!outages.failed("management", &refused) && !outages.failed("management", &refused), "the same again");
        assert!(outages.failed("signal", &refused), "another server");
        assert!(outages.failed("management", &unknown), "another reason");
        assert!(outages.failed("management", &refused), "the former reason has come back");
        assert!(outages.failed("management", &failure(Step::Proxy, "refused")), "another step");
    }

    #[test]
    fn what_is_reached_and_lost_again_is_another_outage() {
        let mut outages = Outages::default();
        let refused = failure(Step::Connect, "refused");
        assert!(!outages.reached(&"signal"), "there was no outage");
        assert!(outages.failed("signal", &refused));
        assert!(outages.reached(&"signal") && !outages.reached(&"signal"), "ended once");
        assert!(outages.failed("signal", &refused));
    }

    #[test]
    fn memory_is_bounded_and_what_is_not_remembered_is_quiet() {
        let mut outages = Outages { most: 2, ..Outages::default() };
        let refused = failure(Step::Connect, "refused");
        assert!(outages.failed(1, &refused) && outages.failed(2, &refused));
        assert!(!outages.failed(3, &refused) && !outages.failed(3, &refused));
        outages.retain(|server| *server == 2);
        assert!(outages.failed(3, &refused), "there is room again");
        assert!(!outages.failed(2, &refused), "still known");
    }
}
