//! Values as the official client writes them, and our own.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A truth value, as Go reads it.
pub(super) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// A duration, as Go reads it: `12s`, `1h30m`, `500ms`; a bare number is one of seconds.
pub(super) fn go_duration(text: &str) -> Result<Duration, String> {
    let fix = || "write a duration such as 12s, 30m or 24h".to_owned();
    if text.is_empty() {
        return Err(fix());
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fix)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return Err(fix()),
        };
        let number: f64 = number.parse().map_err(|_| fix())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| fix())?;
        total = total.checked_add(part).ok_or_else(fix)?;
        rest = after;
    }
    Ok(total)
}

/// Ports that source NAT may take.
pub(super) fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let fix = || "write FIRST-LAST, such as 20480-29999".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(fix)?;
    let first: u16 = first.trim().parse().map_err(|_| fix())?;
    let last: u16 = last.trim().parse().map_err(|_| fix())?;
    if first < 1024 {
        return Err(format!("{first} is a port of services: start at 1024 or above"));
    }
    if last < first || last - first < 15 {
        return Err("16 ports are the least".to_owned());
    }
    Ok(first..=last)
}

/// Where the official client's socket is: `unix://PATH`.
pub(super) fn unix_socket(text: &str) -> Result<std::path::PathBuf, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if path.starts_with('/') { Ok(path.into()) } else { Err("write unix:///PATH".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_name_the_fix() {
        assert_eq!(port_range("20480-29999"), Ok(peer_dataplane::DEFAULT_NAT_PORTS));
        for (text, fix) in [
            ("80", "FIRST-LAST"),
            ("1-70000", "FIRST-LAST"),
            ("80-90", "1024"),
            ("2000-2003", "16 ports"),
            ("3000-2000", "16 ports"),
        ] {
            let error = port_range(text).expect_err(text);
            assert!(error.contains(fix), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in
            [("12s", 12_000), ("0", 0), ("90", 90_000), ("1h30m", 5_400_000), ("1.5s", 1500), ("250ms", 250)]
        {
            assert_eq!(go_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "12", "12x", "-1s", "1s2", "999999999999999999999h", "1..5s"] {
            assert_eq!(go_duration(text).is_ok(), text == "12", "{text}");
        }
    }

    #[test]
    fn truth_values_are_those_of_go() {
        assert_eq!(["1", "true", "T"].map(go_bool), [Ok(true), Ok(true), Ok(true)]);
        assert_eq!(["0", "False", "f"].map(go_bool), [Ok(false), Ok(false), Ok(false)]);
        assert!(["", "yes", "on"].into_iter().all(|text| go_bool(text).is_err()));
    }

    #[test]
    fn a_socket_is_a_path() {
        assert_eq!(unix_socket("unix:///var/run/netbird.sock"), Ok("/var/run/netbird.sock".into()));
        assert!(unix_socket("tcp://127.0.0.1:41731").expect_err("no path").contains("unix:///"));
    }
}
