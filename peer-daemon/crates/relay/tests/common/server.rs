//! The server: HTTP upgrade, authentication, subscriptions, datagrams from one client to another.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use peer_relay::RelayUrl;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

type Id = [u8; 36];
type Outbox = mpsc::Sender<Vec<u8>>;

/// A running server. Dropping it cuts all connections.
pub(crate) struct Server {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Refuses tokens.
    strict: bool,
    clients: HashMap<Id, Outbox>,
    /// Who wants to know of whom.
    watchers: Vec<(Id, Id)>,
    /// Types of messages from clients, datagrams aside.
    heard: Vec<u8>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_on(0).await
    }

    pub(crate) async fn start_on(port: u16) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a socket");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("a free port");
        let listener = socket.listen(64).expect("a socket");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::<Mutex<State>>::default();
        let task = tokio::spawn(accept(listener, port, Arc::clone(&state)));
        Self { port, state, task }
    }

    pub(crate) fn url(&self) -> RelayUrl {
        format!("rel://127.0.0.1:{}", self.port).parse().expect("a URL")
    }

    pub(crate) fn refuse_tokens(&self) {
        self.state.lock().expect("no panic").strict = true;
    }

    /// Types of messages, and how often one has come.
    pub(crate) fn heard(&self, kind: u8) -> usize {
        self.state.lock().expect("no panic").heard.iter().filter(|heard| **heard == kind).count()
    }

    /// Sends a whole frame, or any bytes, to a client.
    pub(crate) async fn inject(&self, bytes: Vec<u8>) {
        let clients: Vec<_> = self.state.lock().expect("no panic").clients.values().cloned().collect();
        for client in clients {
            client.send(bytes.clone()).await.expect("a client");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, port: u16, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move { serve(stream, port, state).await });
    }
}

async fn serve(stream: TcpStream, port: u16, state: Arc<Mutex<State>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(1 << 17, reader);
    upgrade(&mut reader, &mut writer).await?;
    let (opcode, auth) = read(&mut reader).await?;
    let known = opcode == 2 && auth.len() > 42 && auth[..6] == [1, 6, 0x21, 0x12, 0xa4, 0x42] && auth[42] == 1;
    if !known || state.lock().expect("no panic").strict {
        return Ok(());
    }
    let id: Id = auth[6..42].try_into().expect("36 bytes");
    let (outbox, mut inbox) = mpsc::channel::<Vec<u8>>(4096);
    tokio::spawn(async move {
        while let Some(bytes) = inbox.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let instance = format!("rel://127.0.0.1:{port}");
    send(&outbox, &[&[1, 7], instance.as_bytes()].concat()).await;
    send(&outbox, &[1, 5]).await;
    let watchers = {
        let mut state = state.lock().expect("no panic");
        state.clients.insert(id, outbox.clone());
        state.watchers_of(id)
    };
    for watcher in watchers {
        send(&watcher, &[&[1, 10], &id[..]].concat()).await;
    }
    _ = tokio::time::timeout(Duration::from_secs(600), talk(&mut reader, id, &outbox, &state)).await;
    let watchers = {
        let mut state = state.lock().expect("no panic");
        if state.clients.get(&id).is_some_and(|current| current.same_channel(&outbox)) {
            state.clients.remove(&id);
        }
        state.watchers_of(id)
    };
    for watcher in watchers {
        send(&watcher, &[&[1, 11], &id[..]].concat()).await;
    }
    Ok(())
}

async fn talk(reader: &mut BufReader<OwnedReadHalf>, id: Id, outbox: &Outbox, state: &Mutex<State>) -> io::Result<()> {
    loop {
        let (opcode, message) = read(reader).await?;
        if opcode != 2 {
            state.lock().expect("no panic").heard.push(opcode << 4);
            continue;
        }
        if message[1] == 3 {
            let to = state.lock().expect("no panic").clients.get(&message[2..38]).cloned();
            if let Some(to) = to {
                send(&to, &[&[1, 3], &id[..], &message[38..]].concat()).await;
            }
            continue;
        }
        let mut online = Vec::new();
        {
            let mut state = state.lock().expect("no panic");
            state.heard.push(message[1]);
            for peer in message[2..].chunks_exact(36).map(|peer| Id::try_from(peer).expect("36 bytes")) {
                match message[1] {
                    8 => {
                        state.watchers.push((id, peer));
                        online.extend(state.clients.contains_key(&peer).then_some(peer));
                    }
                    9 => state.watchers.retain(|pair| *pair != (id, peer)),
                    _ => {}
                }
            }
        }
        if !online.is_empty() {
            send(outbox, &[&[1, 10], online.concat().as_slice()].concat()).await;
        }
        if message[1] == 4 {
            return Ok(());
        }
    }
}

impl State {
    fn watchers_of(&self, id: Id) -> Vec<Outbox> {
        let watching = self.watchers.iter().filter(|(_, watched)| *watched == id);
        watching.filter_map(|(watcher, _)| self.clients.get(watcher).cloned()).collect()
    }
}

/// Sends a message as a frame of a server.
async fn send(outbox: &Outbox, message: &[u8]) {
    _ = outbox.send(frame(0x82, message)).await;
}

/// A frame of a server.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ ..126 => bytes.push(len as u8),
        len => {
            bytes.push(126);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

async fn upgrade(reader: &mut BufReader<OwnedReadHalf>, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut key = String::new();
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    assert_eq!(line, "GET /relay HTTP/1.1\r\n");
    loop {
        line.clear();
        reader.read_line(&mut line).await?;
        if line == "\r\n" {
            break;
        }
        let (name, value) = line.trim_end().split_once(": ").expect("a header");
        if name.eq_ignore_ascii_case("sec-websocket-key") {
            value.clone_into(&mut key);
        }
    }
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    writer.write_all(answer.as_bytes()).await
}

/// A frame of a client: masked, whole.
async fn read(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<(u8, Vec<u8>)> {
    let [first, second] = [reader.read_u8().await?, reader.read_u8().await?];
    assert_eq!((first & 0xf0, second & 0x80), (0x80, 0x80), "clients send whole, masked frames");
    let len = match second & 0x7f {
        126 => reader.read_u16().await?.into(),
        len => usize::from(len),
    };
    let mut key = [0; 4];
    reader.read_exact(&mut key).await?;
    let mut payload = vec![0; len];
    reader.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    Ok((first & 0x0f, payload))
}
