//! Drops are counted, not logged one by one; now and then the log gets the sums, each at its reason's level.

use tracing::Level;

use crate::error::{DatagramError, PacketError};
use crate::stats::EngineStats;

/// What the log was told already.
#[derive(Debug, Default)]
pub(crate) struct DropSummary {
    datagrams: [u64; DatagramError::ALL.len()],
    packets: [u64; PacketError::ALL.len()],
}

impl DropSummary {
    /// Logs what was dropped since the last call. Returns whether there was anything.
    pub(crate) fn log(&mut self, stats: &EngineStats) -> bool {
        let mut any = false;
        for (told, reason) in self.datagrams.iter_mut().zip(DatagramError::ALL) {
            let total = stats.datagram_drops(*reason);
            any |= line(told, total, reason.level(), "datagrams", reason.name(), reason.help());
        }
        for (told, reason) in self.packets.iter_mut().zip(PacketError::ALL) {
            let total = stats.packet_drops(*reason);
            any |= line(told, total, reason.level(), "packets", reason.name(), reason.help());
        }
        any
    }
}

fn line(told: &mut u64, total: u64, level: Level, what: &str, reason: &str, help: &str) -> bool {
    let count = total.wrapping_sub(std::mem::replace(told, total));
    if count == 0 {
        return false;
    }
    match level {
        Level::ERROR => tracing::error!(count, total, reason, "{what} dropped: {help}"),
        Level::WARN => tracing::warn!(count, total, reason, "{what} dropped: {help}"),
        _ => tracing::debug!(count, total, reason, "{what} dropped: {help}"),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_are_told() {
        let (stats, mut summary) = (EngineStats::default(), DropSummary::default());
        assert!(!summary.log(&stats));
        stats.drop_datagram(DatagramError::Replay);
        stats.drop_packets(PacketError::NoPeer, 3);
        assert!(summary.log(&stats));
        assert!(!summary.log(&stats));
    }
}
