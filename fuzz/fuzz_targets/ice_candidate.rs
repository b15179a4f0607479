//! Candidate text: what is a candidate comes back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peer_ice::candidate::Candidate;

fuzz_target!(|text: &str| {
    let Ok(candidate) = text.parse::<Candidate>() else { return };
    _ = candidate.static_forwarding();
    // A foundation may be so long that the canonical text is longer than a candidate may be.
    if let Ok(again) = candidate.to_string().parse::<Candidate>() {
        assert_eq!(again, candidate);
    }
});
