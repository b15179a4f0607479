//! Opened messages of management. After a real one, whatever comes is read as if it were decoded whole.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use peer_core::key::PublicKey;
use peer_core::policy::compile::{Limits, compile as policy};
use peer_netbird::management::{SyncMessage, decode_login};
use peer_netmap::compile::{Options, compile};
use peer_netmap::ids::Ids;
use peer_netmap::model::{OwnAddresses, Update};
use peer_netmap::read::Reader;
use zeroize::Zeroizing;

const OWN: PublicKey = PublicKey([9; 32]);
const LIMITS: Limits = Limits { prefixes: 1 << 12, cells: 1 << 14 };

fuzz_target!(|bytes: &[u8]| {
    _ = decode_login(bytes);
    let Ok(message) = SyncMessage::new(Zeroizing::new(bytes.to_vec())) else { return };
    let message = Arc::new(message);
    _ = SyncMessage::new(message.with_servers(None)).expect("without servers it is a message, too");
    let mut reader = Reader::default();
    // The first half again in the whole: entries that are reused.
    if let Ok(half) = SyncMessage::new(Zeroizing::new(bytes[..bytes.len() / 2].to_vec())) {
        _ = reader.read(&Arc::new(half));
    }
    let (whole, read) = (message.decode(), reader.read(&message));
    let Ok(update) = read else { return };
    if let Ok(whole) = whole {
        assert_eq!(update.map, Update::from(whole).map);
    }
    let Some(map) = update.map else { return };
    let compiled = compile(&map, options(), &mut Ids::new());
    _ = policy(&compiled.rules, &LIMITS);
});

fn options() -> &'static Options {
    static OPTIONS: OnceLock<Options> = OnceLock::new();
    OPTIONS.get_or_init(|| Options {
        own_key: OWN,
        addresses: OwnAddresses { v4: "100.64.0.1/16".parse().ok(), v6: "fd00::1/64".parse().ok() },
        local: Vec::new(),
        keepalive: None,
        preshared_key: None,
        server_routes: true,
        block_inbound: false,
    })
}
