//! One super-packet of the kernel into packets: what a network card with segmentation offload does.

use peer_core::batch::PacketBatch;
use zerocopy::FromBytes as _;

use super::MAX_PACKET;
use super::fragment::Fragmenter;
use super::packet::{self, Kind, TCP_CWR, TCP_FIN, TCP_PSH, Transport};
use super::vnet::{self, VnetHeader};
use crate::checksum::Sum;

/// Cuts what was read from a TUN; remembers where it stopped when the batch was full.
#[derive(Debug)]
pub(crate) struct Splitter {
    left: Option<Cut>,
    fragments: Fragmenter,
    oversize: Oversize,
}

/// Packets, and segments of super-packets, that were larger than the MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oversize {
    /// Cut into fragments.
    pub(crate) fragmented: u64,
    /// Dropped: they may not be fragmented.
    pub(crate) dropped: u64,
}

/// Headers that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// How a super-packet is cut and how far that got.
#[derive(Clone, Copy, Debug)]
struct Cut {
    v6: bool,
    transport: Transport,
    /// Larger segments are fragmented.
    mtu: usize,
    /// Offset of the transport header.
    l4: usize,
    /// Offset of the payload.
    payload: usize,
    /// Payload bytes of a segment.
    size: usize,
    /// Pseudo-header without a length.
    pseudo: Sum,
    /// Payload bytes done.
    done: usize,
    /// Segments done.
    count: u16,
}

impl Splitter {
    pub(crate) fn new() -> Self {
        Self { left: None, fragments: Fragmenter::new(), oversize: Oversize::default() }
    }

    /// Whether the last packet is not wholly in a batch yet.
    pub(crate) fn has_more(&self) -> bool {
        self.left.is_some() || self.fragments.has_more()
    }

    /// What was larger than the MTU since the last call.
    pub(crate) fn take_oversize(&mut self) -> Oversize {
        std::mem::take(&mut self.oversize)
    }

    /// Starts on `frame`, a vnet header and a packet, and puts what fits into `batch`; says whether it is a super-packet.
    /// A TCP super-packet whose segments would be larger than `mtu` is cut smaller; datagrams and single packets are
    /// fragmented.
    pub(crate) fn start(&mut self, frame: &[u8], mtu: usize, batch: &mut PacketBatch) -> Result<bool, Malformed> {
        self.left = None;
        let (header, data) = VnetHeader::read_from_prefix(frame).map_err(|_| Malformed)?;
        if header.gso_type == vnet::GSO_NONE {
            self.single(header, data, mtu, batch)?;
            return Ok(false);
        }
        self.left = Some(Cut::new(header, data, mtu)?);
        self.resume(frame, batch);
        Ok(true)
    }

    /// Puts more of the same `frame` into `batch`.
    pub(crate) fn resume(&mut self, frame: &[u8], batch: &mut PacketBatch) {
        if !self.fragments.resume(batch) {
            return;
        }
        let (Some(mut cut), Some(data)) = (self.left.take(), frame.get(vnet::LEN..)) else { return };
        while cut.payload + cut.done < data.len() {
            let len = cut.size.min(data.len() - cut.payload - cut.done);
            let total = cut.payload + len;
            if total > cut.mtu {
                cut.write(data, len, self.fragments.room(total));
                cut.advance(len);
                if !self.fragment(total, cut.mtu, batch) {
                    self.left = Some(cut);
                    return;
                }
                continue;
            }
            let pushed = batch.push_with(total, |room| {
                cut.write(data, len, room);
                Some((room.len(), ()))
            });
            if !pushed {
                self.left = Some(cut);
                return;
            }
            cut.advance(len);
        }
    }

    /// A packet that is no super-packet; its checksum may be left to us.
    fn single(
        &mut self,
        header: VnetHeader,
        data: &[u8],
        mtu: usize,
        batch: &mut PacketBatch,
    ) -> Result<(), Malformed> {
        let start = usize::from(header.csum_start);
        let field = start + usize::from(header.csum_offset);
        let partial = header.flags & vnet::NEEDS_CSUM != 0;
        if data.is_empty() || data.len() > MAX_PACKET || (partial && data.len() < field + 2) {
            return Err(Malformed);
        }
        let copy = |room: &mut [u8]| {
            room.copy_from_slice(data);
            if partial {
                let checksum = complete(Sum::default().add_bytes(&room[start..]));
                room[field..field + 2].copy_from_slice(&checksum);
            }
        };
        if data.len() > mtu {
            copy(self.fragments.room(data.len()));
            // What is left goes into the next batch.
            _ = self.fragment(data.len(), mtu, batch);
            return Ok(());
        }
        let pushed = batch.push_with(data.len(), |room| {
            copy(room);
            Some((room.len(), ()))
        });
        if pushed { Ok(()) } else { Err(Malformed) }
    }

