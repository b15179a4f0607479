//! Named steps with their times; the first failure ends the run with its name.

use std::time::Instant;

use anyhow::{Context as _, Result};

/// The steps of one command.
pub(crate) struct Steps {
    command: &'static str,
    started: Instant,
}

impl Steps {
    pub(crate) fn of(command: &'static str) -> Self {
        Self { command, started: Instant::now() }
    }

    /// Runs one step between a headline and its time.
    pub(crate) fn run<T>(&self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        eprintln!("==> {}: {name}", self.command);
        let result = step().with_context(|| format!("{}: step `{name}` failed", self.command))?;
        eprintln!("<== {}: {name}: {:.1} s", self.command, started.elapsed().as_secs_f64());
        Ok(result)
    }

    /// All passed.
    pub(crate) fn done(self) {
        eprintln!("{}: all steps passed in {:.0} s", self.command, self.started.elapsed().as_secs_f64());
    }
}
