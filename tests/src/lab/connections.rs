//! Short TCP connections, many of them: each asks, is answered and ends, by plain sockets.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::link::sysctl;
use super::namespace::Namespace;

/// Threads at each end.
const THREADS: usize = 24;
/// How long a connection may take from its first SYN to its last byte: two lost SYNs, and time for a busy machine.
const LIMIT: Duration = Duration::from_secs(10);
const BACKLOG: i32 = 4096;

/// Answers connections until it is dropped. The client closes first.
pub struct Answering {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    namespace: Namespace,
    threads: Vec<JoinHandle<()>>,
}

impl Answering {
    /// Listens inside a namespace.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        sysctl(namespace, "net/core/somaxconn", &BACKLOG.to_string())?;
        let listener: TcpListener = namespace.enter(|| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            io::Result::Ok(socket.into())
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let serve = || -> Result<JoinHandle<()>> {
            let (listener, stop) = (listener.try_clone()?, Arc::clone(&stop));
            Ok(std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // One that ends early has failed at the client's end, which counts.
                    let _ = answer(stream);
                }
            }))
        };
        let threads = (0..THREADS).map(|_| serve()).collect::<Result<_>>()?;
        Ok(Self { stop, address, namespace: namespace.clone(), threads })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let address = self.address;
        for _ in &self.threads {
            // Wakes one thread each.
            self.namespace.enter(|| _ = TcpStream::connect_timeout(&address, LIMIT));
        }
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut asked = [0];
    stream.read_exact(&mut asked)?;
    stream.write_all(&asked)?;
    // The client ends first.
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// What became of the connections.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Those that were answered.
    pub answered: u64,
    /// Those that were not.
    pub failed: u64,
    /// Why, of some.
    pub errors: Vec<String>,
    /// From the first to the end of the last.
    pub took: Duration,
}

impl Connections {
    /// Answered ones in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

/// Gives a client all the ports there are, and those in TIME-WAIT again: what this measures must not be its own shortage.
///
/// # Errors
/// The settings cannot be written.
pub fn allow_many(client: &Namespace) -> Result<()> {
    sysctl(client, "net/ipv4/ip_local_port_range", "1024 65535")?;
    sysctl(client, "net/ipv4/tcp_tw_reuse", "1")
}

/// Opens `count` connections to `to`, or, if there is one, as many as until the `deadline`.
///
/// # Errors
/// A thread cannot enter the namespace.
pub fn connect_many(client: &Namespace, to: SocketAddr, count: u64, deadline: Option<Instant>) -> Result<Connections> {
    let (begun, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let errors = Mutex::new(Vec::new());
    let started = Instant::now();
    let more = || match deadline {
        Some(deadline) => Instant::now() < deadline,
        None => begun.fetch_add(1, Ordering::Relaxed) < count,
    };
    client.enter(|| {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while more() {
                        match ask(to) {
                            Ok(()) => _ = answered.fetch_add(1, Ordering::Relaxed),
                            Err(error) => errors.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string()),
                        }
                    }
                });
            }
        });
    });
    let mut errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed = errors.len() as u64;
    errors.truncate(5);
    Ok(Connections { answered: answered.into_inner(), failed, errors, took: started.elapsed() })
}

fn ask(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"?").context("ask")?;
    let mut answer = [0];
    stream.read_exact(&mut answer).context("the answer")?;
    // First to close, and with an end, not a reset.
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).context("the end")?;
    Ok(())
}
