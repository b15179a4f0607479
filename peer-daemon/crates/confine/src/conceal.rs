//! Secrets that were given as arguments or variables: they leave the process title and the environment that `/proc` shows.
//!
//! The kernel shows the memory in which it left both at the start (`arg_start` … `env_end` of `proc(5)`), as it is now. So
//! they are overwritten there, by way of `/proc/self/mem`: an address that is not mapped is an error then and no crash.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// Shorter ones are no keys, and might be a part of anything.
const SHORTEST: usize = 8;
/// What stands in their place.
const MASK: u8 = b'*';
/// The kernel's bound of arguments and environment is a quarter of the stack; more than this is not looked through.
const LONGEST: u64 = 8 << 20;

/// Secrets stay where others may read them.
#[derive(Debug, thiserror::Error)]
pub enum ConcealError {
    /// `/proc/self/stat` does not say where they are.
    #[error("/proc/self/stat does not tell where arguments and environment are")]
    Stat,
    /// `/proc/self/mem` cannot be read or written.
    #[error("/proc/self/mem: {0}")]
    Memory(#[from] io::Error),
}

/// Overwrites each of `secrets` in the process's arguments and environment. Call it when they have been read, and before
/// there are other threads: `std::env` gives asterisks from then on.
///
/// # Errors
/// `/proc` is not there, or cannot be written.
pub fn conceal(secrets: &[&str]) -> Result<(), ConcealError> {
    let secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.as_bytes()).filter(|s| s.len() >= SHORTEST).collect();
    if secrets.is_empty() {
        return Ok(());
    }
    let stat = fs::read_to_string("/proc/self/stat")?;
    let memory = File::options().read(true).write(true).open("/proc/self/mem")?;
    for area in areas(&stat).ok_or(ConcealError::Stat)? {
        let mut bytes = vec![0; usize::try_from(area.end - area.start).map_err(|_| ConcealError::Stat)?];
        memory.read_exact_at(&mut bytes, area.start)?;
        for found in places(&bytes, &secrets) {
            memory.write_all_at(&vec![MASK; found.len()], area.start + found.start as u64)?;
        }
        bytes.fill(0);
    }
    Ok(())
}

/// Where arguments and environment are: fields 48 to 51 of `/proc/PID/stat`.
fn areas(stat: &str) -> Option<[Range<u64>; 2]> {
    // The name of the program, field 2, may contain anything; behind its parenthesis comes field 3.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let area = |first: usize| {
        let (start, end) = (field(first)?, field(first + 1)?);
        (start > 0 && start <= end && end - start <= LONGEST).then_some(start..end)
    };
    Some([area(48)?, area(50)?])
}

/// All places of the secrets, in order. They may overlap.
fn places(bytes: &[u8], secrets: &[&[u8]]) -> Vec<Range<usize>> {
    let of = |secret: &[u8]| {
        let starts = bytes.windows(secret.len()).enumerate().filter(|(_, window)| *window == secret);
        starts.map(|(start, window)| start..start + window.len()).collect::<Vec<_>>()
    };
    let mut places: Vec<_> = secrets.iter().flat_map(|secret| of(secret)).collect();
    places.sort_by_key(|place| place.start);
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn however_a_flag_is_written_its_value_is_found() {
        for line in ["up\0-k\0SECRET-KEY\0", "up\0-kSECRET-KEY\0", "--setup-key=SECRET-KEY\0-F\0", "-Fk\0SECRET-KEY\0"]
        {
            let found = places(line.as_bytes(), &[b"SECRET-KEY"]);
            assert_eq!(found.len(), 1, "{line}");
            assert_eq!(&line.as_bytes()[found[0].clone()], b"SECRET-KEY");
        }
        assert!(places(b"", &[b"SECRET-KEY"]).is_empty());
    }

    #[test]
    fn the_areas_are_those_of_this_process() {
        let stat = fs::read_to_string("/proc/self/stat").expect("proc");
        let [arguments, _] = areas(&stat).expect("a line of the kernel");
        let memory = File::open("/proc/self/mem").expect("memory");
        let mut bytes = vec![0; (arguments.end - arguments.start) as usize];
        memory.read_exact_at(&mut bytes, arguments.start).expect("read");
        assert_eq!(bytes, fs::read("/proc/self/cmdline").expect("proc"));
        assert_eq!(areas("7 (a) S 1"), None);
    }

    proptest! {
        #[test]
        fn what_was_masked_is_nowhere(text in "[ab\0=]{0,60}", secret in "[ab]{1,4}") {
            let mut bytes = text.into_bytes();
            for place in places(&bytes.clone(), &[secret.as_bytes()]) {
                bytes[place].fill(MASK);
            }
            prop_assert!(places(&bytes, &[secret.as_bytes()]).is_empty());
        }
    }
}
