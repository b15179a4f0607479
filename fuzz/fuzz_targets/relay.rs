//! Messages of a relay, and what management says of relays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peer_relay::message::Message;
use peer_relay::{RelayUrl, Token};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::decode(bytes) {
        _ = format!("{message:?}");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(url) = text.parse::<RelayUrl>() {
        assert_eq!(url.to_string().parse::<RelayUrl>().expect("our own text"), url);
    }
    let (payload, signature) = text.split_once(' ').unwrap_or((text, ""));
    _ = Token::new(payload, signature);
});
