//! Batches: many packets, back to back in one buffer that is used again and again.
//!
//! One packet is a batch of one. A batch keeps the order in which items were pushed. Because items of equal length
//! stand without gaps, a run of them is one contiguous slice: the payload of a single GSO send.

use std::ops::Range;

use crate::path::Path;

/// Decrypted IP packets, or IP packets to encrypt.
pub type PacketBatch = Batch<()>;
/// UDP datagrams with the path they came by or shall leave by.
pub type DatagramBatch = Batch<Path>;

/// Items of bytes with metadata `M`.
#[derive(Debug)]
pub struct Batch<M> {
    buf: Box<[u8]>,
    /// Where the free room starts.
    used: usize,
    /// Bytes of all items; less than `used` when items were scattered.
    bytes: usize,
    items: Vec<(Range<usize>, M)>,
}

impl<M> Batch<M> {
    /// Room for `bytes` of payload and `items` items; nothing is allocated after this.
    #[must_use]
    pub fn with_capacity(bytes: usize, items: usize) -> Self {
        Self { buf: vec![0; bytes].into_boxed_slice(), used: 0, bytes: 0, items: Vec::with_capacity(items) }
    }

    /// Forgets all items and keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.bytes = 0;
        self.items.clear();
    }

    /// Whether an item of up to `len` bytes fits.
    #[must_use]
    pub fn has_room(&self, len: usize) -> bool {
        self.items.len() < self.items.capacity() && self.buf.len() - self.used >= len
    }

    /// Lets `fill` write an item of at most `max_len` bytes behind the last one; `fill` returns its length and
    /// metadata, or `None` to push nothing. Returns `false`, without calling `fill`, when there is no room.
    pub fn push_with(&mut self, max_len: usize, fill: impl FnOnce(&mut [u8]) -> Option<(usize, M)>) -> bool {
        if !self.has_room(max_len) {
            return false;
        }
        let start = self.used;
        if let Some((len, meta)) = fill(&mut self.buf[start..start + max_len]) {
            let end = start + len.min(max_len);
            self.items.push((start..end, meta));
            self.used = end;
            self.bytes += end - start;
        }
        true
    }

    /// Lets `fill` write into all the free room, where it likes, and then name the items in it: one system call that
    /// receives many messages into slices of the room, without a copy. Items may have gaps between them, which a later
    /// [`Batch::runs`] does not bridge.
    pub fn scatter_with<R>(&mut self, fill: impl FnOnce(&mut [u8], &mut Scatter<'_, M>) -> R) -> R {
        let base = self.used;
        let room = &mut self.buf[base..];
        let mut scatter = Scatter {
            base,
            end: base + room.len(),
            used: &mut self.used,
            bytes: &mut self.bytes,
            items: &mut self.items,
        };
        fill(room, &mut scatter)
    }

    /// Copies `item` in. Returns `false` when there is no room.
    pub fn push(&mut self, item: &[u8], meta: M) -> bool {
        self.push_with(item.len(), |room| {
            room.copy_from_slice(item);
            Some((item.len(), meta))
        })
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of all items.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The item at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(&[u8], &M)> {
        self.items.get(index).map(|(range, meta)| (&self.buf[range.clone()], meta))
    }

    /// Items in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &M)> {
        self.items.iter().map(|(range, meta)| (&self.buf[range.clone()], meta))
    }

    /// Forgets the items for which `keep` says `false`. The others stay where they are in memory.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &M) -> bool) {
        let Self { buf, bytes, items, .. } = self;
        items.retain(|(range, meta)| {
            let kept = keep(&buf[range.clone()], meta);
            if !kept {
                *bytes -= range.len();
            }
            kept
        });
    }

    /// Items in order, writable: decryption in place.
    pub fn for_each_mut(&mut self, mut f: impl FnMut(&mut [u8], &M)) {
        for (range, meta) in &self.items {
            f(&mut self.buf[range.clone()], meta);
        }
    }
}

impl<M: PartialEq> Batch<M> {
    /// Maximal runs of neighbours with equal metadata and equal length (the last of a run may be shorter), at most
    /// `max_items` and `max_bytes` each: what one GSO send may carry. Yields contiguous bytes, segment length, metadata.
    pub fn runs(&self, max_items: usize, max_bytes: usize) -> impl Iterator<Item = (&[u8], usize, &M)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let (first, meta) = self.items.get(next)?;
            let segment = first.len();
            let mut end = first.end;
            let mut count = 1;
            while let Some((range, other)) = self.items.get(next + count) {
                let fits = count < max_items && range.end - first.start <= max_bytes;
                if !fits || range.start != end || other != meta || range.len() > segment {
                    break;
                }
                end = range.end;
                count += 1;
                if range.len() < segment {
                    break;
                }
            }
            next += count;
            Some((&self.buf[first.start..end], segment, meta))
        })
    }
}

/// Names the items of [`Batch::scatter_with`].
#[derive(Debug)]
pub struct Scatter<'a, M> {
    base: usize,
    end: usize,
    used: &'a mut usize,
    bytes: &'a mut usize,
    items: &'a mut Vec<(Range<usize>, M)>,
}

impl<M> Scatter<'_, M> {
    /// Adds the item that was written at `range` of the room. Returns `false`, and adds nothing, when the range is
    /// outside the room or begins before the end of the item named before, or when there is no room for an item.
    pub fn push(&mut self, range: Range<usize>, meta: M) -> bool {
        let (Some(start), Some(end)) = (self.base.checked_add(range.start), self.base.checked_add(range.end)) else {
            return false;
        };
        if self.items.len() == self.items.capacity() || start < *self.used || end < start || end > self.end {
            return false;
        }
        self.items.push((start..end, meta));
        *self.used = end;
        *self.bytes += end - start;
        true
    }
}

#[cfg(test)]
mod tests;
