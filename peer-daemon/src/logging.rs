//! Logs, to standard error.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogFormat;

/// What these say below this level is of use to their authors only, and there is much of it. A directive of the operator's
/// for one of them goes before.
const LIBRARIES: &str = "aya=info,aya_obj=info,h2=info,hyper_util=info,rustls=info,tonic=info,tower=info";

/// Starts logging.
///
/// # Errors
/// When `level` is no filter.
pub(crate) fn init(level: &str, format: LogFormat) -> anyhow::Result<()> {
    // Names that the official client has and this logger has not.
    let level = match level {
        "panic" | "fatal" => "error",
        "warning" => "warn",
        other => other,
    };
    let filter = EnvFilter::builder()
        .parse(format!("{},{LIBRARIES},{level}", peer_wireguard::LOG_DIRECTIVE))
        .with_context(|| format!("--log-level {level:?}: write error, warn, info, debug or trace"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => registry.with(text.with_ansi(false)).init(),
        LogFormat::Json => registry.with(text.json().flatten_event(true)).init(),
    }
    Ok(())
}
