//! Texts as the official client forms them.

use std::fmt;

use jiff::Timestamp;

/// How long ago, in words of two units.
pub(super) struct TimeAgo {
    pub(super) then: Option<Timestamp>,
    pub(super) now: Timestamp,
}

impl fmt::Display for TimeAgo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(then) = self.then else { return f.write_str("-") };
        let seconds = u64::try_from(self.now.duration_since(then).as_secs()).unwrap_or_default();
        let (large, small) = match seconds {
            0 => return f.write_str("Now"),
            1..60 => ((seconds, "second"), (0, "")),
            60..3600 => ((seconds / 60, "minute"), (seconds % 60, "second")),
            3600..86_400 => ((seconds / 3600, "hour"), (seconds % 3600 / 60, "minute")),
            _ => ((seconds / 86_400, "day"), (seconds % 86_400 / 3600, "hour")),
        };
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        write!(f, "{} {}{}", large.0, large.1, plural(large.0))?;
        if small.0 > 0 {
            write!(f, ", {} {}{}", small.0, small.1, plural(small.0))?;
        }
        f.write_str(" ago")
    }
}

/// A duration of so many nanoseconds, as Go prints it: `1.132455ms`, `1h2m3.5s`, `0s`.
pub(super) struct GoDuration(pub(super) u64);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0;
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", Fraction(nanos, 3)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", Fraction(nanos, 6)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", Fraction(nanos % 60_000_000_000, 9))
            }
        }
    }
}

/// A number by a power of ten, without trailing zeros.
struct Fraction(u64, u32);

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, digits) = *self;
        let unit = 10_u64.pow(digits);
        write!(f, "{}", number / unit)?;
        let rest = format!("{:0width$}", number % unit, width = digits as usize);
        match rest.trim_end_matches('0') {
            "" => Ok(()),
            rest => write!(f, ".{rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_two_units() {
        let now: Timestamp = "2026-11-22T07:00:00Z".parse().expect("a time");
        let ago = |seconds| TimeAgo { then: Some(now - jiff::SignedDuration::from_secs(seconds)), now }.to_string();
        assert_eq!([-5, 0, 1, 59].map(ago), ["Now", "Now", "1 second ago", "59 seconds ago"]);
        assert_eq!([60, 62, 3599].map(ago), ["1 minute ago", "1 minute, 2 seconds ago", "59 minutes, 59 seconds ago"]);
        assert_eq!([3600, 90_000].map(ago), ["1 hour ago", "1 day, 1 hour ago"]);
        assert_eq!(TimeAgo { then: None, now }.to_string(), "-");
    }

    #[test]
    fn durations_are_those_of_go() {
        let text = |nanos| GoDuration(nanos).to_string();
        assert_eq!([0, 999, 1_500, 1_132_455].map(text), ["0s", "999ns", "1.5µs", "1.132455ms"]);
        assert_eq!([1_000_000_000, 61_500_000_000, 3_600_000_000_000].map(text), ["1s", "1m1.5s", "1h0m0s"]);
    }
}
