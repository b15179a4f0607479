//! What the shard's thread does, turn by turn.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peer_core::batch::{DatagramBatch, PacketBatch};
use peer_core::shard::Engine;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::{Command, ShardConfig, StopReason};
use crate::clock;
use crate::relay::RelayEnd;
use crate::stats::ShardStats;
use crate::tun::{MAX_PACKET, ReadEnd, TunQueue};
use crate::udp::{Family, MAX_SEGMENTS, MESSAGE_LEN, MESSAGES, Sockets};

/// Batches per source and turn.
const BATCHES: usize = 4;
/// Reads per batch from the device: with small packets one batch is as many.
const READS: usize = 64;
/// Items of an outgoing batch: 64 KiB of the smallest TCP segments that occur (536 bytes) and as many small packets.
const PACKETS: usize = 256;
/// Calls of the control side per turn.
const COMMANDS: usize = 32;
/// Batches of answers, and events, that the engine may have after one input before others get their turn.
const TRANSMITS: usize = 8;
const EVENTS: usize = 256;

/// Engine, descriptors and all the memory that packets pass through.
///
/// About a megabyte and a half of address space. What a burst touches of it is less: one super-packet out is 64 KiB of
/// frame, packets and datagrams each, which stays in the second level cache from read to send.
pub(super) struct Runner<E: Engine, F> {
    engine: E,
    ways: Ways,
    on_event: F,
    wake: Arc<OwnedFd>,
    stats: Arc<ShardStats>,
    /// Arrived, decrypted in place.
    datagrams_in: DatagramBatch,
    packets_in: PacketBatch,
    packets_out: PacketBatch,
    /// Also for what the engine says on its own.
    datagrams_out: DatagramBatch,
    /// Something waits of which poll(2) knows nothing.
    more: bool,
}

/// Where packets and datagrams come from and go to.
pub(super) struct Ways {
    pub(super) queue: TunQueue,
    pub(super) sockets: Sockets,
    pub(super) relays: RelayEnd,
}

/// What poll(2) said.
#[derive(Clone, Copy, Default)]
struct Ready {
    wake: bool,
    tun: bool,
    v4: bool,
    v6: bool,
}

impl<E: Engine, F: FnMut(E::Event)> Runner<E, F> {
    pub(super) fn new(
        config: ShardConfig,
        engine: E,
        mut ways: Ways,
        on_event: F,
        wake: Arc<OwnedFd>,
        stats: Arc<ShardStats>,
    ) -> Self {
        ways.queue.set_mtu(config.mtu);
        ways.sockets.describe(&stats);
        let (bytes_in, items_in) = (MESSAGES * MESSAGE_LEN, MESSAGES * MAX_SEGMENTS);
        // Half is filled, then the largest packet must still fit.
        let bytes_out = 2 * (MAX_PACKET + 1);
        Self {
            engine,
            ways,
            on_event,
            wake,
            stats,
            datagrams_in: DatagramBatch::with_capacity(bytes_in, items_in),
            packets_in: PacketBatch::with_capacity(bytes_in, items_in),
            packets_out: PacketBatch::with_capacity(bytes_out, PACKETS),
            datagrams_out: DatagramBatch::with_capacity(bytes_out + PACKETS * E::OVERHEAD, PACKETS),
            more: true,
        }
    }

    /// Until told to stop, or until a descriptor fails.
    pub(super) fn run(&mut self, inbox: &mut mpsc::Receiver<Command<E>>, stopping: &AtomicBool) -> StopReason {
        loop {
            if let Err(reason) = self.turn(inbox) {
                return reason;
            }
            if stopping.load(Ordering::Acquire) {
                return StopReason::Requested;
            }
        }
    }

