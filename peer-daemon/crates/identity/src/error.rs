//! What can be wrong with a state directory.

use std::io;
use std::path::{Path, PathBuf};

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refuses.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// A pipe, a device, a socket or a directory where a file should be. It is neither read nor replaced.
    #[error("{}: {kind} stands where a regular file should be: put the file there, or remove what is there", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What is there, with its article.
        kind: &'static str,
    },
    /// Another process runs here: two with one key would push each other out of every server.
    #[error("{}: another daemon uses this state directory: stop it, or give this one its own by --state-dir", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file says something that cannot be used.
    #[error("{}: {field} {why}: {fix}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What in it.
        field: &'static str,
        /// What is wrong.
        why: String,
        /// What to do.
        fix: &'static str,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}
