//! STUN servers.

use std::time::Duration;

use peer_ice::Event;

use crate::bench::{Bench, PEER, address};

const SERVER: &str = "198.51.100.1:3478";

/// What a server answers that saw us at 203.0.113.5:port.
fn answer(request: &[u8], port: u16) -> Vec<u8> {
    let mut bytes = vec![1, 1, 0, 24];
    bytes.extend_from_slice(&request[4..20]);
    // MAPPED-ADDRESS, which servers send as well, and XOR-MAPPED-ADDRESS.
    bytes.extend([0, 1, 0, 8, 0, 1, 0, 0, 203, 0, 113, 5]);
    bytes.extend([0, 0x20, 0, 8, 0, 1]);
    bytes.extend((port ^ 0x2112).to_be_bytes());
    bytes.extend([203 ^ 0x21, 0x12, 113 ^ 0xa4, 5 ^ 0x42]);
    bytes
}

fn announced(bench: &mut Bench) -> Vec<String> {
    let text = |event: Event| match event {
        Event::Candidate { text, .. } => Some(text),
        _ => None,
    };
    bench.events().into_iter().filter_map(text).collect()
}

#[test]
fn a_mapping_is_trickled_to_running_sessions() {
    let mut bench = Bench::new();
    bench.events();
    bench.ice.set_stun_servers([address(SERVER), address("[2001:db8::1]:3478")], bench.now);
    let sent = bench.transmits();
    assert_eq!(sent.len(), 1, "no IPv6 here");
    assert_eq!((sent[0].remote, sent[0].local), (address(SERVER), None));
    let right = answer(&sent[0].bytes, 1024);
    let mut wrong = right.clone();
    wrong[8] ^= 1;
    bench.receive(SERVER, &wrong);
    bench.receive("198.51.100.1:3479", &right);
    bench.receive("198.51.100.2:3478", &right);
    assert!(bench.events().is_empty());
    assert_eq!(bench.ice.stats().dropped.unexpected.get(), 3);
    bench.receive(SERVER, &right);
    let texts = announced(&mut bench);
    assert_eq!(texts.len(), 1);
    assert!(texts[0].contains(" 203.0.113.5 1024 typ srflx raddr 0.0.0.0 rport 51820 "), "{}", texts[0]);
    bench.receive(SERVER, &right);
    assert!(bench.events().is_empty(), "once");
}

#[test]
fn another_mapping_changes_our_candidates() {
    let mut bench = Bench::closed();
    bench.ice.set_stun_servers([address(SERVER)], bench.now);
    let request = bench.transmits().remove(0).bytes;
    bench.receive(SERVER, &answer(&request, 1024));
    assert!(bench.events().contains(&Event::LocalChanged));
    for (port, changed) in [(1024, false), (1025, true)] {
        bench.now += Duration::from_secs(299);
        bench.ice.handle_timeout(bench.now);
        assert!(bench.transmits().is_empty());
        bench.after(1000);
        let request = bench.transmits().remove(0).bytes;
        bench.receive(SERVER, &answer(&request, port));
        assert_eq!(bench.events().contains(&Event::LocalChanged), changed);
    }
    bench.open(1);
    assert!(announced(&mut bench)[1].contains(" 203.0.113.5 1025 "));
    assert_eq!(bench.ice.pair(&PEER), None);
}
