//! Scenarios that need what not every machine has. Where it is missing they are reported as ignored, with the reason:
//! what did not run has not passed.
//!
//! For test binaries with `harness = false`; they take the arguments of any other.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// The scenarios of one binary.
#[derive(Default)]
pub struct Suite {
    trials: Vec<Trial>,
}

/// Scenarios and their names, for [`Suite::always`] and [`Suite::needing`].
#[macro_export]
macro_rules! scenarios {
    ($($scenario:ident),* $(,)?) => {
        [$((stringify!($scenario), $scenario as fn(_))),*]
    };
}

impl Suite {
    /// Adds scenarios that run everywhere.
    #[must_use]
    pub fn always(self, scenarios: impl IntoIterator<Item = (&'static str, fn(()))>) -> Self {
        self.needing(|| Ok(()), scenarios)
    }

    /// Adds scenarios that are given what `need` finds; its error is the reason why they are ignored.
    #[must_use]
    pub fn needing<T: 'static>(
        mut self,
        need: fn() -> Result<T, String>,
        scenarios: impl IntoIterator<Item = (&'static str, fn(T))>,
    ) -> Self {
        self.trials.extend(scenarios.into_iter().map(|(name, scenario)| {
            Trial::ignorable_test(name, move || match need() {
                Ok(needed) => {
                    scenario(needed);
                    Ok(Completion::Completed)
                }
                Err(reason) => Ok(Completion::ignored_with(reason)),
            })
        }));
        self
    }

    /// Adds a scenario like [`Self::needing`] that runs only when it is asked for by `--ignored`.
    #[must_use]
    pub fn by_hand<T: 'static>(
        self,
        need: fn() -> Result<T, String>,
        scenarios: impl IntoIterator<Item = (&'static str, fn(T))>,
    ) -> Self {
        let before = self.trials.len();
        let mut suite = self.needing(need, scenarios);
        let by_hand = suite.trials.split_off(before);
        suite.trials.extend(by_hand.into_iter().map(|trial| trial.with_ignored_flag(true).with_kind("by hand")));
        suite
    }

    /// Runs those that the arguments of the process ask for.
    #[must_use]
    pub fn run(self) -> ExitCode {
        libtest_mimic::run(&Arguments::from_args(), self.trials).exit_code()
    }
}
