//! What others may ask a running peer: health and metrics over TCP, status over the control socket.

mod control;
mod health;
mod source;

pub(crate) use self::control::ControlSocket;
pub(crate) use self::health::serve as serve_health;
pub(crate) use self::source::{Known, Source, endpoint};
