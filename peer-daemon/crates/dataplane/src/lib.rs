//! Dataplanes.