    fn turn(&mut self, inbox: &mut mpsc::Receiver<Command<E>>) -> Result<(), StopReason> {
        let ready = self.wait().map_err(StopReason::io("waiting for packets"))?;
        self.stats.turns.add(1);
        if std::mem::take(&mut self.more) {
            self.after_input();
        }
        if ready.wake {
            // Only resets the counter; that it is 0 already is no failure.
            _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
        self.command(inbox);
        self.timer()?;
        for (family, ready) in [(Family::V4, ready.v4), (Family::V6, ready.v6)] {
            if ready {
                self.receive(family)?;
            }
        }
        self.receive_relayed()?;
        if ready.tun || self.ways.queue.has_pending() {
            self.read_tun()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<Ready> {
        let timeout = if self.more {
            Some(Duration::ZERO)
        } else {
            self.engine.poll_timeout().map(|at| at.saturating_duration_since(clock::now()))
        };
        // A timeout beyond what the kernel can express is none.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let wake = PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN);
        let tun = PollFd::from_borrowed_fd(self.ways.queue.as_fd(), PollFlags::IN);
        let v4 = self.ways.sockets.fd(Family::V4).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let v6 = self.ways.sockets.fd(Family::V6).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let spare = || PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::empty());
        let mut fds = [wake, tun, v4.unwrap_or_else(spare), v6.unwrap_or_else(spare)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        // Errors too: the read that follows says which.
        let [wake, tun, v4, v6] = fds.map(|fd| !fd.revents().is_empty());
        Ok(Ready { wake, tun, v4, v6 })
    }

    fn command(&mut self, inbox: &mut mpsc::Receiver<Command<E>>) {
        for _ in 0..COMMANDS {
            let Ok(command) = inbox.try_recv() else { return };
            command(&mut self.engine, clock::now());
            self.after_input();
        }
        self.more |= !inbox.is_empty();
    }

    fn timer(&mut self) -> Result<(), StopReason> {
        let now = clock::now();
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
            if let Some(change) = self.engine.poll_filter()
                && let Err(error) = self.ways.sockets.filter(&change)
            {
                tracing::warn!("the kernel takes no filter for a UDP socket, floods are received whole: {error}");
                self.engine.filter_refused();
            }
            self.deliver_held()?;
            self.after_input();
        }
        Ok(())
    }

    /// UDP to device.
    fn receive(&mut self, family: Family) -> Result<(), StopReason> {
        for _ in 0..BATCHES {
            self.datagrams_in.clear();
            let more = self.ways.sockets.receive(family, &mut self.datagrams_in, &self.stats);
            let more = more.map_err(StopReason::io("receiving datagrams"))?;
            if !self.datagrams_in.is_empty() {
                self.packets_in.clear();
                self.engine.handle_datagrams(clock::now(), &mut self.datagrams_in, &mut self.packets_in);
                self.deliver()?;
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Relays to device.
    fn receive_relayed(&mut self) -> Result<(), StopReason> {
        if !self.ways.relays.look() {
            return Ok(());
        }
        for _ in 0..BATCHES {
            let (engine, packets) = (&mut self.engine, &mut self.packets_in);
            packets.clear();
            let received = self.ways.relays.receive(&self.stats, |datagrams| {
                engine.handle_datagrams(clock::now(), datagrams, packets);
            });
            if received.is_none() {
                return Ok(());
            }
            self.deliver()?;
        }
        self.more |= self.ways.relays.look();
        Ok(())
    }

    /// Writes the packets that datagrams held to the device, and what the engine says to them.
    fn deliver(&mut self) -> Result<(), StopReason> {
        self.write()?;
        self.deliver_held()?;
        self.after_input();
        Ok(())
    }

    /// Writes what the engine has held back until now to the device.
    fn deliver_held(&mut self) -> Result<(), StopReason> {
        loop {
            self.packets_in.clear();
            let more = self.engine.poll_packets(&mut self.packets_in);
            if self.packets_in.is_empty() {
                return Ok(());
            }
            self.write()?;
            if !more {
                return Ok(());
            }
        }
    }

    fn write(&mut self) -> Result<(), StopReason> {
        self.ways.queue.write(&self.packets_in, &self.stats).map_err(StopReason::io("writing to the device"))
    }

    /// Device to UDP and relays.
    fn read_tun(&mut self) -> Result<(), StopReason> {
        for _ in 0..BATCHES {
            self.packets_out.clear();
            let end = self.ways.queue.read(&mut self.packets_out, READS, &self.stats);
            let end = end.map_err(StopReason::io("reading from the device"))?;
            if !self.packets_out.is_empty() {
                self.datagrams_out.clear();
                self.engine.handle_packets(clock::now(), &self.packets_out, &mut self.datagrams_out);
                self.send();
                self.after_input();
            }
            if end == ReadEnd::Empty {
                break;
            }
        }
        self.more |= self.ways.queue.has_pending();
        Ok(())
    }

    fn send(&mut self) {
        if self.ways.sockets.send(&self.datagrams_out, &self.stats) {
            self.ways.relays.send(&self.datagrams_out, &self.stats);
        }
    }

    /// Sends and tells what the engine has to say. It may have more than gets through now.
    fn after_input(&mut self) {
        let mut waiting = true;
        for _ in 0..TRANSMITS {
            self.datagrams_out.clear();
            waiting = self.engine.poll_transmit(&mut self.datagrams_out);
            self.send();
            if !waiting {
                break;
            }
        }
        let mut events = 0;
        while events < EVENTS
            && let Some(event) = self.engine.poll_event()
        {
            (self.on_event)(event);
            events += 1;
        }
        self.more |= waiting || events == EVENTS;
    }
}
