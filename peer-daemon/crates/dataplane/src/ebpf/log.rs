//! What the programs log goes to `tracing`, by way of the `log` facade.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::task::JoinHandle;

use crate::{Error, sys};

/// The task that reads the programs' log; it ends with this.
pub(super) struct LogTask(JoinHandle<()>);

impl Drop for LogTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts reading.
pub(super) fn spawn(ebpf: &mut Ebpf) -> Result<LogTask, Error> {
    let logger =
        EbpfLogger::init(ebpf).map_err(|error| Error::io("read the programs' log", std::io::Error::other(error)))?;
    let mut logger = sys::watch_log(logger).map_err(|source| Error::io("wait for the programs' log", source))?;
    Ok(LogTask(tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    })))
}
