//! HTTP/1.1 as the lab needs it: short answers, and downloads whose every byte is known.

use std::io::{BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::namespace::Namespace;
use super::traffic::patient;

const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing comes for so long is broken: TCP's own repetitions are half a minute apart by then.
const SILENCE: Duration = Duration::from_secs(60);

/// The n-th eight bytes of every download (`SplitMix64` of n).
#[must_use]
pub fn pattern_word(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Gets a path from inside a namespace. Returns the status and the body.
///
/// # Errors
/// No connection, or no whole answer.
pub fn get(from: &Namespace, to: SocketAddr, path: &str) -> Result<(u16, String)> {
    get_within(CONNECT, from, to, path)
}

/// As [`get`], with no more time than this for the connection to come about.
///
/// # Errors
/// No connection, or no whole answer.
pub fn get_within(limit: Duration, from: &Namespace, to: SocketAddr, path: &str) -> Result<(u16, String)> {
    let (status, mut body) = request(limit, from, to, path)?;
    let mut text = String::new();
    body.read_to_string(&mut text)?;
    Ok((status, text))
}

/// As [`get`], over a Unix socket.
///
/// # Errors
/// Nobody listens there, or no whole answer comes.
pub(crate) fn get_by_socket(from: &Namespace, socket: &Path, path: &str) -> Result<(u16, String)> {
    let stream = from.enter(|| UnixStream::connect(socket));
    let stream = stream.with_context(|| format!("{}: connect to {}", from.name(), socket.display()))?;
    stream.set_read_timeout(Some(SILENCE))?;
    let (status, mut body) = exchange(stream, "peer", path)?;
    let mut text = String::new();
    body.read_to_string(&mut text)?;
    Ok((status, text))
}

/// A download on a thread of its own.
pub struct Download {
    progress: Arc<Progress>,
    thread: JoinHandle<Result<Duration>>,
}

#[derive(Default)]
struct Progress {
    received: AtomicU64,
    /// Nanoseconds, since somebody asked last.
    stall: AtomicU64,
    stop: AtomicBool,
}

impl Download {
    /// Starts to load `bytes` bytes, sent in a steady stream of about 30 MB/s, from the lab's service.
    ///
    /// # Errors
    /// No connection, or another status than 200.
    pub fn start(from: &Namespace, service: IpAddr, bytes: u64) -> Result<Self> {
        let (status, body) =
            request(CONNECT, from, SocketAddr::new(service, super::HTTP_PORT), &format!("/paced/{bytes}"))?;
        ensure!(status == 200, "status {status}");
        let progress = Arc::new(Progress::default());
        let written = Arc::clone(&progress);
        let thread = thread::spawn(move || check_pattern(body, bytes, &written));
        Ok(Self { progress, thread })
    }

    /// Bytes so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.progress.received.load(Ordering::Relaxed)
    }

    /// The longest time in which nothing came, since the last call.
    #[must_use]
    pub fn take_stall(&self) -> Duration {
        Duration::from_nanos(self.progress.stall.swap(0, Ordering::Relaxed))
    }

    /// Ends it before all has come; returns the longest time in which nothing came.
    ///
    /// # Errors
    /// A byte is wrong, or the connection broke.
    pub fn stop(self) -> Result<Duration> {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the end; returns the longest time in which nothing came.
    ///
    /// # Errors
    /// A byte is wrong or missing, or the connection broke.
    pub fn finish(self) -> Result<Duration> {
        self.thread.join().map_err(|_| anyhow!("the download's thread panicked"))?
    }
}

fn request(limit: Duration, from: &Namespace, to: SocketAddr, path: &str) -> Result<(u16, BufReader<TcpStream>)> {
    let stream = from.enter(|| TcpStream::connect_timeout(&to, patient(limit)));
    let stream = stream.with_context(|| format!("{}: connect to {to}", from.name()))?;
    stream.set_read_timeout(Some(SILENCE))?;
    exchange(stream, &to.to_string(), path)
}

fn exchange<S: Read + Write>(mut stream: S, host: &str, path: &str) -> Result<(u16, BufReader<S>)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let status = read_line(&mut reader)?;
    let status = status.split(' ').nth(1).context("status line")?.parse()?;
    while !read_line(&mut reader)?.is_empty() {}
    Ok((status, reader))
}

/// Reads a line of a header, byte by byte: what follows belongs to somebody else.
pub(crate) fn read_line(from: &mut impl Read) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        from.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return Ok(String::from_utf8(line)?.trim_end().to_owned()),
            other => line.push(other),
        }
        ensure!(line.len() < 8192, "a header line without end");
    }
}

fn check_pattern(mut body: impl Read, bytes: u64, progress: &Progress) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    let mut chunk = vec![0; 64 * 1024];
    let (mut at, mut last) = (0_u64, Instant::now());
    loop {
        let length = body.read(&mut chunk).with_context(|| format!("after {at} of {bytes} bytes"))?;
        longest = longest.max(last.elapsed());
        progress.stall.fetch_max(last.elapsed().as_nanos() as u64, Ordering::Relaxed);
        last = Instant::now();
        if length == 0 {
            break;
        }
        for (offset, &byte) in (at..).zip(&chunk[..length]) {
            let expected = pattern_word(offset / 8).to_le_bytes()[(offset % 8) as usize];
            ensure!(byte == expected, "byte {offset} is {byte}, not {expected}");
        }
        at += length as u64;
        progress.received.store(at, Ordering::Relaxed);
        if progress.stop.load(Ordering::Relaxed) {
            return Ok(longest);
        }
    }
    ensure!(at == bytes, "{at} bytes of {bytes}");
    Ok(longest)
}
