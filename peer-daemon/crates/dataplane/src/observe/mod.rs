//! What happens to flows and packets: told by the programs one record at a time, and by the scan that removes flows.
//!
//! [`Observer`] is the one place where it comes together. It tells a [`FlowSink`] (the flow log), keeps the packets that were
//! dropped lately ([`Denied`]), and those that somebody follows.

mod denied;
mod followed;
mod record;
mod view;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use ipnet::IpNet;
use peer_common::{DropReason, EventKind, Flow, FlowEvent};

use self::denied::DeniedTable;
pub use self::denied::{Denied, DeniedListing, DeniedStats};
use self::followed::Followed;
pub use self::followed::{Follow, FollowedPackets};
pub(crate) use self::record::Ended;
pub use self::record::{CloseReason, Direction, FlowRecord, What};
pub(crate) use self::view::View;
use crate::flows::Filter;
use crate::sys;

/// Takes what happens to flows. It must not block: packets do not wait for it, but the flows' expiry does.
pub trait FlowSink: Send + Sync {
    /// Takes one record.
    fn tell(&self, record: FlowRecord);

    /// Takes one of many that come at once when the daemon ends. It may wait for a moment.
    fn tell_last(&self, record: FlowRecord);
}

/// What an operator chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObserveLimits {
    /// Events of flows, and of dropped packets, that each CPU may tell in a second. At least 1.
    pub events_per_second: u32,
    /// Dropped packets, by tuple and reason, that are remembered; 0: none.
    pub denied: usize,
}

impl Default for ObserveLimits {
    fn default() -> Self {
        Self { events_per_second: 1000, denied: 4096 }
    }
}

/// Where all of it comes together. Clones are the same.
#[derive(Clone)]
pub struct Observer(Arc<Inner>);

struct Inner {
    limits: ObserveLimits,
    sink: Option<Box<dyn FlowSink>>,
    /// What numbers stand for, as it is in force.
    view: RwLock<Arc<View>>,
    denied: Mutex<DeniedTable>,
    followed: Mutex<Followed>,
    /// Flows removed, by reason.
    closed: [AtomicU64; CloseReason::ALL.len()],
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("limits", &self.0.limits)
            .field("log", &self.has_sink())
            .finish_non_exhaustive()
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new(ObserveLimits::default(), None)
    }
}

impl Observer {
    /// One that tells `sink`.
    #[must_use]
    pub fn new(limits: ObserveLimits, sink: Option<Box<dyn FlowSink>>) -> Self {
        Self(Arc::new(Inner {
            limits,
            sink,
            view: RwLock::default(),
            denied: Mutex::new(DeniedTable::new(limits.denied)),
            followed: Mutex::default(),
            closed: std::array::from_fn(|_| AtomicU64::new(0)),
        }))
    }

    /// Packets that were dropped lately, the most recent first, as far as `filter` takes them.
    #[must_use]
    pub fn denied(&self, filter: &Filter, limit: usize) -> DeniedListing {
        let view = self.view();
        lock(&self.0.denied).list(filter, &view, limit, sys::monotonic_coarse())
    }

    /// Figures of the table of dropped packets.
    #[must_use]
    pub fn denied_stats(&self) -> DeniedStats {
        lock(&self.0.denied).stats()
    }

    /// Name of the device that a record says by its number; `None`: of none.
    #[must_use]
    pub fn device(&self, index: u32) -> Option<String> {
        self.view().uplink(index)
    }

    /// Destination of the route that a record says by its number.
    #[must_use]
    pub fn route(&self, id: u32) -> Option<IpNet> {
        self.view().route(id)
    }

    /// Whose address it is, by [`crate::PeerPrefixes::id`].
    #[must_use]
    pub fn owner(&self, addr: IpAddr) -> Option<u32> {
        self.view().peer(addr)
    }

    /// Flows that the daemon has removed, by reason.
    #[must_use]
    pub fn closed(&self) -> [(CloseReason, u64); CloseReason::ALL.len()] {
        CloseReason::ALL.map(|reason| (reason, self.0.closed[reason as usize].load(Ordering::Relaxed)))
    }

    /// Packets that somebody follows, from the record numbered `from` on.
    #[must_use]
    pub fn followed(&self, from: u64) -> FollowedPackets {
        lock(&self.0.followed).since(from)
    }

    pub(crate) fn limits(&self) -> ObserveLimits {
        self.0.limits
    }

    /// Whether anybody wants to know of flows.
    pub(crate) fn has_sink(&self) -> bool {
        self.0.sink.is_some()
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_view(&self, view: View) {
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// A record of a program.
    pub(crate) fn event(&self, event: &FlowEvent) {
        let kind = event.event;
        if kind == EventKind::Traced as u8 {
            return lock(&self.0.followed).add(*event);
        }
        if kind == EventKind::Dropped as u8
            && let Some(reason) = drop_reason(event.verdict)
        {
            lock(&self.0.denied).add(event, reason);
        }
        if let Some(sink) = &self.0.sink
            && let Some(record) = FlowRecord::of_event(event, &self.view(), SystemTime::now())
        {
            sink.tell(record);
        }
    }

    /// A flow that was removed.
    pub(crate) fn ended(&self, ended: &Ended<'_>) {
        self.0.closed[ended.why as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(sink) = &self.0.sink
            && ended.flow.ended & Flow::TOLD == 0
            && let Some(record) = FlowRecord::of_ended(ended, &self.view(), SystemTime::now())
        {
            if ended.why == CloseReason::Stopped { sink.tell_last(record) } else { sink.tell(record) }
        }
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&self) {
        lock(&self.0.denied).expire(sys::monotonic_coarse());
    }

    /// Begins to keep packets that somebody follows, anew.
    pub(crate) fn begin_following(&self) {
        lock(&self.0.followed).begin();
    }
}

/// The reason that a verdict of a program says; `None`: the packet passes, or it is a reason of another version.
#[must_use]
pub fn drop_reason(verdict: u32) -> Option<DropReason> {
    DropReason::ALL.get(usize::try_from(verdict.checked_sub(1)?).ok()?).copied()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
