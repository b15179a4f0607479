//! Text that comes from elsewhere, made fit for a log line.

use std::error::Error;
use std::io;

use peer_core::reach::Failure;

/// Longest text taken over from a server, characters.
const LONGEST: usize = 256;

/// One line, of bounded length.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What a status says: its message, and its innermost cause where that says more.
pub(crate) fn of_status(status: &tonic::Status) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    let mut innermost = String::new();
    while let Some(error) = cause {
        innermost = error.to_string();
        cause = error.source();
    }
    let message = status.message();
    if innermost.is_empty() || message.contains(&innermost) {
        return one_line(message);
    }
    one_line(&format!("{message}: {innermost}"))
}

/// The failed connection that a status is about, where it is about one.
pub(crate) fn failure_of(status: &tonic::Status) -> Option<Failure> {
    let mut cause = status.source();
    while let Some(error) = cause {
        // An I/O error hides what is inside it from those who follow causes.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(failure) = inside.and_then(|inside| inside.downcast_ref::<Failure>()) {
            return Some(Failure { error: one_line(&failure.error), ..failure.clone() });
        }
        cause = error.source();
    }
    None
}
