//! What the programs tell of refused flows goes to `tracing`: by aya-log, through the `log` facade, where the kernel takes
//! the program that logs; elsewhere as bare reasons.

use aya::Ebpf;
use aya::maps::{MapError, ProgramArray};
use aya::programs::ProgramError;
use aya_log::EbpfLogger;
use peer_common::DropReason;
use peer_common::layout::{map, program};
use tokio::task::JoinSet;

use super::load::classifier;
use super::tables::take;
use crate::{Error, sys};

/// How those lines of the verifier's log begin that are about its own work. They come last.
const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];

/// The tasks that read what the programs tell; they end with this.
pub(super) struct LogTasks {
    _tasks: JoinSet<()>,
}

/// Loads the program that logs and puts it where the others look for it. The kernel takes it out when the last descriptor
/// of that array is closed: it stays in the object.
///
/// # Errors
/// The program was loaded and does not fit into its place. That a kernel refuses it is no error: some do without
/// CAP_PERFMON, where their verifiers follow loops further than a CPU goes.
pub(super) fn install(ebpf: &mut Ebpf) -> Result<(), Error> {
    let failed = |source| Error::Program { what: format!("load program {}", program::REFUSED), source };
    let logger = classifier(ebpf, program::REFUSED).map_err(failed)?;
    match logger.load() {
        Ok(()) => {}
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            let said = verifier_log.to_string();
            let why = said.lines().rfind(|line| !STATISTICS.iter().any(|start| line.starts_with(start)));
            let why = why.unwrap_or_default();
            tracing::info!(error = %io_error, why, "refused flows are told without aya-log: this kernel refuses its program");
            return Ok(());
        }
        Err(error) => return Err(failed(error)),
    }
    let logger = logger.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(failed)?;
    let failed = |source| Error::Map { map: map::LOGGER, source };
    let array = ebpf.map_mut(map::LOGGER).ok_or_else(|| failed(MapError::InvalidName { name: map::LOGGER.into() }))?;
    ProgramArray::try_from(array).and_then(|mut array| array.set(0, &logger, 0)).map_err(failed)
}

/// Starts reading. Must be called inside a tokio runtime.
pub(super) fn spawn(ebpf: &mut Ebpf) -> Result<LogTasks, Error> {
    let mut tasks = JoinSet::new();
    let logger = EbpfLogger::init(ebpf);
    let logger = logger.map_err(|error| Error::io("read the programs' log", std::io::Error::other(error)))?;
    let mut logger = sys::watch_log(logger).map_err(|source| Error::io("wait for the programs' log", source))?;
    tasks.spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    let mut buffer = sys::watch(take(ebpf, map::REFUSALS)?)
        .map_err(|source| Error::io("wait for what the programs tell", source))?;
    tasks.spawn(async move {
        while let Ok(mut guard) = buffer.readable_mut().await {
            while let Some(record) = guard.get_inner_mut().next() {
                tell(&record);
            }
            guard.clear_ready();
        }
    });
    Ok(LogTasks { _tasks: tasks })
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
