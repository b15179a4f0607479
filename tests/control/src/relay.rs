//! The relay: frames between peers that know each other's keys.

pub mod frame;
mod registry;
mod session;
pub mod token;

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::response::Response;

pub use frame::{Frame, PeerId};
pub(crate) use registry::Registry;

use super::state::State;

pub(crate) async fn upgrade(upgrade: WebSocketUpgrade, relay: Arc<Registry>, state: Arc<State>) -> Response {
    upgrade.on_upgrade(move |socket| session::run(socket, relay, state))
}
