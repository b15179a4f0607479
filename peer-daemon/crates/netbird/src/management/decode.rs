//! Decoding of what management says, within bounds.

use std::fmt;
use std::ops::Range;
use std::time::Instant;

use prost::Message as _;
use zeroize::Zeroizing;

use super::fields::{Field, Value, fields};
use crate::proto::management::{LoginResponse, NetbirdConfig, SyncHead, SyncResponse};
use crate::sealed::{DecodeError, Plaintext};

/// Entries of one network map at most. Two bytes on the wire can be an empty entry of 200 bytes in memory; 10 000 peers
/// with eight rules each are 90 000.
pub const MAX_ENTRIES: usize = 500_000;

/// Decodes the opened body of a login's answer.
///
/// # Errors
///
/// When it is no such message.
pub fn decode_login(plaintext: &[u8]) -> Result<LoginResponse, DecodeError> {
    // The same limit: its lists are at the same depth as those of a map.
    within_bounds(plaintext)?;
    Ok(LoginResponse::decode(plaintext)?)
}

/// A message of the stream, opened. Its map is large and mostly as it was in the message before: it is not decoded here.
#[derive(Clone, Default)]
pub struct SyncMessage {
    plaintext: Plaintext,
    head: SyncHead,
    /// When it came; `None`: it was kept by an earlier life.
    pub received: Option<Instant>,
}

impl SyncMessage {
    /// Takes the opened body of a message. Fields and values that are not known are ignored.
    ///
    /// # Errors
    ///
    /// When it is no such message, or has more than [`MAX_ENTRIES`] entries. Entries themselves are not looked at.
    pub fn new(plaintext: impl Into<Plaintext>) -> Result<Self, DecodeError> {
        let plaintext = plaintext.into();
        within_bounds(&plaintext)?;
        let head = SyncHead::decode(plaintext.as_slice())?;
        Ok(Self { plaintext, head, received: None })
    }

    /// All but the map.
    #[must_use]
    pub fn head(&self) -> &SyncHead {
        &self.head
    }

    /// All bytes.
    #[must_use]
    pub fn plaintext(&self) -> &[u8] {
        &self.plaintext
    }

    /// Where the encoded [`NetworkMap`](crate::proto::management::NetworkMap) is; of several, each overlays those before it.
    pub fn maps(&self) -> impl Iterator<Item = Range<usize>> {
        let map = |field: Result<Field, DecodeError>| match field {
            Ok(Field { number: MAP, value: Value::Bytes(place), .. }) => Some(place),
            _ => None,
        };
        fields(&self.plaintext, 0..self.plaintext.len()).filter_map(map)
    }

    /// Whether there is a map in it.
    #[must_use]
    pub fn has_map(&self) -> bool {
        self.maps().next().is_some()
    }

    /// All of it, decoded.
    ///
    /// # Errors
    ///
    /// When an entry of the map is none.
    pub fn decode(&self) -> Result<SyncResponse, DecodeError> {
        Ok(SyncResponse::decode(self.plaintext.as_slice())?)
    }

    /// The same message, saying this of the servers.
    #[must_use]
    pub fn with_servers(&self, servers: Option<&NetbirdConfig>) -> Zeroizing<Vec<u8>> {
        let head = SyncHead { netbird_config: servers.cloned(), ..SyncHead::default() };
        let mut message = Zeroizing::new(Vec::with_capacity(head.encoded_len() + self.plaintext.len()));
        message.extend_from_slice(&Zeroizing::new(head.encode_to_vec()));
        let mut start = 0;
        for field in fields(&self.plaintext, 0..self.plaintext.len()) {
            if let Ok(Field { at, number: SERVERS, value: Value::Bytes(place) }) = field {
                message.extend_from_slice(&self.plaintext[start..at]);
                start = place.end;
            }
        }
        message.extend_from_slice(&self.plaintext[start..]);
        message
    }
}

impl fmt::Debug for SyncMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncMessage").field("bytes", &self.plaintext.len()).field("head", &self.head).finish()
    }
}

/// The numbers of SyncResponse's fields.
const SERVERS: u64 = 1;
const MAP: u64 = 5;

/// Counts the entries of the lists in a message's children (the lists of a map), before memory is spent on them. What is
/// deeper, as the prefixes of a rule, costs in proportion to its bytes.
fn within_bounds(message: &[u8]) -> Result<(), DecodeError> {
    let entries = children(message, 0..message.len()).map(|child| children(message, child).count()).sum();
    if entries > MAX_ENTRIES {
        return Err(DecodeError::TooManyEntries { entries, limit: MAX_ENTRIES });
    }
    Ok(())
}

/// The length-delimited fields of a message, up to where it is none.
fn children(text: &[u8], within: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    fields(text, within).map_while(Result::ok).filter_map(|field| match field.value {
        Value::Bytes(place) => Some(place),
        Value::Number(_) | Value::Fixed => None,
    })
}

#[cfg(test)]
mod tests;
