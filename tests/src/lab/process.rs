//! Programs that run until they are told to stop.

use std::fs;
use std::io::{Read as _, pipe};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::traffic::{patient, wait_for};
use crate::sys::process as sys;

/// Lines of a log that a failing test shows.
const TAIL: usize = 60;
/// A child may take so long to appear.
const LIMIT: Duration = Duration::from_secs(5);

/// A running program. Killed when dropped; a panicking thread that drops it prints the end of its log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    /// Who gets signals.
    signalled: u32,
}

/// CPU time of a process and the idle time of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// User and system time of the process.
    pub process: Duration,
    /// Idle time of all CPUs of the machine together.
    pub idle: Duration,
}

impl Process {
    /// Starts `command`; both of its outputs go to the log.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let (mut reader, writer) = pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let signalled = child.id();
        // The command keeps copies of the pipe's writing end: without this the log would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&log);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut chunk) {
                if let Ok(mut log) = sink.lock() {
                    log.extend_from_slice(&chunk[..length]);
                }
            }
        });
        Ok(Self { name: name.to_owned(), child, log, reader: Some(reader), signalled })
    }

    /// From now on signals go to its only child: it is one that ignores them, and ends when the child does. Returns the
    /// child's process id.
    ///
    /// # Errors
    /// It has none, or ends.
    pub(crate) fn lead_to_child(&mut self) -> Result<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let mut child = None;
        wait_for(LIMIT, || {
            let listed = fs::read_to_string(&children).unwrap_or_default();
            child = listed.split_whitespace().next().and_then(|pid| pid.parse().ok());
            child.is_some() || self.child.try_wait().is_ok_and(|ended| ended.is_some())
        });
        self.signalled = child.with_context(|| format!("{} has no child:\n{}", self.name, self.log()))?;
        Ok(self.signalled)
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// As [`Child::try_wait`].
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        Ok(sys::signal(self.signalled, signal)?)
    }

    /// Sends SIGTERM and waits; `None`: it still runs after `limit`.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn terminate(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        if let Some(status) = self.ended()? {
            return Ok(Some(status));
        }
        sys::signal(self.signalled, libc::SIGTERM)?;
        let deadline = Instant::now() + patient(limit);
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                self.drain();
                return Ok(Some(status));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// As [`Child::kill`].
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.drain();
        Ok(())
    }

    /// CPU time so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> Result<Cpu> {
        // User and system time.
        Ok(Cpu { process: ticks(self.pid(), 14)? + ticks(self.pid(), 15)?, idle: idle()? })
    }

    fn drain(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- {} ---\n{}", self.name, lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        }
    }
}

/// How long ago a process began, to about a hundredth of a second.
///
/// # Errors
/// It is gone.
pub fn age(pid: u32) -> Result<Duration> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime.split(' ').next().context("/proc/uptime")?.parse()?;
    Ok(Duration::from_secs_f64(uptime).saturating_sub(ticks(pid, 22)?))
}

/// A field of `/proc/PID/stat` that is a time; the first is 1.
fn ticks(pid: u32, field: usize) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain blanks; after it comes field 3.
    let after_name = stat.rsplit_once(") ").context("/proc/PID/stat")?.1;
    let ticks = after_name.split(' ').nth(field - 3).context("/proc/PID/stat")?;
    Ok(sys::clock_tick() * ticks.parse()?)
}

fn idle() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().context("/proc/stat")?;
    let mut fields = first.split_whitespace().skip(4).map(str::parse::<u32>);
    let (idle, waiting) = (fields.next().context("idle time")??, fields.next().context("waiting time")??);
    Ok(sys::clock_tick() * (idle + waiting))
}
