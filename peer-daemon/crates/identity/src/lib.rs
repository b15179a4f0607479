//! The state directory: who this peer is, and what it knew when it last ran.
//!
//! | file | content |
//! |---|---|
//! | `default.json`, or that of the active profile | the private key and settings, in the layout of the official client: its directory is adopted, and it can take ours back |
//! | `registration.json` | how the key was registered, and where |
//! | `network-map.bin` | the last network map, in force while management is away |
//! | `endpoints.json` | where each peer was last seen |
//! | `stamps.json` | the newest timestamp of a handshake initiation: the next life starts beyond it |
//! | `lock` | held while a daemon runs here |
//!
//! Every file is 0600 and written whole or not at all; a pipe, device or socket in its place is refused, never opened for
//! long and never replaced. Secrets are wiped from memory and are in no message.
#![forbid(unsafe_code)]

mod dir;
mod endpoints;
mod ephemeral;
mod error;
mod file;
mod identity;
mod kept;
mod official;
mod registration;
mod stamps;

pub use self::dir::StateDir;
pub use self::endpoints::{EndpointFile, Endpoints};
pub use self::ephemeral::{Ephemeral, Farewell};
pub use self::error::Error;
pub use self::file::read as read_file;
pub use self::identity::{Identity, Origin, generate};
pub use self::kept::KeptMap;
pub use self::official::Settings;
pub use self::registration::Registration;
pub use self::stamps::{KeptStamp, StampFile};
