//! Packet I/O against the real kernel, in network namespaces that the tests make themselves. Needs root.

mod device;
mod lab;
mod sys;
mod traffic;
