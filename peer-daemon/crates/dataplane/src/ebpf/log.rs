//! What the programs tell of refused flows goes to the log.

use aya::Ebpf;
use peer_common::DropReason;
use peer_common::layout::map;
use tokio::task::JoinHandle;

use super::tables::take;
use crate::{Error, sys};

/// The task that reads what the programs tell; it ends with this.
pub(super) struct LogTask(JoinHandle<()>);

impl Drop for LogTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts reading.
pub(super) fn spawn(ebpf: &mut Ebpf) -> Result<LogTask, Error> {
    let mut buffer = sys::watch(take(ebpf, map::REFUSALS)?)
        .map_err(|source| Error::io("wait for what the programs tell", source))?;
    Ok(LogTask(tokio::spawn(async move {
        while let Ok(mut guard) = buffer.readable_mut().await {
            while let Some(record) = guard.get_inner_mut().next() {
                tell(&record);
            }
            guard.clear_ready();
        }
    })))
}

fn tell(record: &[u8]) {
    let Some(what) = record.first_chunk().and_then(|bytes| refusal(u32::from_ne_bytes(*bytes))) else { return };
    tracing::warn!("new flow refused: {what}");
}

/// Why, for people; none when the programs tell of no such reason.
fn refusal(reason: u32) -> Option<&'static str> {
    match DropReason::ALL.iter().find(|&&it| it as u32 == reason)? {
        DropReason::PortsExhausted => Some("no free port"),
        DropReason::PeerQuota => Some("its peer has too many"),
        DropReason::TableFull => Some("flow table full"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_by_its_reason() {
        assert_eq!(refusal(DropReason::PeerQuota as u32), Some("its peer has too many"));
        assert_eq!(refusal(DropReason::Multicast as u32), None);
        assert_eq!(refusal(u32::MAX), None);
    }
}
