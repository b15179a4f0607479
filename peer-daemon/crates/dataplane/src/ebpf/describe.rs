//! What would become of a packet, asked of a program that is made of the same code as those that forward.

use std::net::IpAddr;

use aya::maps::Array;
use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, maps::MapData};
use peer_common::layout::{map, program};
use peer_common::{FlowEvent, FlowKey};

use super::tables::take;
use crate::Error;
use crate::flows::End;
use crate::observe::{CloseReason, drop_reason};
use crate::trace::Packet;

/// Holds the answer.
pub(super) struct Describer {
    answer: Array<MapData, FlowEvent>,
}

impl Describer {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self { answer: take(ebpf, map::DESCRIBED)? })
    }

    /// What would become of `packet`, a frame. One at a time.
    pub(super) fn ask(&self, ebpf: &Ebpf, frame: &[u8]) -> Result<FlowEvent, Error> {
        let failed = |source| Error::Program { what: format!("run program {}", program::DESCRIBE), source };
        let program = ebpf.program(program::DESCRIBE).ok_or(ProgramError::NotLoaded).map_err(failed)?;
        let program: &SchedClassifier = program.try_into().map_err(failed)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        program.test_run(options).map_err(failed)?;
        self.answer.get(&0, 0).map_err(|source| Error::Map { map: map::DESCRIBED, source })
    }

    /// Why a flow would not be permitted now, if so.
    pub(super) fn revoked(&self, ebpf: &Ebpf, key: &FlowKey) -> Result<Option<CloseReason>, Error> {
        let Some(frame) = packet_of(key).and_then(|packet| packet.frame()) else { return Ok(None) };
        let why = drop_reason(self.ask(ebpf, &frame)?.verdict).map(CloseReason::of_drop);
        let revoked = [CloseReason::PolicyRevoked, CloseReason::RouteRemoved, CloseReason::PeerRemoved];
        Ok(why.filter(|why| revoked.contains(why)))
    }
}

/// A packet of that flow, from the mesh.
fn packet_of(key: &FlowKey) -> Option<Packet> {
    let end = |addr, port: u16| End { addr: IpAddr::from(addr), port: u16::from_be(port) };
    let protocol = u8::try_from(key.protocol).ok()?;
    Some(Packet::new(protocol, end(key.src, key.src_port), end(key.dst, key.dst_port)))
}
