use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use peer_core::filter::{Filters, Instruction};
use peer_core::path::Path;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use socket2::{SockFilter, SockRef};

use super::*;
use crate::message::{INITIATION, MAC};

const NONE: Keep = Keep { plain: 0.0, with_mac2: 0.0 };

fn initiation(mac2: u8) -> [u8; INITIATION] {
    let mut message = [7; INITIATION];
    message[..4].copy_from_slice(&[1, 0, 0, 0]);
    message[INITIATION - MAC..].fill(0);
    message[INITIATION - 1] = mac2;
    message
}

fn known(addresses: &[IpAddr]) -> KnownAddresses {
    let now = Instant::now();
    let mut known = KnownAddresses::new(now);
    for address in addresses {
        known.note(now, Path::Udp { remote: SocketAddr::new(*address, 9), local: None });
    }
    known
}

fn loopback(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, host)
}

/// The kernel's own judgement: a socket with the program.
struct Filtered {
    socket: UdpSocket,
}

impl Filtered {
    fn new(filters: &Filters, address: IpAddr) -> Self {
        let socket = UdpSocket::bind((address, 0)).expect("loopback");
        socket.set_nonblocking(true).expect("a socket");
        let program = if address.is_ipv4() { &filters.v4 } else { &filters.v6 };
        let program: Vec<_> = program
            .iter()
            .map(|&Instruction { code, if_true, if_false, operand }| SockFilter::new(code, if_true, if_false, operand))
            .collect();
        SockRef::from(&socket).attach_filter(&program).expect("a valid program");
        Self { socket }
    }

    /// How many of `count` pass. Loopback delivers before `send` returns.
    fn passes(&self, from: IpAddr, datagram: &[u8], count: usize) -> usize {
        let sender = UdpSocket::bind((from, 0)).expect("loopback");
        let to = self.socket.local_addr().expect("bound");
        let mut room = [0; 200];
        (0..count)
            .filter(|_| {
                sender.send_to(datagram, to).expect("loopback");
                self.socket.recv(&mut room).is_ok()
            })
            .count()
    }
}

#[test]
fn the_kernel_drops_initiations_of_strangers_and_nothing_else() {
    let strangers: Vec<_> = (2..=200).map(loopback).collect();
    let members: Vec<IpAddr> = (201..=250).map(|host| loopback(host).into()).collect();
    let bits = KnownBits::new(0x9e37_79b1, known(&members).iter());
    let node = Filtered::new(&program::filters(NONE, &bits), Ipv4Addr::LOCALHOST.into());
    for mac2 in [0, 1] {
        for member in &members {
            assert_eq!(node.passes(*member, &initiation(mac2), 3), 3, "{member}");
        }
        let passed: usize = strangers.iter().map(|from| node.passes((*from).into(), &initiation(mac2), 1)).sum();
        assert!(passed < strangers.len() / 20, "{passed} share a bit with one of 50");
    }
    let [mut response, mut odd] = [initiation(0); 2];
    response[0] = 2;
    odd[3] = 1;
    let data = [4; 32];
    for other in [&response[..], &odd, &data, &[], &[1], &[1, 0, 0, 0], &initiation(0)[1..], &[1; 149]] {
        assert_eq!(node.passes(strangers[0].into(), other, 3), 3, "{other:?}");
    }
}

#[test]
fn so_much_passes_as_is_said_with_and_without_a_second_mac() {
    const TRIES: usize = 4000;
    let keep = Keep { plain: 0.25, with_mac2: 0.75 };
    let bits = KnownBits::new(3, known(&[]).iter());
    let node = Filtered::new(&program::filters(keep, &bits), Ipv4Addr::LOCALHOST.into());
    let from = loopback(9).into();
    for (mac2, part) in [(0, keep.plain), (1, keep.with_mac2)] {
        let passed = node.passes(from, &initiation(mac2), TRIES) as f64 / TRIES as f64;
        assert!((passed - part).abs() < 0.05, "{passed} for {part}");
    }
    let all = Filtered::new(&program::filters(Keep { plain: 1.0, ..NONE }, &bits), Ipv4Addr::LOCALHOST.into());
    assert_eq!((all.passes(from, &initiation(0), TRIES), all.passes(from, &initiation(1), TRIES)), (TRIES, 0));
}

