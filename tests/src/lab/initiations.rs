//! A host beside the node that floods it with handshake initiations that nobody sent.
//!
//! Addresses on them are others' or invented, so all of it stays inside the lab: it never runs in a network namespace of the
//! machine's, and every flood has a rate and an end.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};

use super::forge::Datagram;
use super::http::pattern_word;
use super::link::{End, sysctl, wire};
use super::namespace::Namespace;
use crate::sys::packet_socket::PacketSocket;

/// Most that a flood sends per second.
const MOST: u32 = 200_000;
/// Longest flood.
const LONGEST: Duration = Duration::from_secs(60);
/// Initiations that are different; then they come again.
const DIFFERENT: u64 = 8192;
/// Pause between two bursts.
const TICK: Duration = Duration::from_micros(500);
/// What is late by more is left out, not made up for.
const LATE: Duration = Duration::from_millis(10);
/// Invented addresses: those for benchmarks (RFC 2544).
const INVENTED: &str = "198.18.0.0/15";
/// The two ends of its wire: node, attacker.
const WIRE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 249)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 250))];
const DEVICE: &str = "attack0";

/// The host.
pub struct Attacker {
    namespace: Namespace,
    /// The node's end of the wire.
    hardware: [u8; 6],
    node_key: [u8; 32],
}

/// Whose addresses initiations bear.
#[derive(Clone, Copy, Debug)]
pub enum Senders {
    /// Somebody's.
    One(SocketAddr),
    /// Ever others, which lead nowhere.
    Invented,
}

/// A flood under way. It ends when stopped or dropped, or after a minute.
pub struct InitiationFlood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<f64>>>,
}

impl Attacker {
    /// Wires one to a node, whose public key it knows. The node takes what it sends, whatever address is on it, as a node
    /// without a reverse path filter does.
    ///
    /// # Errors
    /// `ip` fails, or that is no key.
    pub fn beside(node: &Namespace, node_key: &str) -> Result<Self> {
        let namespace = Namespace::new("attacker")?;
        wire(
            &End { namespace: node, device: DEVICE, addresses: &[(WIRE[0], 30)] },
            &End { namespace: &namespace, device: "up0", addresses: &[(WIRE[1], 30)] },
        )?;
        for device in ["all", DEVICE] {
            sysctl(node, &format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
        }
        node.exec("ip", &["route", "add", INVENTED, "via", &WIRE[1].to_string()])?;
        let text = node.exec("cat", &[&format!("/sys/class/net/{DEVICE}/address")])?;
        let hardware: Vec<u8> =
            text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        let hardware = hardware.try_into().map_err(|_| anyhow!("{DEVICE}: {text} is no hardware address"))?;
        let node_key = STANDARD.decode(node_key).ok().and_then(|key| key.try_into().ok());
        Ok(Self { namespace, hardware, node_key: node_key.context("the node's public key")? })
    }

    /// Begins a flood of so many a second to a port of the node. Each initiation has a right first MAC; all else is noise.
    ///
    /// # Errors
    /// The rate is beyond bounds, or the device refuses.
    pub fn flood(&self, senders: Senders, port: u16, per_second: u32) -> Result<InitiationFlood> {
        ensure!((1..=MOST).contains(&per_second), "{per_second} a second is beyond {MOST}");
        let id = self.namespace.id()?;
        for process in ["self", "1"] {
            let theirs = fs::metadata(format!("/proc/{process}/ns/net")).map(|space| space.ino()).ok();
            ensure!(theirs != Some(id), "a flood must not run in a network of the machine's");
        }
        let packets: Vec<_> = (0..DIFFERENT).map(|n| self.packet(senders, port, n)).collect::<Result<_>>()?;
        let socket = self.namespace.enter(|| PacketSocket::open("up0"))?.towards(self.hardware);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || run(&socket, &packets, per_second, &stopping));
        Ok(InitiationFlood { stop, thread: Some(thread) })
    }

    fn packet(&self, senders: Senders, port: u16, number: u64) -> Result<Vec<u8>> {
        let sender = match senders {
            Senders::One(address) => address,
            Senders::Invented => {
                let word = pattern_word(number);
                let host = Ipv4Addr::from_bits(0xc612_0000 | (word as u32 & 0x1_ffff));
                SocketAddr::new(host.into(), 1024 | (word >> 32) as u16)
            }
        };
        let content = initiation(&self.node_key, number);
        Datagram::udp((sender.ip(), sender.port()), (WIRE[0], port), &content).bytes()
    }
}

impl InitiationFlood {
    /// Ends it; says how many a second it sent.
    ///
    /// # Errors
    /// It had ended by itself, for whatever reason.
    pub fn stop(mut self) -> Result<f64> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("a flood ends once")?;
        thread.join().map_err(|_| anyhow!("the flood panicked"))?
    }
}

impl Drop for InitiationFlood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn run(socket: &PacketSocket, packets: &[Vec<u8>], per_second: u32, stop: &AtomicBool) -> Result<f64> {
    let (start, rate) = (Instant::now(), f64::from(per_second));
    let (mut due, mut sent, mut next) = (0.0_f64, 0_u64, 0);
    while !stop.load(Ordering::Acquire) {
        let elapsed = start.elapsed();
        ensure!(elapsed < LONGEST, "a flood of {per_second} a second was not stopped for {LONGEST:?}");
        let now = elapsed.as_secs_f64() * rate;
        due = due.max(now - LATE.as_secs_f64() * rate);
        while due < now {
            let count = ((now - due).ceil() as usize).min(64).min(packets.len() - next);
            match socket.send_many(&packets[next..next + count]) {
                Ok(went) => {
                    next = (next + went) % packets.len();
                    (due, sent) = (due + went as f64, sent + went as u64);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => break,
                Err(error) => return Err(error.into()),
            }
        }
        thread::sleep(TICK);
    }
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

/// An initiation (WireGuard paper §5.4.2) of noise with the first MAC that the key asks for (§5.4.4).
fn initiation(to: &[u8; 32], number: u64) -> Vec<u8> {
    let mut message = vec![1, 0, 0, 0];
    message.extend((0..14).flat_map(|at| pattern_word(number << 8 | at).to_be_bytes()));
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(to).finalize();
    let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key).expect("32 bytes are a key");
    let mac1 = mac.chain_update(&message).finalize().into_bytes();
    message.extend(mac1);
    message.extend([0; 16]);
    message
}