    /// Cuts what was written into the fragmenter's room, or drops it; says whether no fragment is left.
    fn fragment(&mut self, len: usize, mtu: usize, batch: &mut PacketBatch) -> bool {
        if self.fragments.start(len, mtu).is_err() {
            self.oversize.dropped += 1;
            return true;
        }
        self.oversize.fragmented += 1;
        self.fragments.resume(batch)
    }
}

impl Cut {
    fn new(header: VnetHeader, data: &[u8], mtu: usize) -> Result<Self, Malformed> {
        let transport = match header.gso_type & !vnet::GSO_ECN {
            vnet::GSO_TCPV4 | vnet::GSO_TCPV6 => Transport::Tcp,
            vnet::GSO_UDP_L4 => Transport::Udp,
            _ => return Err(Malformed),
        };
        let v6 = match data.first().ok_or(Malformed)? >> 4 {
            4 => false,
            6 => true,
            _ => return Err(Malformed),
        };
        let (l4, pseudo) = if header.flags & vnet::NEEDS_CSUM == 0 {
            let Kind::Flow(layout) = packet::classify(data) else { return Err(Malformed) };
            (layout.l4(), layout.pseudo_header(data, 0))
        } else {
            partial(header, data, transport, v6)?
        };
        let payload = l4 + l4_header(data, l4, transport)?;
        let mut size = usize::from(header.gso_size);
        if transport == Transport::Tcp && mtu > payload {
            size = size.min(mtu - payload);
        }
        // IPv4 counts its header in the length, IPv6 does not; a jumbogram (RFC 2675) is nothing that we could send.
        let fits = data.len() <= usize::from(u16::MAX);
        if size == 0 || payload >= data.len() || !fits || payload + size > usize::from(u16::MAX) {
            return Err(Malformed);
        }
        Ok(Self { v6, transport, mtu, l4, payload, size, pseudo, done: 0, count: 0 })
    }

    fn advance(&mut self, len: usize) {
        self.done += len;
        self.count = self.count.wrapping_add(1);
    }

    /// Writes the next segment, with `len` bytes of payload, over `room`.
    fn write(&self, data: &[u8], len: usize, room: &mut [u8]) {
        let from = self.payload + self.done;
        let last = from + len == data.len();
        room[..self.payload].copy_from_slice(&data[..self.payload]);
        room[self.payload..].copy_from_slice(&data[from..from + len]);
        // IPv4's identification counts up, as the kernel does it. Ignored for IPv6.
        let id = packet::read_u16(data, 4).wrapping_add(self.count);
        let total = room.len() as u16;
        packet::set_length(room, self.v6, self.l4, total, id);
        let l4 = &mut room[self.l4..];
        match self.transport {
            Transport::Tcp => {
                let seq = packet::read_u32(l4, 4).wrapping_add(self.done as u32);
                l4[4..8].copy_from_slice(&seq.to_be_bytes());
                if !last {
                    l4[13] &= !(TCP_FIN | TCP_PSH);
                }
                if self.done > 0 {
                    l4[13] &= !TCP_CWR;
                }
            }
            Transport::Udp => {
                let len = l4.len() as u16;
                l4[4..6].copy_from_slice(&len.to_be_bytes());
            }
        }
        let field = self.transport.checksum_offset();
        l4[field..field + 2].fill(0);
        let sum = self.pseudo.add_number(l4.len() as u16).add_bytes(l4);
        l4[field..field + 2].copy_from_slice(&complete(sum));
    }
}

/// The pseudo-header's sum out of the checksum field, without its length. It is right where we could not compute it:
/// behind a routing header the destination of the pseudo-header is another one than the header's.
fn partial(header: VnetHeader, data: &[u8], transport: Transport, v6: bool) -> Result<(usize, Sum), Malformed> {
    let l4 = usize::from(header.csum_start);
    let least = if v6 { 40 } else { usize::from(data[0] & 0xf) * 4 };
    let field = l4 + transport.checksum_offset();
    let rightful = usize::from(header.csum_offset) == transport.checksum_offset()
        && if v6 { l4 >= least } else { l4 == least && least >= 20 };
    if !rightful || data.len() < field + 2 {
        return Err(Malformed);
    }
    let len = u16::try_from(data.len() - l4).map_err(|_| Malformed)?;
    Ok((l4, Sum::of_word([data[field], data[field + 1]]).sub_number(len)))
}

fn l4_header(data: &[u8], l4: usize, transport: Transport) -> Result<usize, Malformed> {
    match transport {
        Transport::Udp => Ok(8),
        Transport::Tcp => match usize::from(data.get(l4 + 12).ok_or(Malformed)? >> 4) * 4 {
            len @ 20.. => Ok(len),
            _ => Err(Malformed),
        },
    }
}

/// Zero would mean "no checksum" to UDP; its other form means the same to everybody else (RFC 768).
fn complete(sum: Sum) -> [u8; 2] {
    match sum.checksum() {
        [0, 0] => [0xff; 2],
        checksum => checksum,
    }
}
