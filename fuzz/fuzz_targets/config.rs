//! The static configuration. No key file is there, so that each ends in problems, all of which have a text.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = peer_static::parse(text, Path::new("/nonexistent")) {
        assert!(!problems.to_string().is_empty());
    }
});
