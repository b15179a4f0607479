//! A name server that knows one name.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::namespace::Namespace;
use super::udp::Udp;

const PORT: u16 = 53;
/// How often it looks whether it should end.
const TICK: Duration = Duration::from_millis(50);
/// RFC 1035, 4.1.1: an authoritative response; the same that no such name exists.
const FOUND: u16 = 0x8400;
const NOT_FOUND: u16 = 0x8403;
/// RFC 1035, 3.2.2 and 3.2.4.
const TYPE_A_CLASS_IN: [u8; 4] = [0, 1, 0, 1];

/// Answers until it is dropped.
pub struct NameServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    asked: AtomicU64,
    stop: AtomicBool,
}

impl NameServer {
    /// Answers on UDP port 53 of `at` that `name` has `address`, and that other names do not exist.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(inside: &Namespace, at: IpAddr, name: &str, address: Ipv4Addr) -> Result<Self> {
        let socket = Udp::bind(inside, at, PORT)?;
        let shared = Arc::new(Shared::default());
        let known = encoded(name);
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !of_thread.stop.load(Ordering::Relaxed) {
                let Ok(Some((query, from))) = socket.receive(TICK) else { continue };
                if let Some(answer) = answer(&query, &known, address) {
                    of_thread.asked.fetch_add(1, Ordering::Relaxed);
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Questions answered so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A name as labels with their lengths.
fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).unwrap_or(63);
        [&[length], label.as_bytes()].concat()
    });
    labels.chain([0]).collect()
}

/// The response to a query of one question; `None`: it is none.
fn answer(query: &[u8], known: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let (header, rest) = query.split_at_checked(12)?;
    let name_length = rest.iter().position(|&byte| byte == 0)? + 1;
    let question = rest.get(..name_length + 4)?;
    let (name, kind) = question.split_at(name_length);
    let exists = name.eq_ignore_ascii_case(known);
    let has_address = exists && kind == TYPE_A_CLASS_IN;
    let mut response = header.get(..2)?.to_vec();
    let flags = if exists { FOUND } else { NOT_FOUND };
    for field in [flags, 1, u16::from(has_address), 0, 0] {
        response.extend(field.to_be_bytes());
    }
    response.extend(question);
    if has_address {
        // The name of the question, type, class, a minute, four bytes.
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        response.extend(address.octets());
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_known() {
        let address = Ipv4Addr::new(192, 0, 2, 7);
        let known = encoded("a.test");
        assert_eq!(known, b"\x01a\x04test\x00");
        let query =
            |name: &str, kind: u8| [&[7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &*encoded(name), &[0, kind, 0, 1]].concat();
        let found = answer(&query("A.test", 1), &known, address).expect("an answer");
        assert_eq!((&found[..4], &found[found.len() - 4..]), (&[7, 8, 0x84, 0][..], &address.octets()[..]));
        let no_v6 = answer(&query("a.test", 28), &known, address).expect("an answer");
        assert_eq!((&no_v6[2..4], &no_v6[6..8]), (&[0x84, 0][..], &[0, 0][..]), "there, without such an address");
        let other = answer(&query("b.test", 1), &known, address).expect("an answer");
        assert_eq!(other[3] & 15, 3, "no such name");
        assert_eq!(answer(b"short", &known, address), None);
    }
}
