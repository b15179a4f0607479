//! WireGuard engine.
#![forbid(unsafe_code)]
