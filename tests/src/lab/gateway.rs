//! The LAN service: it knows nothing of the mesh and has no route to it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::SockRef;

use super::addresses::{BEHIND, BEHIND6, GATEWAY, GATEWAY6};
use super::http::{pattern_word, read_line};
use super::link::add_address;
use super::namespace::Namespace;
use super::process::Process;
use super::traffic::wait_for;

/// HTTP.
pub const HTTP_PORT: u16 = 80;
/// First port of UDP echo.
pub const ECHO_PORT: u16 = 7000;
/// iperf3.
pub const IPERF_PORT: u16 = 5201;

/// Bytes of one write of a download.
const CHUNK: u64 = 64 * 1024;
/// Time between the writes of a paced download.
const PACE: Duration = Duration::from_millis(2);
/// How often an echo thread looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// HTTP (`/` names the client, `/bytes/N` sends N known bytes, `/paced/N` sends them slowly), UDP echo, iperf3.
pub struct Gateway {
    /// Where it is.
    pub namespace: Namespace,
    seen: Arc<Seen>,
    listener: TcpListener,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    iperf: Option<Process>,
}

/// What the service has seen.
#[derive(Default)]
struct Seen {
    http_clients: Mutex<BTreeMap<IpAddr, u32>>,
    datagrams: Mutex<Vec<(SocketAddr, Vec<u8>)>>,
}

impl Gateway {
    /// Opens HTTP on all addresses and echo on the two LAN addresses. The LAN wire must be there.
    ///
    /// # Errors
    /// An address cannot be given, a socket not opened.
    pub fn start(namespace: Namespace) -> Result<Self> {
        add_address(&namespace, "lo", BEHIND, 32)?;
        add_address(&namespace, "lo", BEHIND6, 128)?;
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), HTTP_PORT);
        let listener = namespace.enter(|| TcpListener::bind(any)).context("HTTP")?;
        let seen = Arc::new(Seen::default());
        let (acceptor, watcher) = (listener.try_clone()?, Arc::clone(&seen));
        let threads = vec![thread::spawn(move || accept(&acceptor, &watcher))];
        let mut this = Self { namespace, seen, listener, threads, stop: Arc::default(), iperf: None };
        for address in [GATEWAY, GATEWAY6] {
            this.open_echo(address, ECHO_PORT)?;
        }
        Ok(this)
    }

    /// Opens one more UDP echo.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open_echo(&mut self, address: IpAddr, port: u16) -> Result<()> {
        let socket = self.namespace.enter(|| UdpSocket::bind((address, port))).context("echo")?;
        socket.set_read_timeout(Some(LOOK))?;
        let (seen, stop) = (Arc::clone(&self.seen), Arc::clone(&self.stop));
        self.threads.push(thread::spawn(move || echo(&socket, &seen, &stop)));
        Ok(())
    }

    /// Starts the iperf3 server, once.
    ///
    /// # Errors
    /// It does not start to listen.
    pub fn start_iperf(&mut self) -> Result<()> {
        if self.iperf.is_some() {
            return Ok(());
        }
        let port = IPERF_PORT.to_string();
        let mut command = self.namespace.command("iperf3");
        let server = Process::start("iperf3 server", command.args(["--server", "--port", &port]))?;
        self.iperf = Some(server);
        let listening = format!(":{IPERF_PORT:04X} ");
        let namespace = &self.namespace;
        let ready = wait_for(Duration::from_secs(5), || {
            let table = namespace.read("/proc/net/tcp6").unwrap_or_default();
            table.lines().any(|line| line.contains(&listening) && line.contains(" 0A "))
        });
        ensure!(ready, "iperf3 does not listen");
        Ok(())
    }

    /// Who has asked for a page, and how often.
    #[must_use]
    pub fn http_clients(&self) -> BTreeMap<IpAddr, u32> {
        lock(&self.seen.http_clients).clone()
    }

    /// Senders of the datagrams with this content that came to an echo port.
    #[must_use]
    pub fn senders_of(&self, content: &[u8]) -> Vec<SocketAddr> {
        lock(&self.seen.datagrams).iter().filter(|(_, bytes)| bytes == content).map(|(sender, _)| *sender).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, seen: &Arc<Seen>) {
    // Ends when the listener is shut down.
    while let Ok((stream, client)) = listener.accept() {
        let seen = Arc::clone(seen);
        // A client that goes away in the middle is its own affair: the one who asked sees it.
        thread::spawn(move || drop(serve(stream, client.ip().to_canonical(), &seen)));
    }
}

fn serve(mut stream: TcpStream, client: IpAddr, seen: &Seen) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let request = read_line(&mut stream)?;
    while !read_line(&mut stream)?.is_empty() {}
    *lock(&seen.http_clients).entry(client).or_default() += 1;
    let path = request.split(' ').nth(1).unwrap_or_default();
    if path == "/" {
        return send(&mut stream, "200 OK", format!("Hello from the LAN, {client}\n").as_bytes());
    }
    let download = path.trim_start_matches('/').split_once('/').and_then(|(kind, size)| {
        let pause = match kind {
            "bytes" => Duration::ZERO,
            "paced" => PACE,
            _ => return None,
        };
        Some((pause, size.parse::<u64>().ok()?))
    });
    match download {
        Some((pause, bytes)) => send_pattern(&mut stream, bytes, pause),
        None => send(&mut stream, "404 Not Found", b"no such page\n"),
    }
}

fn send(stream: &mut TcpStream, status: &str, body: &[u8]) -> Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    Ok(())
}

fn send_pattern(stream: &mut TcpStream, bytes: u64, pause: Duration) -> Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n")?;
    let mut at = 0;
    while at < bytes {
        let words = at / 8..(at + CHUNK) / 8;
        let chunk: Vec<u8> = words.flat_map(|word| pattern_word(word).to_le_bytes()).collect();
        let length = CHUNK.min(bytes - at);
        stream.write_all(&chunk[..length as usize])?;
        at += length;
        thread::sleep(pause);
    }
    Ok(())
}

fn echo(socket: &UdpSocket, seen: &Seen, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, sender)) = socket.recv_from(&mut buffer) {
            lock(&seen.datagrams).push((sender, buffer[..length].to_vec()));
            // An answer that cannot be sent is missed by the one who waits for it.
            let _ = socket.send_to(&buffer[..length], sender);
        }
    }
}
