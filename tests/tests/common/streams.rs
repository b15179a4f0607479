//! Connections of the kernel's own TCP, and why they end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peer_tests::lab::Namespace;

use super::SECOND;

/// A port that no service of the lab has.
pub(crate) const PORT: u16 = 8001;
/// Longer than the repetitions of a segment within the time that a scenario waits.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);

/// A service that accepts one connection and does with it what it is told.
pub(crate) fn serve<T: Send + 'static>(
    host: &Namespace,
    at: IpAddr,
    work: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> JoinHandle<T> {
    let listener = host.enter(|| TcpListener::bind((at, PORT))).expect("bind");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accept");
        drop(listener);
        work(patient(stream))
    })
}

pub(crate) fn connect(from: &Namespace, to: IpAddr) -> TcpStream {
    patient(from.enter(|| TcpStream::connect_timeout(&(to, PORT).into(), SECOND * 5)).expect("connect"))
}

pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(SILENCE)).expect("set");
    stream.set_write_timeout(Some(SILENCE)).expect("set");
    stream
}

/// Sends without an end; why it could not go on.
pub(crate) fn pour(mut stream: TcpStream) -> ErrorKind {
    let block = [7; 1 << 16];
    loop {
        if let Err(error) = stream.write_all(&block) {
            return error.kind();
        }
    }
}

/// Reads without an end; why it could not go on.
pub(crate) fn drain(mut stream: TcpStream) -> ErrorKind {
    let mut block = vec![0; 1 << 16];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return ErrorKind::UnexpectedEof,
            Ok(_) => {}
            Err(error) => return error.kind(),
        }
    }
}
