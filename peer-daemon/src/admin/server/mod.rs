//! HTTP for strangers: however many come, and however slow they are, memory and descriptors stay bounded and who asks
//! properly is answered.
//!
//! What bounds a connection is hyper's (header size, header and idle time) but for the time to take an answer, which hyper
//! has no limit for ([`stream`]). How many there are is decided by [`slots`], how often they are answered by [`pace`].

mod pace;
mod slots;
mod stats;
mod stream;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody as _;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::task::JoinSet;
use tower_service::Service as _;

pub(super) use self::pace::Pace;
pub(super) use self::slots::{Places, Source};
use self::slots::{Slot, Slots};
use self::stats::Cut;
pub(super) use self::stats::{ListenerCollector, ListenerStats};
use self::stream::Timed;

/// After an error of accepting that lasts, such as too many open files.
const REST: Duration = Duration::from_millis(100);
/// Connections accepted before any of them is looked at.
const BATCH: usize = 128;
/// Least time between two log lines about such errors.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What one connection may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From its first moment, or from the last answer, until the header of a request is complete.
    pub(super) request: Duration,
    /// For an answer to be made.
    pub(super) make: Duration,
    /// For an answer to be taken: from its first byte until the last is in the kernel's hands.
    pub(super) take: Duration,
    /// Bytes of a request's header. Bodies are refused.
    pub(super) header: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (request, make) = (Duration::from_secs(10), Duration::from_secs(10));
        Self { request, make, take: Duration::from_secs(10), header: 16 << 10 }
    }
}

/// Serves a router.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) limits: Limits,
    pub(super) places: Places,
    pub(super) stats: Arc<ListenerStats>,
}

/// Where connections come from.
pub(super) trait Accept {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one, and whose it is.
    async fn accept(&self) -> io::Result<(Self::Stream, Source)>;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Source)> {
        let (stream, remote) = TcpListener::accept(self).await?;
        let local = stream.local_addr()?.ip();
        Ok((stream, source(remote.ip(), local)))
    }
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Source)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((stream, Source::Own))
    }
}

impl Server {
    /// Serves until the task is aborted; its connections end with it.
    pub(super) async fn serve(self, listener: impl Accept, router: Router) {
        let slots = Arc::new(Mutex::new(Slots::new(self.places)));
        self.stats.set_max(self.places.total());
        let mut tasks = JoinSet::new();
        let mut complained: Option<Instant> = None;
        loop {
            let first = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = tasks.join_next() => continue,
            };
            while tasks.try_join_next().is_some() {}
            let (batch, error) = all_that_wait(&listener, first);
            for (stream, held, is_cut) in self.admit(&slots, batch) {
                tasks.spawn(connection(stream, router.clone(), held, self.limits, is_cut));
            }
            let Some(error) = error else {
                // Those that have given way end before others come: no more are ever held than have a place.
                tokio::task::yield_now().await;
                continue;
            };
            if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                complained = Some(Instant::now());
                let remedy = is_scarcity(&error).then_some(super::descriptors::REMEDY);
                tracing::error!(%error, listener = self.stats.name(), remedy, "cannot accept connections");
            }
            self.stats.accept_failed();
            if is_scarcity(&error) && lock(&slots).take_longest_waiting().is_some() {
                self.stats.cut(Cut::Descriptors);
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Gives places to a batch, to this machine's connections first. Those that would give way to later ones of the same
    /// batch cost nothing but their closing: a flood is accepted about as fast as it can come.
    fn admit<S>(
        &self,
        slots: &Table,
        mut batch: Vec<(S, Source)>,
    ) -> Vec<(S, Arc<Held>, oneshot::Receiver<Infallible>)> {
        batch.sort_by_key(|(_, source)| *source != Source::Own);
        let now = Instant::now();
        let mut admitted = Vec::with_capacity(batch.len());
        for (stream, source) in batch {
            let (cut, is_cut) = oneshot::channel();
            let (slot, gone) = lock(slots).admit(source, now, cut);
            self.stats.opened();
            if let Some((_, why)) = gone {
                self.stats.cut(why.into());
            }
            let held = Held { slots: Arc::clone(slots), stats: Arc::clone(&self.stats), slot, source };
            admitted.push((stream, Arc::new(held), is_cut));
        }
        admitted.retain_mut(|(_, _, is_cut)| !matches!(is_cut.try_recv(), Err(TryRecvError::Closed)));
        admitted
    }
}

/// Connections that can be accepted at once, the first of which has been; and the error that ended the looking, if it
/// lasts.
fn all_that_wait<A: Accept>(
    listener: &A,
    first: io::Result<(A::Stream, Source)>,
) -> (Vec<(A::Stream, Source)>, Option<io::Error>) {
    let mut batch = Vec::new();
    let mut next = Some(first);
    while let Some(accepted) = next {
        match accepted {
            Ok(accepted) => batch.push(accepted),
            // It was gone before it was accepted.
            Err(error) if is_of_connection(&error) => {}
            Err(error) => return (batch, Some(error)),
        }
        next = if batch.len() < BATCH { listener.accept().now_or_never() } else { None };
    }
    (batch, None)
}

/// Whoever holds the other end of such a channel ends when it is dropped.
type Table = Arc<Mutex<Slots<oneshot::Sender<Infallible>>>>;

/// A connection's place.
struct Held {
    slots: Table,
    stats: Arc<ListenerStats>,
    slot: Slot,
    source: Source,
}

impl Held {
    fn set_answering(&self, answering: bool) {
        lock(&self.slots).set_answering(self.slot, answering, Instant::now());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.slots).leave(self.slot);
        self.stats.closed();
    }
}

