//! A session between two instances. The input says what happens: genuine datagrams pass, altered or not, foreign ones come from
//! several sources, time passes, candidates arrive. No input may make an instance panic, run without end or forget its bounds.
#![no_main]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use peer_core::key::PublicKey;
use peer_ice::{Credentials, Event, Ice, Session, Settings};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

const SERVER: &str = "198.51.100.1:3478";
const ADDRESSES: [&str; 2] = ["192.0.2.1:51820", "192.0.2.2:51820"];
const KEYS: [PublicKey; 2] = [PublicKey([1; 32]), PublicKey([2; 32])];

fuzz_target!(|bytes: &[u8]| {
    let mut now = Instant::now();
    let mut instances = pair(now);
    let mut rest = bytes;
    while let [what, argument, more @ ..] = rest {
        let (what, argument) = (*what, usize::from(*argument));
        let (value, more) = more.split_at(argument.min(more.len()).min(200));
        rest = more;
        let to = usize::from(what >> 7);
        match what & 7 {
            0 => instances[to].handle_datagram(now, source(what), None, value),
            1 => {
                let text = String::from_utf8_lossy(value);
                instances[to].add_remote_candidate(&KEYS[1 - to], &text, now);
            }
            2 => {
                now += Duration::from_millis(argument as u64 * 20);
                instances.iter_mut().for_each(|ice| ice.handle_timeout(now));
            }
            3 => reopen(&mut instances, to, now),
            // What the other one sends, with some bytes altered.
            kind => {
                if let Some(mut transmit) = instances[1 - to].poll_transmit() {
                    if kind > 5 {
                        for (at, mask) in value.iter().zip(value.iter().skip(1)).step_by(2) {
                            let length = transmit.bytes.len();
                            transmit.bytes[usize::from(*at) % length] ^= mask;
                        }
                    }
                    let from = if kind % 2 == 0 { address(ADDRESSES[1 - to]) } else { source(what) };
                    instances[to].handle_datagram(now, from, None, &transmit.bytes);
                }
            }
        }
        for (index, ice) in instances.iter_mut().enumerate() {
            while let Some(event) = ice.poll_event() {
                if let Event::Up { remote, .. } = event {
                    assert!(!remote.ip().is_loopback(), "selected {remote} at {index}");
                }
            }
            assert!(ice.stats().sessions.get() <= 1);
        }
    }
});

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn source(what: u8) -> SocketAddr {
    let sources = [ADDRESSES[0], ADDRESSES[1], SERVER, "192.0.2.9:7", "127.0.0.1:7", "[2001:db8::9]:7", "192.0.2.1:9"];
    address(sources[usize::from(what >> 3 & 15) % sources.len()])
}

fn credentials() -> [Credentials; 2] {
    let mut rng = StdRng::seed_from_u64(1);
    [Credentials::generate(&mut rng), Credentials::generate(&mut rng)]
}

fn pair(now: Instant) -> [Ice; 2] {
    let mut instances = [0, 1].map(|index| {
        let mut ice = Ice::new(Settings::default(), StdRng::seed_from_u64(index));
        ice.set_local([address(ADDRESSES[index as usize]), address("[2001:db8::1]:51820")], now);
        ice
    });
    instances[0].set_stun_servers([address(SERVER)], now);
    reopen(&mut instances, 0, now);
    reopen(&mut instances, 1, now);
    instances
}

fn reopen(instances: &mut [Ice; 2], at: usize, now: Instant) {
    let credentials = credentials();
    let (local, remote) = (credentials[at].clone(), credentials[1 - at].clone());
    instances[at].open(&Session { peer: KEYS[1 - at], attempt: 1, local, remote, controlling: at == 0 }, now);
    let text = format!("1 1 udp 2130706431 192.0.2.{} 51820 typ host", 2 - at);
    instances[at].add_remote_candidate(&KEYS[1 - at], &text, now);
}
