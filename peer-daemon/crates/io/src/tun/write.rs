//! Batches to the TUN: plans groups and hands each to one gathering write, payloads where they lie.

use std::io::{self, IoSlice};

use peer_core::batch::PacketBatch;
use zerocopy::IntoBytes as _;

use super::Offloads;
use super::coalesce::{Coalescer, Group, Joinable, MAX_SEGMENTS};
use super::packet::{self, Layout, Transport};
use super::vnet::{self, VnetHeader};
use crate::stats::{IoDrop, ShardStats};

/// IPv6 and the longest TCP header.
const MAX_HEADERS: usize = 40 + 60;

/// Writes batches, and remembers which offloads the kernel refused.
#[derive(Debug)]
pub(crate) struct Writer {
    offloads: Offloads,
    coalescer: Coalescer,
}

impl Writer {
    pub(crate) fn new(offloads: Offloads, items: usize) -> Self {
        Self { offloads, coalescer: Coalescer::new(items) }
    }

    pub(crate) fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// `write` is writev(2). Its errors are counted, but for that of a device that is gone.
    pub(crate) fn write(
        &mut self,
        batch: &PacketBatch,
        stats: &ShardStats,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.coalescer.plan(batch, Joinable { tcp: self.offloads.tcp, udp: self.offloads.udp });
        for group in self.coalescer.groups() {
            match group.layout() {
                // Refused meanwhile: the plan is older than that.
                Some(layout) if self.offloads.allow(layout.transport) => {
                    match write_super(batch, &self.coalescer, group, layout, &mut write) {
                        Ok(()) => {
                            stats.tun_out.calls.add(1);
                            stats.tun_out.super_packets.add(1);
                            stats.tun_out.joined_packets.add(group.count() as u64);
                            stats.tun_out.packets.add(group.count() as u64);
                            stats.tun_out.bytes.add(bytes(group, layout));
                        }
                        Err(error) if is_refusal(&error) => {
                            let written = write_singles(batch, &self.coalescer, group, stats, &mut write)?;
                            // A device that is down refuses everything; that says nothing about offloads.
                            if written > 0 {
                                self.offloads.refuse(layout.transport, stats);
                            }
                        }
                        Err(error) => {
                            drop_on(error, group.count(), stats)?;
                        }
                    }
                }
                _ => _ = write_singles(batch, &self.coalescer, group, stats, &mut write)?,
            }
        }
        Ok(())
    }
}

impl Offloads {
    fn allow(self, transport: Transport) -> bool {
        match transport {
            Transport::Tcp => self.tcp,
            Transport::Udp => self.udp,
        }
    }

    fn refuse(&mut self, transport: Transport, stats: &ShardStats) {
        let (offload, fallback, name) = match transport {
            Transport::Tcp => (&mut self.tcp, &stats.tso_fallback, "TCP"),
            Transport::Udp => (&mut self.udp, &stats.uso_fallback, "UDP"),
        };
        *offload = false;
        fallback.set(1);
        tracing::warn!("the kernel refuses {name} super-packets: packets are written one by one from now on");
    }
}

/// Bytes that the group's packets have on their own, headers of each counted.
fn bytes(group: &Group, layout: &Layout) -> u64 {
    (group.len() + (group.count() - 1) * layout.payload) as u64
}

/// One packet per write. Returns how many the kernel took.
fn write_singles(
    batch: &PacketBatch,
    coalescer: &Coalescer,
    group: &Group,
    stats: &ShardStats,
    write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let header = VnetHeader::default();
    let mut written = 0;
    for index in coalescer.members(group) {
        let Some((packet, ())) = batch.get(index) else { continue };
        stats.tun_out.calls.add(1);
        match retry(|| write(&[IoSlice::new(header.as_bytes()), IoSlice::new(packet)])) {
            Ok(_) => {
                written += 1;
                stats.tun_out.packets.add(1);
                stats.tun_out.bytes.add(packet.len() as u64);
            }
            Err(error) => drop_on(error, 1, stats)?,
        }
    }
    Ok(written)
}

/// All packets of the group in one write: headers from the first, changed to span all, then the payloads.
fn write_super(
    batch: &PacketBatch,
    coalescer: &Coalescer,
    group: &Group,
    layout: &Layout,
    write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut headers = [0; MAX_HEADERS];
    let headers = &mut headers[..layout.payload];
    let mut parts = [IoSlice::new(&[]); 2 + MAX_SEGMENTS];
    let mut last: &[u8] = &[];
    for (place, index) in parts[2..].iter_mut().zip(coalescer.members(group)) {
        let Some((packet, ())) = batch.get(index) else { continue };
        if last.is_empty() {
            headers.copy_from_slice(&packet[..layout.payload]);
        }
        *place = IoSlice::new(&packet[layout.payload..]);
        last = packet;
    }
    span(headers, layout, group.len(), last);
    let vnet = vnet_header(group, layout);
    parts[0] = IoSlice::new(vnet.as_bytes());
    parts[1] = IoSlice::new(headers);
    let parts = &parts[..2 + group.count()];
    retry(|| write(parts)).map(|_| ())
}

/// Makes the first packet's headers those of a super-packet of `len` bytes that ends as `last` does.
fn span(headers: &mut [u8], layout: &Layout, len: usize, last: &[u8]) {
    let l4 = layout.l4();
    let l4_len = (len - l4) as u16;
    let id = packet::read_u16(headers, 4);
    packet::set_length(headers, layout.v6, l4, len as u16, id);
    match layout.transport {
        // FIN and PSH of the last segment; all other flags are those of every segment.
        Transport::Tcp => headers[l4 + 13] = last[l4 + 13],
        Transport::Udp => headers[l4 + 4..l4 + 6].copy_from_slice(&l4_len.to_be_bytes()),
    }
    let field = l4 + layout.transport.checksum_offset();
    let partial = layout.pseudo_header(headers, l4_len).folded();
    headers[field..field + 2].copy_from_slice(&partial);
}

fn vnet_header(group: &Group, layout: &Layout) -> VnetHeader {
    VnetHeader {
        flags: vnet::NEEDS_CSUM,
        gso_type: match (layout.transport, layout.v6) {
            (Transport::Tcp, false) => vnet::GSO_TCPV4,
            (Transport::Tcp, true) => vnet::GSO_TCPV6,
            (Transport::Udp, _) => vnet::GSO_UDP_L4,
        },
        hdr_len: layout.payload as u16,
        gso_size: group.segment() as u16,
        csum_start: layout.l4() as u16,
        csum_offset: layout.transport.checksum_offset() as u16,
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO))
}

/// Counts `packets` that the kernel did not take; gives the error back if there is no device any more.
fn drop_on(error: io::Error, packets: usize, stats: &ShardStats) -> io::Result<()> {
    let reason = match error.raw_os_error() {
        Some(libc::EBADFD | libc::EBADF) => return Err(error),
        Some(libc::EINVAL) => IoDrop::TunRefused,
        Some(libc::EIO) => IoDrop::TunDown,
        Some(libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS) => IoDrop::TunNoMemory,
        _ => IoDrop::TunOther,
    };
    stats.dropped(reason, packets as u64);
    Ok(())
}
