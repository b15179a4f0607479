//! What can be wrong with a file.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A file that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is larger than any sensible configuration.
    #[error("{}: larger than {limit} bytes; is this the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Most bytes that are read.
        limit: usize,
    },
    /// It is neither a regular file nor a pipe.
    #[error("{}: neither a file nor a pipe; is this the right path?", path.display())]
    NotReadable {
        /// What is not.
        path: PathBuf,
    },
    /// It is a pipe whose other end does not end the text.
    #[error("{}: no end of the configuration after {} s; let what writes to the pipe close it", path.display(), limit.as_secs())]
    Late {
        /// The pipe.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It is no text.
    #[error("{}:{line}: not UTF-8; save the file as UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first bad line, from 1.
        line: usize,
    },
    /// It says what must not be. Displayed as one line `file:line: problem` for each.
    #[error("{}", Listed(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Problems,
    },
}

/// All problems of a text, in the order of their places; at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of their places.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        each_on_a_line(&self.0, f, |problem, f| write!(f, "line {}: {problem}", problem.line))
    }
}

impl std::error::Error for Problems {}

/// One thing that must not be. Displayed without its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the text, from 1.
    pub line: usize,
    /// Full path of the field, such as `peer[2].allowed_ips[0]` (positions from 0). Empty when the text is no TOML and
    /// the field is not known.
    pub field: String,
    /// The value as TOML writes it, shortened. `None` where there is none, and for secrets.
    pub value: Option<String>,
    /// What is wrong.
    pub why: String,
    /// What to write instead.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if !self.field.is_empty() {
            f.write_str(": ")?;
        }
        write!(f, "{}; {}", self.why, self.fix)
    }
}

struct Listed<'a>(&'a PathBuf, &'a Problems);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.display();
        each_on_a_line(&self.1.0, f, |problem, f| write!(f, "{path}:{}: {problem}", problem.line))
    }
}

fn each_on_a_line(
    problems: &[Problem],
    f: &mut fmt::Formatter<'_>,
    write: impl Fn(&Problem, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    problems.iter().enumerate().try_for_each(|(i, problem)| {
        if i > 0 {
            f.write_str("\n")?;
        }
        write(problem, f)
    })
}
