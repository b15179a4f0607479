//! One connection of the relay.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, interval_at, timeout};

use super::frame::{Frame, PeerId};
use super::registry::{Entry, Registry};
use super::token;
use crate::state::State;

/// Time in which a peer must say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Frames sent with one system call.
const BATCH: usize = 64;

/// Serves it to its end.
pub(crate) async fn run(mut socket: WebSocket, relay: Arc<Registry>, state: Arc<State>) {
    let Ok(Some(peer)) = timeout(HANDSHAKE, authenticate(&mut socket, &state)).await else { return };
    let answer = Frame::AuthResponse(relay.url.clone()).encode();
    if socket.send(Message::Binary(answer)).await.is_err() {
        return;
    }
    let health = state.lock().options.relay_health;
    let mut entry = relay.enter(peer);
    carry(socket, &mut entry, &relay, health).await;
}

async fn authenticate(socket: &mut WebSocket, state: &State) -> Option<PeerId> {
    let Some(Ok(Message::Binary(bytes))) = socket.recv().await else { return None };
    let Some(Frame::Auth(peer, token)) = Frame::decode(&bytes) else { return None };
    let state = state.lock();
    let valid = token::is_valid(&state.options.relay_secret, &token, SystemTime::now());
    (valid && !state.faults.relay_refuses).then_some(peer)
}

async fn carry(socket: WebSocket, entry: &mut Entry<'_>, relay: &Registry, health: Duration) {
    let (mut sink, mut stream) = socket.split();
    let mut checks = interval_at(Instant::now() + health, health);
    let mut unanswered = 0_u32;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let (receiver, closed) = (&mut entry.receiver, &mut entry.closed);
        tokio::select! {
            message = stream.next() => {
                let Some(Ok(message)) = message else { return };
                let Message::Binary(bytes) = message else { continue };
                match Frame::decode(&bytes) {
                    Some(Frame::Transport(to, payload)) => entry.forward(to, payload).await,
                    Some(Frame::Health) => unanswered = 0,
                    Some(Frame::Subscribe(ids)) => entry.subscribe(ids),
                    Some(Frame::Unsubscribe(ids)) => entry.unsubscribe(&ids),
                    Some(Frame::Close) => return,
                    // What a newer peer may say and we do not know.
                    _ => {}
                }
            }
            count = receiver.recv_many(&mut batch, BATCH) => {
                if count == 0 || send(&mut sink, &mut batch).await.is_err() {
                    return;
                }
            }
            _ = checks.tick(), if !relay.silent.load(Ordering::Relaxed) => {
                // One check may be under way.
                if unanswered > 1 || sink.send(Message::Binary(Frame::Health.encode())).await.is_err() {
                    return;
                }
                unanswered += 1;
            }
            _ = closed.changed() => return,
        }
    }
}

async fn send(
    sink: &mut (impl futures_util::Sink<Message, Error = axum::Error> + Unpin),
    batch: &mut Vec<Bytes>,
) -> Result<(), axum::Error> {
    for frame in batch.drain(..) {
        sink.feed(Message::Binary(frame)).await?;
    }
    sink.flush().await
}
