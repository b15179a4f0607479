//! The server's socket.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::{Builder, Runtime};

/// A STUN server on one UDP address. It answers until it is killed or dropped.
pub struct StunServer {
    bind: Box<dyn Fn() -> io::Result<UdpSocket> + Send + Sync>,
    runtime: Option<Runtime>,
    address: SocketAddr,
    answered: Arc<AtomicU64>,
}

impl StunServer {
    /// Starts one. `bind` opens the socket, also after [`Self::kill`]: it decides in which namespace.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn start(bind: impl Fn() -> io::Result<UdpSocket> + Send + Sync + 'static) -> Result<Self> {
        let address = SocketAddr::from(([0; 4], 0));
        let mut this = Self { bind: Box::new(bind), runtime: None, address, answered: Arc::default() };
        this.resume()?;
        Ok(this)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How management names it: `stun:host:port`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("stun:{}", self.address)
    }

    /// Requests answered since the first start.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Closes the socket at once.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Starts again after [`Self::kill`].
    ///
    /// # Errors
    /// The socket cannot be opened; the server runs already.
    pub fn resume(&mut self) -> Result<()> {
        ensure!(self.runtime.is_none(), "the STUN server runs already");
        let socket = (self.bind)().context("open the STUN socket")?;
        socket.set_nonblocking(true)?;
        self.address = socket.local_addr()?;
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("stun").enable_all().build()?;
        {
            let _entered = runtime.enter();
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            runtime.spawn(serve(socket, Arc::clone(&self.answered)));
        }
        self.runtime = Some(runtime);
        Ok(())
    }
}

impl Drop for StunServer {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(socket: tokio::net::UdpSocket, answered: Arc<AtomicU64>) {
    let mut buffer = [0; 2048];
    loop {
        // An error is an ICMP message about an answer: the next request may be better.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(answer) = super::answer(&buffer[..length], from) else { continue };
        answered.fetch_add(1, Ordering::Relaxed);
        let _ = socket.send_to(&answer, from).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::{mapped_address, request};

    #[test]
    fn it_answers_until_killed_and_again_after() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let mut server = StunServer::start(move || UdpSocket::bind(host)).expect("server");
            let client = UdpSocket::bind(host).expect("client");
            client.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
            for answered in 1..3 {
                let request = request();
                client.send_to(&request, server.address()).expect("send");
                let mut buffer = [0; 200];
                let length = client.recv(&mut buffer).expect("answer");
                let mapped = mapped_address(&buffer[..length], &request);
                assert_eq!(mapped, Some(client.local_addr().expect("address")));
                assert_eq!(server.answered(), answered);
                server.kill();
                UdpSocket::bind(server.address()).expect("nobody is at its port");
                server.resume().expect("again");
            }
        }
    }
}
