//! `aya::Pod`: map types may be copied from and to the kernel byte by byte.
#![allow(unsafe_code, reason = "Pod is an unsafe trait")]

use crate::{
    Addr, Answer, BenchPlan, CellKey, CellValue, Config, Flow, FlowKey, Fragment, FragmentKey, LocalAddr, Mapping,
    PacketCount, Peer, Route, Uplink,
};

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
    Config,
    Flow,
    FlowKey,
    Fragment,
    FragmentKey,
    LocalAddr,
    Mapping,
    PacketCount,
    Peer,
    Route,
    Uplink
);
