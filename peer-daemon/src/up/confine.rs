//! What the process gives up at the start, and when the programs are loaded.

use anyhow::Context as _;

use crate::cli::UpArgs;

/// Before anything of the network or of the state directory is read, and before there are threads. What the kernel refuses
/// is logged, and stays visible: `status`, `doctor` and `peer_hardening` ask the kernel itself.
pub(super) fn begin(args: &UpArgs) {
    let secrets = [&args.netbird.setup_key, &args.netbird.preshared_key];
    let secrets: Vec<&str> = secrets.into_iter().filter_map(Option::as_deref).collect();
    if let Err(error) = peer_confine::conceal(&secrets) {
        tracing::warn!(%error, "a key stays visible in /proc/PID: give it in a file (--setup-key-file)");
    }
    for lapse in peer_confine::confine() {
        let (measure, remedy) = (lapse.measure.name(), lapse.measure.remedy());
        tracing::warn!(measure, why = lapse.why, remedy, "the process has more than it needs");
    }
}

/// Once the programs are loaded; WireGuard will listen on `port`.
pub(super) fn settle(args: &UpArgs, port: u16) -> anyhow::Result<()> {
    let health = args.health_addr.map(|addr| addr.port());
    let low = [Some(port), health].into_iter().flatten().any(|port| (1..1024).contains(&port));
    peer_confine::settle(low).context("give up the capabilities that only loading needs")
}
