//! `aya::Pod`: map types may be copied from and to the kernel byte by byte.
#![allow(unsafe_code, reason = "Pod is an unsafe trait; records are read from bytes")]

use crate::{
    Addr, Answer, BenchPlan, CellKey, CellValue, ChosenKey, Config, Flow, FlowEvent, FlowKey, Fragment, FragmentKey,
    LocalAddr, Mapping, NextHop, NextHopKey, PacketCount, Peer, Route, TraceFilter, Uplink,
};

impl FlowEvent {
    /// The record that a ring buffer holds as `bytes`; `None`: it is shorter, of another version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: that many bytes are there, in whatever alignment, and every pattern of them is a value.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

macro_rules! pod {
    ($($ty:ty),+ $(,)?) => {$(
        // SAFETY: `repr(C)` of integers only, explicit padding, every bit pattern is a value.
        unsafe impl aya::Pod for $ty {}
    )+};
}

pod!(
    Addr,
    Answer,
    BenchPlan,
    CellKey,
    CellValue,
    ChosenKey,
    Config,
    Flow,
    FlowEvent,
    FlowKey,
    Fragment,
    FragmentKey,
    LocalAddr,
    Mapping,
    NextHop,
    NextHopKey,
    PacketCount,
    Peer,
    Route,
    TraceFilter,
    Uplink
);
