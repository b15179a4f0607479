//! Two instances of [`peer_ice::Ice`] over a model network, in virtual time.

mod consent;
mod matrix;
mod nat;
mod roaming;
mod seeds;
mod world;
