//! Whether the peer is deleted from its network when it stops.

use crate::{Registration, StateDir};

/// What `--ephemeral` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ephemeral {
    /// Yes for a peer that would not be the same after its next start anyway: its state is in memory, and it was
    /// registered by setup key, so that the next one can be, too.
    #[default]
    Auto,
    /// Yes.
    Yes,
    /// No.
    No,
}

/// What to do on exit, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// Whether to delete the peer.
    pub deregister: bool,
    /// Why, or why not.
    pub why: &'static str,
}

impl Ephemeral {
    /// What to do with a peer whose state is in `dir` and whose key was registered so.
    #[must_use]
    pub fn farewell(self, dir: &StateDir, registration: Option<&Registration>) -> Farewell {
        self.decide(dir.in_memory(), registration.is_some_and(|registration| registration.by_setup_key))
    }

    fn decide(self, in_memory: bool, by_setup_key: bool) -> Farewell {
        let (deregister, why) = match (self, in_memory, by_setup_key) {
            (Self::Yes, ..) => (true, "--ephemeral=yes"),
            (Self::No, ..) => (false, "--ephemeral=no"),
            (Self::Auto, false, _) => (false, "its state is on a disk"),
            (Self::Auto, true, false) => (false, "it was not registered by setup key"),
            (Self::Auto, true, true) => (true, "its state is in memory and it was registered by setup key"),
        };
        Farewell { deregister, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_never_deletes_a_peer_on_a_disk() {
        for (choice, in_memory, by_setup_key, expected) in [
            (Ephemeral::Auto, true, true, true),
            (Ephemeral::Auto, true, false, false),
            (Ephemeral::Auto, false, true, false),
            (Ephemeral::Auto, false, false, false),
            (Ephemeral::Yes, false, false, true),
            (Ephemeral::No, true, true, false),
        ] {
            let farewell = choice.decide(in_memory, by_setup_key);
            assert_eq!(farewell.deregister, expected, "{choice:?} {in_memory} {by_setup_key}: {}", farewell.why);
        }
    }
}
