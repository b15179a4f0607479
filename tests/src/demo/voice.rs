//! Where words go.

use serde_json::json;

use super::checks::Checks;
use super::figures::Figures;

/// Speaks to people on standard output, or on standard error where standard output is for programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    pub(crate) json: bool,
}

impl Voice {
    pub(crate) fn heading(self, text: &str) {
        self.line(&format!("\n== {text}"));
    }

    pub(crate) fn line(self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    /// The result: one line for programs, or the figures for people.
    pub(crate) fn result(self, checks: &Checks, figures: &Figures) {
        if self.json {
            println!("{}", json!({ "ok": checks.all_passed(), "checks": checks, "figures": figures }));
        } else {
            let verdict = if checks.all_passed() { "all checks passed" } else { "NOT all checks passed" };
            println!("{verdict}, {:.1} s", figures.number("seconds"));
        }
    }
}
