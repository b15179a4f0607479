//! Opened bodies of signal: what is one comes back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peer_netbird::signal::Message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::decode(bytes) else { return };
    let again = Message::decode(&message.encode()).expect("our own encoding");
    assert_eq!(again.encode(), message.encode());
});
