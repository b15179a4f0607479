use peer_core::path::RelayId;

use super::*;

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1000);
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2000);

fn request(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(STUN_HEADER)];
    bytes[1] = 1;
    bytes[4..8].copy_from_slice(&COOKIE);
    bytes
}

fn batch(datagrams: &[(&[u8], SocketAddr)]) -> DatagramBatch {
    let mut batch = DatagramBatch::with_capacity(1 << 20, 4096);
    for (bytes, remote) in datagrams {
        assert!(batch.push(bytes, Path::Udp { remote: *remote, local: None }));
    }
    batch
}

#[test]
fn wireguard_goes_before_stun() {
    assert!(is_stun(&request(20)) && is_stun(&request(184)));
    assert!(!is_stun(&request(20)[..19]), "shorter than a header");
    let mut other_cookie = request(20);
    other_cookie[7] ^= 1;
    assert!(!is_stun(&other_cookie));
    for kind in 1_u32..=4 {
        // Its receiver index happens to be the cookie.
        let mut message = request(32);
        message[..4].copy_from_slice(&kind.to_le_bytes());
        assert!(!is_stun(&message), "{kind}");
        assert!(is_stun(&message[..31]), "no WireGuard message is so short");
    }
    let mut reserved = request(20);
    reserved[0] |= 0x80;
    assert!(!is_stun(&reserved), "channel data and DTLS have these bits");
}

#[test]
fn stun_leaves_the_batch_and_the_rest_stays() {
    let (mut tap, mut receiver) = tap();
    let stats = ShardStats::default();
    let stun = request(100);
    let mut batch = batch(&[(b"\x04\0\0\0 data", PEER), (&stun, PEER), (b"rest", STRANGER)]);
    // Relays carry WireGuard only: what looks otherwise there is the engine's to refuse.
    assert!(batch.push(&stun, Path::Relay(RelayId { connection: 1, peer: 1 })));
    tap.part(&mut batch, &stats);
    let left: Vec<_> = batch.iter().map(|(bytes, _)| bytes.to_vec()).collect();
    assert_eq!(left, [b"\x04\0\0\0 data".to_vec(), b"rest".to_vec(), stun.clone()]);
    let taken = receiver.try_recv().expect("one");
    assert_eq!((taken.remote, taken.local, &*taken.bytes), (PEER, None, &stun[..]));
    assert!(receiver.try_recv().is_none());
    assert_eq!((stats.stun_in.packets.get(), stats.stun_in.bytes.get()), (1, 100));
}

#[test]
fn a_flood_of_strangers_does_not_keep_a_known_peer_out() {
    let (mut tap, mut receiver) = tap();
    receiver.known_sources().set([PEER]);
    let stats = ShardStats::default();
    let stun = request(20);
    let flood: Vec<(&[u8], SocketAddr)> = (0..4000).map(|_| (&stun[..], STRANGER)).collect();
    tap.part(&mut batch(&flood), &stats);
    tap.part(&mut batch(&[(&stun, PEER)]), &stats);
    assert_eq!(receiver.try_recv().map(|datagram| datagram.remote), Some(PEER), "it goes first");
    let strangers = std::iter::from_fn(|| receiver.try_recv()).count();
    assert_eq!(strangers, STRANGERS);
    assert_eq!(stats.drops(IoDrop::StunFull) as usize, 4000 - STRANGERS);
}

#[test]
fn strangers_have_a_budget_for_each_second() {
    let (mut tap, _receiver) = tap();
    let start = tap.budget.1;
    let passed = |tap: &mut StunTap, at| (0..5000).filter(|_| tap.may_pass(at)).count();
    assert_eq!(passed(&mut tap, start), STRANGERS_PER_SECOND as usize);
    assert_eq!(passed(&mut tap, start + Duration::from_millis(999)), 0);
    assert_eq!(passed(&mut tap, start + Duration::from_secs(1)), STRANGERS_PER_SECOND as usize);
}

#[test]
fn a_long_datagram_is_none_of_ice() {
    let (mut tap, mut receiver) = tap();
    let stats = ShardStats::default();
    tap.part(&mut batch(&[(&request(LONGEST + 1), PEER), (&request(LONGEST), PEER)]), &stats);
    assert_eq!(receiver.try_recv().map(|datagram| datagram.bytes.len()), Some(LONGEST));
    assert!(receiver.try_recv().is_none() && stats.drops(IoDrop::StunFull) == 1);
}
