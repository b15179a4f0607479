//! What was in a body.

use std::fmt;
use std::mem;
use std::ops::Deref;

use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing, zeroize_bytes};

/// The opened body of a message, wiped when dropped.
///
/// It keeps the body's buffer, whose first bytes are none of its own: to move a large map to the front would take time. For
/// the same reason it is wiped as one block: [`Zeroizing`] of a vector writes byte after byte.
#[derive(Clone, Default)]
pub struct Plaintext {
    buffer: Vec<u8>,
    start: usize,
}

impl Plaintext {
    /// All of `buffer` from `start` on.
    pub(super) const fn new(buffer: Vec<u8>, start: usize) -> Self {
        Self { buffer, start }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

impl Deref for Plaintext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<Zeroizing<Vec<u8>>> for Plaintext {
    fn from(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        Self::new(mem::take(&mut *bytes), 0)
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plaintext").field("bytes", &self.len()).finish()
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        zeroize_bytes(&mut self.buffer);
        self.buffer.spare_capacity_mut().zeroize();
    }
}

impl ZeroizeOnDrop for Plaintext {}
