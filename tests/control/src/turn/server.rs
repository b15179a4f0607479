//! The sockets of a TURN server.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::protocol::{Lifetimes, Now, Output, Protocol, Relays, Seen};

/// Largest datagram.
const BUFFER: usize = 65_536;
/// Longest time without a look at what has expired.
const IDLE: Duration = Duration::from_secs(3600);

type Bind = Arc<dyn Fn(SocketAddr) -> io::Result<StdSocket> + Send + Sync>;

/// A TURN server on one UDP address. It serves until it is killed or dropped.
pub struct TurnServer {
    bind: Bind,
    address: SocketAddr,
    relays: Vec<IpAddr>,
    secret: String,
    lifetimes: Lifetimes,
    running: Option<(Runtime, Arc<Shared>)>,
}

struct Shared {
    listener: UdpSocket,
    inner: Mutex<Inner>,
    /// Wakes the task that ends what has expired.
    earlier: Notify,
}

struct Inner {
    protocol: Protocol,
    sockets: Sockets,
    /// How far its clocks are ahead of the machine's.
    ahead: Duration,
}

struct Sockets {
    bind: Bind,
    addresses: Vec<IpAddr>,
    open: BTreeMap<SocketAddr, (Arc<UdpSocket>, AbortHandle)>,
}

/// Opens relayed addresses for [`Protocol`].
struct Opener<'a> {
    sockets: &'a mut Sockets,
    shared: &'a Arc<Shared>,
}

impl TurnServer {
    /// Starts one at `address`, whose relayed addresses are on `relays`, at most one for each family. `bind` opens the
    /// sockets, also after [`Self::kill`]: it decides in which namespace.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn start(
        address: SocketAddr,
        relays: &[IpAddr],
        secret: &str,
        bind: impl Fn(SocketAddr) -> io::Result<StdSocket> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (bind, relays, secret) = (Arc::new(bind), relays.to_vec(), secret.to_owned());
        let mut this = Self { bind, address, relays, secret, lifetimes: Lifetimes::default(), running: None };
        this.resume()?;
        Ok(this)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How management names it: `turn:host:port?transport=udp`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("turn:{}?transport=udp", self.address)
    }

    /// Closes all sockets at once and forgets all allocations, as if killed.
    pub fn kill(&mut self) {
        if let Some((runtime, _)) = self.running.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Starts again after [`Self::kill`], at the same address.
    ///
    /// # Errors
    /// The socket cannot be opened; the server runs already.
    pub fn resume(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the TURN server runs already");
        let listener = (self.bind)(self.address).context("open the TURN socket")?;
        listener.set_nonblocking(true)?;
        self.address = listener.local_addr()?;
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("turn").enable_all().build()?;
        let shared = {
            let _entered = runtime.enter();
            let now = Now { instant: Instant::now(), wall: SystemTime::now() };
            let sockets =
                Sockets { bind: Arc::clone(&self.bind), addresses: self.relays.clone(), open: BTreeMap::new() };
            let protocol = Protocol::new(&self.secret, self.lifetimes, rand::random(), now);
            let inner = Mutex::new(Inner { protocol, sockets, ahead: Duration::ZERO });
            let shared = Arc::new(Shared { listener: UdpSocket::from_std(listener)?, inner, earlier: Notify::new() });
            runtime.spawn(serve_clients(Arc::clone(&shared)));
            runtime.spawn(expire(Arc::clone(&shared)));
            shared
        };
        self.running = Some((runtime, shared));
        Ok(())
    }

    /// What clients have done since it was started or resumed.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.running.as_ref().map_or_else(Seen::default, |(_, shared)| shared.lock().protocol.seen().clone())
    }

    /// Relayed addresses by client.
    #[must_use]
    pub fn relayed(&self) -> BTreeMap<SocketAddr, SocketAddr> {
        self.running.as_ref().map_or_else(BTreeMap::new, |(_, shared)| shared.lock().protocol.relayed())
    }

    /// See [`Protocol::set_secret`].
    pub fn set_secret(&mut self, secret: &str) {
        secret.clone_into(&mut self.secret);
        self.change(|protocol, _, _| protocol.set_secret(secret));
    }

    /// See [`Protocol::set_lifetimes`].
    pub fn set_lifetimes(&mut self, lifetimes: Lifetimes) {
        self.lifetimes = lifetimes;
        self.change(|protocol, _, _| protocol.set_lifetimes(lifetimes));
    }

    /// See [`Protocol::expire_nonces`].
    pub fn expire_nonces(&self) {
        self.change(|protocol, now, _| protocol.expire_nonces(now));
    }

    /// See [`Protocol::forget_allocations`].
    pub fn forget_allocations(&self) {
        self.change(|protocol, _, relays| protocol.forget_allocations(relays));
    }

    /// Puts its clocks forward: what would expire in this time expires now.
    pub fn skip(&self, time: Duration) {
        if let Some((_, shared)) = &self.running {
            shared.lock().ahead += time;
            shared.earlier.notify_one();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Protocol, Now, &mut dyn Relays)) {
        if let Some((_, shared)) = &self.running {
            shared.with(change);
        }
    }
}

