//! How often something may happen on this CPU.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;

/// Tokens that are earned by time and spent one by one.
#[repr(C)]
pub struct Budget {
    left: u32,
    pad: u32,
    refilled: u64,
}

impl Budget {
    /// Spends a token, if there is one. One is earned every `interval` nanoseconds, `burst` are kept at most.
    #[inline(always)]
    pub fn take(&mut self, interval: u64, burst: u32) -> bool {
        // SAFETY: takes nothing, reads a clock.
        let now = unsafe { bpf_ktime_get_coarse_ns() };
        // At first all are there, however short the machine has run.
        let earned = match self.refilled {
            0 => burst as u64,
            then => now.wrapping_sub(then).checked_div(interval).unwrap_or(burst as u64),
        };
        if earned > 0 {
            self.left = if earned >= burst as u64 { burst } else { burst.min(self.left + earned as u32) };
            self.refilled = now;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}
