//! The kernel's notice that the wall clock was set, which it also gives after sleep: a timer that is cancelled then.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// When the timer would expire: in the year 2200, that is never, and a year that every kernel takes.
const NEVER: i64 = 7_258_118_400;

/// Rings when the wall clock is set, and when the machine wakes up.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// A new one. Inside a runtime.
    ///
    /// # Errors
    /// When the kernel refuses the timer.
    pub fn open() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let alarm = Self { timer: sys::watch(timer)? };
        alarm.arm()?;
        Ok(alarm)
    }

    /// Waits until it rings. Nothing is lost when this is dropped and called again.
    ///
    /// # Errors
    /// When the timer cannot be armed again.
    pub async fn rung(&self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?)) {
                // It has been cancelled, or the year 2200 has come.
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error()) => {
                    return self.arm();
                }
                Ok(Ok(_)) => return self.arm(),
                Ok(Err(error)) => return Err(error),
                Err(_not_ready) => {}
            }
        }
    }

    fn arm(&self) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 } };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &timer)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock of the machine that runs tests is not ours to set: only that the kernel takes it, twice, and that it is
    /// silent as long as nothing happens.
    #[tokio::test]
    async fn the_kernel_takes_the_alarm_and_nothing_rings() {
        let alarm = Alarm::open().expect("a timer");
        alarm.arm().expect("again");
        tokio::select! {
            biased;
            rung = alarm.rung() => panic!("{rung:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
}
