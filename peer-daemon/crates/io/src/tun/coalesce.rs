//! Packets of a batch into super-packets: what a network card does on receive (GRO), before the TUN instead of behind it.
//!
//! A group is a super-packet to be, or a packet that goes alone. Groups leave in the order in which they were begun, and
//! a packet joins only the latest group of its flow, directly behind its predecessor: order within a flow is kept by
//! construction. Joined is only what segmentation takes apart into the same bytes again, so peers cannot tell.

use peer_core::batch::PacketBatch;

use super::packet::{self, Kind, Layout, TCP_ACK, TCP_ECE, TCP_FIN, TCP_PSH, Transport};

/// Segments of one super-packet at most. For UDP the limit is the kernel's (UDP_MAX_SEGMENTS, 64 on older ones).
pub(crate) const MAX_SEGMENTS: usize = 128;
const MAX_DATAGRAMS: usize = 64;
/// Flows that are joined side by side; one more ends the group of another one. A scan of so few is cheap, and what a
/// peer may put into the batch cannot make it longer.
const MAX_OPEN: usize = 64;

/// Which packets may be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joinable {
    pub(crate) tcp: bool,
    pub(crate) udp: bool,
}

/// Plans groups. Its memory is used again for every batch.
#[derive(Debug)]
pub(crate) struct Coalescer {
    groups: Vec<Group>,
    /// For each packet the next one of its group.
    next: Vec<u32>,
    open: Vec<Open>,
    evict: usize,
}

/// One write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    first: u32,
    last: u32,
    count: u32,
    /// Of the first packet; `None`: it goes as it is.
    layout: Option<Layout>,
    /// Payload bytes of each packet but the last.
    size: usize,
    /// Bytes of the super-packet.
    len: usize,
    /// Checksums of the first packet, once they were looked at.
    valid: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    flow: u64,
    hosts: u64,
    group: u32,
}

impl Group {
    /// Packets in it.
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    /// Where things are in its packets, if it has more than one.
    pub(crate) fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref().filter(|_| self.count > 1)
    }

    /// Payload bytes of each packet but the last.
    pub(crate) fn segment(&self) -> usize {
        self.size
    }

    /// Bytes of the super-packet.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Coalescer {
    /// For batches of `items`; larger ones allocate.
    pub(crate) fn new(items: usize) -> Self {
        let (groups, next) = (Vec::with_capacity(items), Vec::with_capacity(items));
        Self { groups, next, open: Vec::with_capacity(MAX_OPEN), evict: 0 }
    }

    /// Plans the groups of `batch`.
    pub(crate) fn plan(&mut self, batch: &PacketBatch, may: Joinable) {
        self.groups.clear();
        self.next.clear();
        self.open.clear();
        for (index, (packet, ())) in batch.iter().enumerate() {
            self.next.push(u32::MAX);
            self.add(batch, index as u32, packet, may);
        }
    }

    /// The groups, in the order in which they are to be written.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Indexes of a group's packets, in order.
    pub(crate) fn members(&self, group: &Group) -> impl Iterator<Item = usize> + '_ {
        let mut next = group.first;
        (0..group.count).map(move |_| {
            let this = next as usize;
            next = self.next[this];
            this
        })
    }

    fn add(&mut self, batch: &PacketBatch, index: u32, packet: &[u8], may: Joinable) {
        let layout = match packet::classify(packet) {
            // Belongs to no flow.
            Kind::Malformed => return self.begin(index, packet, None),
            Kind::Portless => {
                let hosts = hash(&packet[packet::addresses(packet[0] >> 4 == 6)]);
                self.open.retain(|open| open.hosts != hosts);
                return self.begin(index, packet, None);
            }
            Kind::Flow(layout) => layout,
        };
        let hosts = hash(&packet[packet::addresses(layout.v6)]);
        let ports = packet::read_u32(packet, layout.l4());
        let flow = mix(hosts, u64::from(ports) << 8 | u64::from(layout.transport.protocol()));
        let slot = self.open.iter().position(|open| open.flow == flow);
        let joinable = can_join(packet, &layout, may);
        if let (Some(slot), true) = (slot, joinable)
            && self.join(batch, self.open[slot].group, index, packet, &layout)
        {
            if ends(packet, &layout, self.groups[self.open[slot].group as usize].size) {
                self.open.swap_remove(slot);
            }
            return;
        }
        let group = self.groups.len() as u32;
        self.begin(index, packet, Some(layout));
        let stays_open = joinable && !ends(packet, &layout, packet.len() - layout.payload);
        match (slot, stays_open) {
            (Some(slot), true) => self.open[slot].group = group,
            (Some(slot), false) => _ = self.open.swap_remove(slot),
            (None, true) => self.open(Open { flow, hosts, group }),
            (None, false) => {}
        }
    }

    fn open(&mut self, open: Open) {
        if self.open.len() < MAX_OPEN {
            self.open.push(open);
        } else {
            self.evict = (self.evict + 1) % MAX_OPEN;
            self.open[self.evict] = open;
        }
    }

    fn begin(&mut self, index: u32, packet: &[u8], layout: Option<Layout>) {
        let size = layout.map_or(0, |layout| packet.len() - layout.payload);
        let len = packet.len();
        self.groups.push(Group { first: index, last: index, count: 1, layout, size, len, valid: None });
    }

    fn join(&mut self, batch: &PacketBatch, group: u32, index: u32, packet: &[u8], layout: &Layout) -> bool {
        let group = &mut self.groups[group as usize];
        let Some((head, ())) = batch.get(group.first as usize) else { return false };
        let payload = packet.len() - layout.payload;
        let most = if layout.transport == Transport::Tcp { MAX_SEGMENTS } else { MAX_DATAGRAMS };
        let fits = payload <= group.size && group.count() < most && group.len + payload <= usize::from(u16::MAX);
        if !fits || group.layout != Some(*layout) || !continues(head, packet, layout, group) {
            return false;
        }
        // The costly part, and only for packets that gain by it.
        let head_valid = *group.valid.get_or_insert_with(|| layout.checksums_valid(head));
        if !head_valid || !layout.checksums_valid(packet) {
            return false;
        }
        self.next[group.last as usize] = index;
        group.last = index;
        group.count += 1;
        group.len += payload;
        true
    }
}

