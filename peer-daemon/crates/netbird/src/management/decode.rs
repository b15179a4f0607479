//! Decoding of what management says, within bounds.

use prost::Message as _;

use crate::proto::management::{LoginResponse, SyncResponse};
use crate::sealed::DecodeError;

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

/// Decodes the opened body of a message of the stream. Fields and values that are not known are ignored.
///
/// # Errors
///
/// When it is no such message, or has more than [`MAX_ENTRIES`] entries.
pub fn decode_sync(plaintext: &[u8]) -> Result<SyncResponse, DecodeError> {
    within_bounds(plaintext)?;
    Ok(SyncResponse::decode(plaintext)?)
}

/// Counts the entries of the lists in a message's children (the lists of a map), before memory is spent on them. What is
/// deeper, as the prefixes of a rule, costs in proportion to its bytes.
fn within_bounds(message: &[u8]) -> Result<(), DecodeError> {
    let entries = children(message).map(|child| children(child).count()).sum();
    if entries > MAX_ENTRIES {
        return Err(DecodeError::TooManyEntries { entries, limit: MAX_ENTRIES });
    }
    Ok(())
}

/// The length-delimited fields of a message, up to where it is none.
fn children(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            // The wire type is in the low three bits: https://protobuf.dev/programming-guides/encoding/#structure
            let skipped = match varint(&mut rest)? & 7 {
                0 => varint(&mut rest).map(|_| 0)?,
                1 => 8,
                5 => 4,
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    let (child, after) = rest.split_at_checked(length)?;
                    rest = after;
                    return Some(child);
                }
                _ => return None,
            };
            rest = rest.get(skipped..)?;
        }
    })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
