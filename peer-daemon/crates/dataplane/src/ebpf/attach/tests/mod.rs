//! Against the real kernel, in namespaces of each test's own. Need root.

mod clsact;
mod devices;
mod lab;
mod life;
mod order;
mod owners;
mod unpinned;
