//! HTTP clients that hold on to a server without getting anywhere.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use super::namespace::Namespace;

/// A server whose queue is full is not waited for.
const CONNECT: Duration = Duration::from_secs(2);
/// What such a client's kernel takes before it is read.
const RECEIVE_BUFFER: usize = 2048;

/// How a client is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slowness {
    /// It says nothing.
    Silent,
    /// It says half of a request, and a little more whenever [`Slow::go_on`] is called.
    Header,
    /// It asks for a path and does not read the answer.
    Reader(&'static str),
}

/// Connections of such clients.
#[derive(Debug, Default)]
pub struct Slow {
    connections: Vec<(TcpStream, Slowness)>,
}

impl Slow {
    /// Opens connections, each from the next of the `sources` and slow in the next of the ways. Returns how many came about;
    /// the server may have ended them since.
    ///
    /// # Errors
    /// This process may not have so many, or an address is not the namespace's.
    pub fn open(
        &mut self,
        from: &Namespace,
        sources: &[IpAddr],
        to: SocketAddr,
        ways: &[Slowness],
        count: usize,
    ) -> Result<usize> {
        let turns = sources.iter().cycle().zip(ways.iter().cycle()).take(count);
        let opened = from.enter(|| {
            let mut opened = Vec::with_capacity(count);
            for (source, way) in turns {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).context("a socket")?;
                socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
                socket.bind(&SocketAddr::new(*source, 0).into()).with_context(|| format!("bind {source}"))?;
                if socket.connect_timeout(&to.into(), CONNECT).is_ok() {
                    socket.set_nonblocking(true)?;
                    opened.push((TcpStream::from(socket), *way));
                }
                if let Some((stream, way)) = opened.last_mut() {
                    // It may have been ended already.
                    let _ = begin(stream, *way);
                }
            }
            anyhow::Ok(opened)
        })?;
        let count = opened.len();
        self.connections.extend(opened);
        Ok(count)
    }

    /// Whoever sends a header sends a line more of it. Returns how many still can.
    pub fn go_on(&mut self) -> usize {
        let headers = self.connections.iter_mut().filter(|(_, way)| *way == Slowness::Header);
        headers.filter_map(|(stream, _)| stream.write_all(b"x: y\r\n").ok()).count()
    }
}

/// Lets this process have as many descriptors as it may: each connection is one.
///
/// # Errors
/// The kernel refuses.
pub fn raise_descriptor_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

fn begin(stream: &mut TcpStream, way: Slowness) -> io::Result<()> {
    match way {
        Slowness::Silent => Ok(()),
        Slowness::Header => stream.write_all(b"GET /livez HTTP/1.1\r\nhost: peer\r\n"),
        Slowness::Reader(path) => write!(stream, "GET {path} HTTP/1.1\r\nhost: peer\r\n\r\n"),
    }
}
