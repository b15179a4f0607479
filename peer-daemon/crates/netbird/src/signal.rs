//! Signal: offers, answers and candidates between peers, sealed so that the server cannot read them.
//!
//! Delivery is not promised: the server drops silently what it cannot deliver, and so does [`Sender::send`] while there is
//! no connection. Whoever needs an answer repeats its offer.

mod client;
mod keys;
mod message;
mod metrics;
mod outbox;
mod task;
mod watchdog;

pub use message::{Description, IceCredentials, Message, MessageError, SessionId};
pub use metrics::{Direction, SignalStats};
pub use outbox::{MAX_IN_FLIGHT, MAX_QUEUED, NotSent, QUEUE_PER_PEER};
pub use task::{Event, Options, Sender, Signal, SignalError, spawn};

#[cfg(test)]
mod tests;
