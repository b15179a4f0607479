//! The static control plane: one TOML file with keys, peers, routes and rules.
#![forbid(unsafe_code)]
