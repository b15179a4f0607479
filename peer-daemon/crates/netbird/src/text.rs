//! Text that comes from elsewhere, made fit for a log line.

use std::error::Error;

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