#[test]
fn each_bit_in_each_mac_counts_as_a_second_mac() {
    let bits = KnownBits::new(3, known(&[]).iter());
    let node = Filtered::new(&program::filters(Keep { with_mac2: 1.0, ..NONE }, &bits), Ipv4Addr::LOCALHOST.into());
    for at in INITIATION - MAC..INITIATION {
        let mut message = initiation(0);
        message[at] = 0x10;
        assert_eq!(node.passes(loopback(7).into(), &message, 1), 1, "{at}");
    }
}

#[test]
fn ipv6_members_are_known_too() {
    let node = Ipv6Addr::LOCALHOST.into();
    let of = |members: &[IpAddr]| {
        let bits = KnownBits::new(0x0123_4567, known(members).iter());
        Filtered::new(&program::filters(NONE, &bits), node).passes(node, &initiation(0), 3)
    };
    assert_eq!(of(&[node]), 3);
    // Its bit lies elsewhere.
    assert_eq!(of(&["2001:db8::77".parse().expect("an address")]), 0);
    assert_eq!(of(&[]), 0);
}

#[test]
fn of_a_thousand_known_addresses_few_strangers_have_a_bit() {
    let mut rng = StdRng::seed_from_u64(1);
    let members = (0..1000).map(|_| IpAddr::from(Ipv4Addr::from_bits(rng.random())));
    let bits = KnownBits::new(0x85eb_ca6b, members);
    assert!((900..=1000).contains(&bits.count()), "{}", bits.count());
}

/// A flood against the screen, in windows; what the kernel does with it by the last filter.
struct Flood {
    screen: Screen,
    known: KnownAddresses,
    rng: StdRng,
    now: Instant,
    part: f64,
    attaches: usize,
}

impl Flood {
    fn new() -> Self {
        Self {
            screen: Screen::default(),
            known: known(&[]),
            rng: StdRng::seed_from_u64(9),
            now: Instant::now(),
            part: 1.0,
            attaches: 0,
        }
    }

    /// A window with `rate` initiations a second. Returns how many a second were received, and how many the screen counts as dropped.
    fn window(&mut self, rate: u32) -> (f64, u64) {
        let received = (f64::from(rate) / 10.0 * self.part) as u32;
        for _ in 0..received {
            self.screen.count(self.now, false);
        }
        self.now += WINDOW;
        let dropped = self.screen.handle_timeout(self.now, &self.known, &mut self.rng);
        match self.screen.poll_filter() {
            Some(FilterChange::Attach(_)) => {
                self.part = self.screen.plain.keep;
                self.attaches += 1;
            }
            Some(FilterChange::Detach) => self.part = 1.0,
            None => {}
        }
        (f64::from(received) * 10.0, dropped)
    }
}

#[test]
fn a_flood_is_received_up_to_the_target_and_the_rest_counted() {
    let mut flood = Flood::new();
    assert_eq!(flood.window(60_000), (60_000.0, 0));
    for _ in 0..50 {
        let (received, dropped) = flood.window(60_000);
        assert!((3_200.0..=5_000.0).contains(&received), "{received}");
        assert!((5_400..=5_800).contains(&dropped), "{dropped}");
    }
    assert!(flood.attaches <= 2, "{} programs for one flood", flood.attaches);
}

#[test]
fn it_ends_with_the_flood_and_what_is_below_the_target_is_never_screened() {
    let mut flood = Flood::new();
    for _ in 0..100 {
        flood.window(PLAIN_FLOOD.from - 1000);
    }
    assert_eq!(flood.attaches, 0);
    for _ in 0..10 {
        flood.window(1_000_000);
    }
    assert!(flood.part < 0.01, "{}", flood.part);
    let windows = (0..20)
        .take_while(|_| {
            flood.window(10);
            flood.part < 1.0
        })
        .count();
    assert!(windows < 10, "gone within a second");
    flood.window(0);
    assert_eq!(flood.screen.deadline(), None, "nothing to wait for");
}

#[test]
fn a_member_that_comes_from_elsewhere_is_known_within_a_second() {
    let mut flood = Flood::new();
    for _ in 0..5 {
        flood.window(60_000);
    }
    flood.known = known(&[loopback(77).into()]);
    let before = flood.attaches;
    let windows = (0..20)
        .take_while(|_| {
            flood.window(60_000);
            flood.attaches == before
        })
        .count();
    assert!(windows < 10, "{windows}");
}

#[test]
fn where_the_kernel_takes_no_filter_nothing_is_screened() {
    let mut flood = Flood::new();
    flood.window(60_000);
    flood.screen.give_up();
    flood.part = 1.0;
    assert_eq!(flood.window(60_000), (60_000.0, 0));
    assert_eq!((flood.attaches, flood.screen.deadline()), (1, None));
}