/// One connection, until either side ends it or it has to give way.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    held: Arc<Held>,
    limits: Limits,
    is_cut: oneshot::Receiver<Infallible>,
) {
    let taken = Arc::clone(&held);
    let stream = Timed::new(stream, limits.take, move || taken.set_answering(false));
    let service = service_fn(|request: Request<Incoming>| {
        held.set_answering(true);
        answer(router.clone(), request, held.source, limits.make)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.request).max_buf_size(limits.header);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    let result = tokio::select! {
        result = serving => result,
        _ = is_cut => return,
    };
    if let Err(error) = result {
        if error.is_timeout() {
            held.stats.cut(Cut::Request);
        } else if stream::is_late(&error) {
            held.stats.cut(Cut::Answer);
        }
        tracing::trace!(%error, listener = held.stats.name(), "connection");
    }
}

async fn answer(
    mut router: Router,
    mut request: Request<Incoming>,
    source: Source,
    limit: Duration,
) -> Result<Response, Infallible> {
    if !request.body().is_end_stream() {
        // Nor is it read to keep the connection.
        let close = (CONNECTION, HeaderValue::from_static("close"));
        return Ok((StatusCode::PAYLOAD_TOO_LARGE, [close], "requests have no body here\n").into_response());
    }
    request.extensions_mut().insert(source);
    match tokio::time::timeout(limit, router.call(request)).await {
        Ok(answer) => answer,
        Err(_) => Ok((StatusCode::SERVICE_UNAVAILABLE, "no answer in time\n").into_response()),
    }
}

/// Hosts of one IPv6 network are one source: any of them may take any address of it.
fn source(remote: IpAddr, local: IpAddr) -> Source {
    let (remote, local) = (remote.to_canonical(), local.to_canonical());
    match remote {
        own if own == local || own.is_loopback() => Source::Own,
        IpAddr::V4(_) => Source::Foreign(remote),
        IpAddr::V6(address) => Source::Foreign((address.to_bits() & !u128::from(u64::MAX)).to_be_bytes().into()),
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected)
}

/// Whether a connection less would help.
fn is_scarcity(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let scarce = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| scarce.contains(&errno))
}

fn lock<T>(slots: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in there panics half-way.
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
