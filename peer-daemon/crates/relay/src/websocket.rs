//! WebSocket (RFC 6455) as far as a relay's client needs it: binary messages, in place.
//!
//! General libraries allocate for each message and write each with a system call of its own. Here frames are written into
//! a buffer that leaves as a whole, and read where the socket put them.

mod frame;
mod reader;
mod upgrade;

pub(crate) use frame::{HEADER_LEN, Masked, Opcode, mask_into, write_frame, write_header};
pub(crate) use reader::{Piece, Reader};
pub(crate) use upgrade::UpgradeError;
pub(crate) use upgrade::upgrade;

/// Bytes that are not RFC 6455, or not what a relay sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WebSocketError {
    /// Servers do not mask (§5.1).
    #[error("a masked frame from the server")]
    MaskedFrame,
    /// No extension was negotiated that gives them a meaning (§5.2).
    #[error("reserved bits in a frame")]
    ReservedBits,
    /// Text, or unknown.
    #[error("a frame of type {0}, which relays do not send")]
    FrameType(u8),
    /// Larger than any relay message.
    #[error("a message of more than {} bytes", crate::message::MAX_LEN)]
    TooLong,
    /// Control frames are short and whole (§5.5).
    #[error("a control frame in parts, or longer than 125 bytes")]
    ControlFrame,
    /// A continuation of nothing, or a message within another (§5.4).
    #[error("message parts out of order")]
    PartsOutOfOrder,
}