/// Whether the packet is of a kind that can be part of a super-packet at all.
fn can_join(packet: &[u8], layout: &Layout, may: Joinable) -> bool {
    if packet.len() == layout.payload {
        return false;
    }
    match layout.transport {
        // Data and nothing else: no SYN, RST, URG or CWR. ECE is the same on all segments or ends the group.
        Transport::Tcp => may.tcp && packet[layout.l4() + 13] & !(TCP_FIN | TCP_PSH | TCP_ECE) == TCP_ACK,
        Transport::Udp => may.udp,
    }
}

/// Whether nothing may follow the packet in a group of `size`.
fn ends(packet: &[u8], layout: &Layout, size: usize) -> bool {
    let last = layout.transport == Transport::Tcp && packet[layout.l4() + 13] & (TCP_FIN | TCP_PSH) != 0;
    last || packet.len() - layout.payload < size
}

/// Whether `packet` is what segmentation would make behind the packets of `group`, whose first is `head`. Both have the
/// same layout.
fn continues(head: &[u8], packet: &[u8], layout: &Layout, group: &Group) -> bool {
    let same = |range: std::ops::Range<usize>| head[range.clone()] == packet[range];
    let ip = if layout.v6 {
        // Version, class, flow label; next header and hop limit; addresses.
        same(0..4) && same(6..40)
    } else {
        // Version, length, TOS; flags, offset, TTL, protocol; addresses.
        same(0..2) && same(6..10) && same(12..20) && id_continues(head, packet, group.count)
    };
    let l4 = layout.l4();
    if !ip || !same(l4..l4 + 4) {
        return false;
    }
    match layout.transport {
        Transport::Udp => true,
        Transport::Tcp => {
            let sent = (group.len - layout.payload) as u32;
            let in_order = packet::read_u32(packet, l4 + 4) == packet::read_u32(head, l4 + 4).wrapping_add(sent);
            let flags = (head[l4 + 13] ^ packet[l4 + 13]) & !(TCP_FIN | TCP_PSH) == 0;
            // Acknowledgement and data offset; window; urgent pointer and options.
            in_order && flags && same(l4 + 8..l4 + 13) && same(l4 + 14..l4 + 16) && same(l4 + 18..layout.payload)
        }
    }
}

/// Segmentation counts the identification up. With DF it means nothing (RFC 6864 §4.1), without it it has to be right.
fn id_continues(head: &[u8], packet: &[u8], count: u32) -> bool {
    const DONT_FRAGMENT: u8 = 0x40;
    head[6] & DONT_FRAGMENT != 0 || packet::read_u16(packet, 4) == packet::read_u16(head, 4).wrapping_add(count as u16)
}

/// Of 8 or 32 bytes. Only speed hangs on it: what it takes for equal is compared byte by byte.
fn hash(addresses: &[u8]) -> u64 {
    let (words, _) = addresses.as_chunks::<8>();
    words.iter().fold(0, |hash, word| mix(hash, u64::from_ne_bytes(*word)))
}

fn mix(hash: u64, word: u64) -> u64 {
    // An odd constant with bits all over (the golden ratio); the multiplication's upper half mixes best.
    let product = u128::from(hash.rotate_left(23) ^ word) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}
