//! What the programs tell of flows and packets goes to the observer.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use peer_common::layout::map;
use peer_common::{FlowEvent, TraceFilter};
use tokio::task::{JoinHandle, yield_now};

use super::tables::take;
use crate::observe::Observer;
use crate::{Error, sys};

/// Records that are taken before others have their turn.
const BUDGET: usize = 512;

/// Whom the programs tell, and which packets they follow.
pub(super) struct Events {
    /// Ends with this.
    task: JoinHandle<()>,
    trace: Array<MapData, TraceFilter>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Events {
    /// Starts reading. Must be called inside a tokio runtime.
    pub(super) fn start(ebpf: &mut Ebpf, observer: Observer) -> Result<Self, Error> {
        let trace = take(ebpf, map::TRACE)?;
        let mut buffer = sys::watch(take(ebpf, map::EVENTS)?)
            .map_err(|source| Error::io("wait for what the programs tell", source))?;
        let task = tokio::spawn(async move {
            while let Ok(mut guard) = buffer.readable_mut().await {
                let mut taken = 0;
                while let Some(record) = guard.get_inner_mut().next() {
                    if let Some(event) = FlowEvent::from_bytes(&record) {
                        observer.event(&event);
                    }
                    taken += 1;
                    if taken == BUDGET {
                        break;
                    }
                }
                if taken < BUDGET {
                    guard.clear_ready();
                } else {
                    drop(guard);
                    yield_now().await;
                }
            }
        });
        Ok(Self { task, trace })
    }

    /// Says which packets are followed.
    pub(super) fn follow(&mut self, filter: &TraceFilter) -> Result<(), Error> {
        self.trace.set(0, filter, 0).map_err(|source| Error::Map { map: map::TRACE, source })
    }
}
