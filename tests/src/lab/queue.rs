//! Decrypted packets, without the tunnel.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow};

use super::namespace::Namespace;
use crate::sys::tun::open_queue;

/// Bytes of the vnet header before each packet; zeros say that nothing is left to do.
const VNET_HEADER: usize = 10;

/// Lets each packet arrive at the node's mesh device twice, at the same moment, on two CPUs if there are two.
///
/// # Errors
/// The device takes no further queue, or no packet.
pub fn arrive_twice_at_once(node: &Namespace, device: &str, packets: &[Vec<u8>]) -> Result<()> {
    let queue = node.enter(|| open_queue(device)).with_context(|| format!("{}: a queue of {device}", node.name()))?;
    let started = [const { AtomicUsize::new(0) }; 2];
    let write = |own: usize| -> Result<()> {
        for (number, packet) in packets.iter().enumerate() {
            let frame = [&[0; VNET_HEADER][..], packet].concat();
            started[own].store(number + 1, Ordering::Release);
            while started[1 - own].load(Ordering::Acquire) <= number {
                std::hint::spin_loop();
            }
            (&queue).write_all(&frame)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let writers = [0, 1].map(|own| scope.spawn(move || write(own)));
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| anyhow!("a writer panicked"))?)
    })
}