impl Drop for TurnServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut Protocol, Now, &mut dyn Relays) -> T) -> T {
        let mut inner = self.lock();
        let Inner { protocol, sockets, ahead } = &mut *inner;
        let now = Now { instant: Instant::now() + *ahead, wall: SystemTime::now() + *ahead };
        work(protocol, now, &mut Opener { sockets, shared: self })
    }
}

impl Relays for Opener<'_> {
    fn supports(&self, v6: bool) -> bool {
        self.sockets.addresses.iter().any(|address| address.is_ipv6() == v6)
    }

    fn open(&mut self, v6: bool) -> io::Result<SocketAddr> {
        let address = self.sockets.addresses.iter().find(|address| address.is_ipv6() == v6);
        let address = address.ok_or(ErrorKind::AddrNotAvailable)?;
        let socket = (self.sockets.bind)((*address, 0).into())?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let relayed = socket.local_addr()?;
        let task = tokio::spawn(serve_peers(Arc::clone(self.shared), Arc::clone(&socket), relayed));
        self.sockets.open.insert(relayed, (socket, task.abort_handle()));
        self.shared.earlier.notify_one();
        Ok(relayed)
    }

    fn close(&mut self, relayed: SocketAddr) {
        if let Some((_, task)) = self.sockets.open.remove(&relayed) {
            task.abort();
        }
    }
}

async fn serve_clients(shared: Arc<Shared>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        // An error is an ICMP message about a datagram that was sent: it concerns one client.
        let Ok((length, client)) = shared.listener.recv_from(&mut buffer).await else { continue };
        let output =
            shared.with(|protocol, now, relays| protocol.handle_client(now, client, &buffer[..length], relays));
        match output {
            Some(Output::ToClient(datagram)) => drop(shared.listener.send_to(&datagram, client).await),
            Some(Output::ToPeer { relayed, peer, data }) => {
                let socket = shared.lock().sockets.open.get(&relayed).map(|(socket, _)| Arc::clone(socket));
                if let Some(socket) = socket {
                    let _ = socket.send_to(&data, peer).await;
                }
            }
            None => {}
        }
    }
}

async fn serve_peers(shared: Arc<Shared>, socket: Arc<UdpSocket>, relayed: SocketAddr) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let output = shared.with(|protocol, now, _| protocol.handle_peer(now, relayed, peer, &buffer[..length]));
        if let Some((client, datagram)) = output {
            let _ = shared.listener.send_to(&datagram, client).await;
        }
    }
}

async fn expire(shared: Arc<Shared>) {
    loop {
        let wait = shared.with(|protocol, now, relays| {
            protocol.handle_timeout(now, relays);
            protocol.poll_timeout().map_or(IDLE, |next| next.saturating_duration_since(now.instant))
        });
        let _ = tokio::time::timeout(wait, shared.earlier.notified()).await;
    }
}
