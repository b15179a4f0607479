//! A virtual machine, from boot to verdict.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use peer_tests::guest::{FAILED, MARK, PASSED};

use crate::process::command;
use crate::setup::machines::Kernel;

/// Memory of a machine, MiB.
const MEMORY: &str = "2048";
/// No verdict after so long: the machine hangs.
const LIMIT: Duration = Duration::from_secs(1500);
/// Lines of the console that a failure shows.
const TAIL: usize = 60;
/// Not a microvm: without the timers of a PC the kernel cannot always tell how fast an emulated CPU is, and stops.
const MACHINE: &str = "q35";
/// Mitigations stay on: what the verifier asks of programs depends on them.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=4 panic=-1 reboot=t rdinit=/init";

/// Boots a machine; whether everything in it passed. All that it says goes to `log`, what is for people to stderr too.
pub(crate) fn run(qemu: &Path, kernel: &Kernel, image: &Path, log: &Path) -> Result<bool> {
    let mut machine = Machine(
        command(qemu)
            .args(["-machine", MACHINE, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .args(["-append", KERNEL_ARGUMENTS])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(image)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", qemu.display()))?,
    );
    let console = machine.0.stdout.take().context("no console")?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    let mut console = Vec::new();
    let verdict = follow(kernel.release.version, &lines, &mut |line| {
        writeln!(file, "{line}")?;
        console.push(line.to_owned());
        Ok(())
    })?;
    if verdict != Some(true) {
        let last = &console[console.len().saturating_sub(TAIL)..];
        eprintln!("--- the end of {} ---\n{}\n---", log.display(), last.join("\n"));
    }
    match verdict {
        Some(verdict) => Ok(verdict),
        None => bail!("the machine ended without a verdict"),
    }
}

/// Killed when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads until the machine ends, and takes its verdict from the last line of its first process.
fn follow(version: &str, lines: &Receiver<String>, keep: &mut impl FnMut(&str) -> Result<()>) -> Result<Option<bool>> {
    let deadline = Instant::now() + LIMIT;
    let mut verdict = None;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                keep(&line)?;
                // The kernel may have left a line of its own unfinished.
                let Some((_, said)) = line.split_once(MARK) else { continue };
                eprintln!("    Linux {version}: {said}");
                verdict = match said {
                    PASSED => Some(true),
                    FAILED => Some(false),
                    _ => None,
                };
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(verdict),
            Err(RecvTimeoutError::Timeout) => bail!("the machine has not ended after {LIMIT:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(console: &[&str]) -> Option<bool> {
        let (sender, lines) = channel();
        console.iter().for_each(|line| sender.send((*line).to_owned()).expect("open"));
        drop(sender);
        follow("0", &lines, &mut |_| Ok(())).expect("an end")
    }

    #[test]
    fn only_a_verdict_in_the_last_line_of_ours_counts() {
        assert_eq!(judged(&["vmtest: run a", "vmtest: verdict: passed", "[ 4.0] reboot: Restarting"]), Some(true));
        assert_eq!(judged(&["vmtest: run a", "[ 1.0] vmtest: verdict: failed"]), Some(false));
        assert_eq!(judged(&["vmtest: verdict: passed", "vmtest: run a"]), None);
        assert_eq!(judged(&["test verdict: passed", "Kernel panic - not syncing"]), None);
    }
}
