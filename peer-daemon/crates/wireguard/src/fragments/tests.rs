use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{FRAGMENT_PATIENCE, WAITING_FRAGMENTS, WAITING_FRAGMENTS_OF_PEER};
use crate::stats::Figure;

const UDP: u8 = 17;

/// A fragment of an IPv4 packet: at so many bytes, with more behind it.
fn v4(id: u16, offset: u16, more: bool) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&28_u16.to_be_bytes());
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
    packet[9] = UDP;
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 192, 0, 2, 1]);
    packet.extend(offset.to_be_bytes().repeat(4));
    packet
}

/// And of an IPv6 packet.
fn v6(id: u32, offset: u16, more: bool) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&16_u16.to_be_bytes());
    packet[6] = 44;
    packet[8] = 0xfd;
    packet[24] = 0xfc;
    packet.extend([UDP, 0]);
    packet.extend((offset | u16::from(more)).to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(offset.to_be_bytes().repeat(4));
    packet
}

struct Lab {
    now: Instant,
    fragments: Fragments,
    stats: EngineStats,
}

impl Lab {
    fn new() -> Self {
        Self { now: Instant::now(), fragments: Fragments::default(), stats: EngineStats::default() }
    }

    /// What goes on when this comes from a peer.
    fn come(&mut self, peer: u32, packet: &[u8]) -> Vec<Vec<u8>> {
        let part = Part::of(packet).expect("a fragment");
        let held = self.fragments.take(self.now, peer, &part, packet, &self.stats);
        let mut on: Vec<_> = (!held).then(|| packet.to_vec()).into_iter().collect();
        on.extend(self.poll());
        on
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut packets = PacketBatch::with_capacity(1 << 20, 1024);
        assert!(!self.fragments.poll(&mut packets, &self.stats));
        packets.iter().map(|(packet, ())| packet.to_vec()).collect()
    }

    fn pass(&mut self, time: Duration) -> Vec<Vec<u8>> {
        self.now += time;
        self.fragments.handle_timeout(self.now, &self.stats);
        self.poll()
    }

    /// Held, followed, expired, evicted, waiting.
    fn figures(&self) -> [u64; 5] {
        let EngineStats { fragments_held, fragments_followed, fragments_expired, fragments_evicted, .. } = &self.stats;
        let waiting = &self.stats.fragments_waiting;
        [fragments_held, fragments_followed, fragments_expired, fragments_evicted, waiting].map(Figure::get)
    }
}

#[test]
fn whole_packets_and_what_the_program_does_not_judge_are_no_fragments() {
    let mut dont = v4(1, 0, false);
    dont[6] = 0x40;
    let mut options = v4(1, 8, true);
    options[0] = 0x46;
    let mut hops = v6(1, 8, true);
    hops[6] = 0;
    for packet in
        [v4(1, 0, false), dont, options, v6(1, 0, false), hops, v6(1, 8, true)[..47].to_vec(), vec![], vec![0x45]]
    {
        assert_eq!(Part::of(&packet), None, "{packet:02x?}");
    }
    for (packet, offset) in
        [(v4(1, 0, true), 0), (v4(1, 1480, false), 1480), (v6(1, 0, true), 0), (v6(1, 1448, false), 1448)]
    {
        assert_eq!(Part::of(&packet).expect("a fragment").offset, offset);
    }
}

#[test]
fn fragments_in_order_do_not_wait() {
    let mut lab = Lab::new();
    for packet in [v4(1, 0, true), v4(1, 8, true), v4(1, 16, false), v6(1, 0, true), v6(1, 8, false)] {
        assert_eq!(lab.come(1, &packet), [packet]);
    }
    assert_eq!(lab.figures(), [0; 5]);
    assert_eq!(lab.fragments.deadline(), None);
}

#[test]
fn fragments_in_reverse_order_follow_the_first_in_order() {
    for fragment in [|offset, more| v4(7, offset, more), |offset, more| v6(7, offset, more)] as [fn(u16, bool) -> _; 2]
    {
        let mut lab = Lab::new();
        assert!(lab.come(1, &fragment(24, false)).is_empty());
        assert!(lab.come(1, &fragment(16, true)).is_empty());
        assert!(lab.come(1, &fragment(8, true)).is_empty());
        let all = [fragment(0, true), fragment(8, true), fragment(16, true), fragment(24, false)];
        assert_eq!(lab.come(1, &fragment(0, true)), all);
        assert_eq!(lab.figures(), [3, 3, 0, 0, 0]);
        assert_eq!(lab.come(1, &fragment(8, true)), [fragment(8, true)], "one that was sent twice");
    }
}

#[test]
fn a_flood_of_first_fragments_makes_nobody_else_wait() {
    let mut lab = Lab::new();
    lab.come(2, &v4(1, 0, true));
    for id in 0..5000 {
        lab.come(1, &v4(id, 0, true));
    }
    assert_eq!(lab.come(2, &v4(1, 8, false)), [v4(1, 8, false)]);
    assert_eq!(lab.stats.first_fragments.get(), 17, "a place of its own, and one of the other peer's");
    lab.now += Duration::from_secs(16);
    assert!(lab.come(2, &v4(1, 8, false)).is_empty(), "the programs have forgotten it, too");
}

#[test]
fn packets_and_peers_are_told_apart() {
    let mut lab = Lab::new();
    lab.come(1, &v4(1, 8, false));
    lab.come(1, &v4(2, 8, false));
    lab.come(2, &v4(1, 8, false));
    assert_eq!(lab.come(1, &v4(1, 0, true)).len(), 2);
    assert_eq!(lab.come(2, &v4(1, 0, true)).len(), 2, "the other peer's first was none of its own");
    assert_eq!(lab.figures(), [3, 2, 0, 0, 1]);
}

#[test]
fn what_waits_in_vain_goes_on_for_the_program_to_judge() {
    let mut lab = Lab::new();
    lab.come(1, &v4(1, 8, false));
    assert_eq!(lab.fragments.deadline(), Some(lab.now + FRAGMENT_PATIENCE));
    assert!(lab.pass(FRAGMENT_PATIENCE - Duration::from_millis(1)).is_empty());
    assert_eq!(lab.pass(Duration::from_millis(1)), [v4(1, 8, false)]);
    assert_eq!(lab.figures(), [1, 0, 1, 0, 0]);
    assert_eq!(lab.come(1, &v4(1, 0, true)), [v4(1, 0, true)], "too late");
}

#[test]
fn a_peer_has_its_share_and_no_more() {
    let mut lab = Lab::new();
    lab.come(2, &v4(1, 8, false));
    let more = 3 * WAITING_FRAGMENTS_OF_PEER as u16;
    let on: usize = (0..more).map(|id| lab.come(1, &v4(id, 8, false)).len()).sum();
    assert_eq!(on, 2 * WAITING_FRAGMENTS_OF_PEER, "its oldest go on");
    assert_eq!(lab.figures()[4] as usize, WAITING_FRAGMENTS_OF_PEER + 1);
    assert_eq!(lab.come(2, &v4(1, 0, true)).len(), 2, "the other peer's is still there");
}

#[test]
fn in_a_full_pool_the_peer_with_most_makes_room() {
    let mut lab = Lab::new();
    let peers = WAITING_FRAGMENTS.div_ceil(WAITING_FRAGMENTS_OF_PEER) as u32 + 3;
    lab.come(100, &v4(1, 8, false));
    for id in 0..4 * WAITING_FRAGMENTS_OF_PEER as u16 {
        for peer in 0..peers {
            lab.come(peer, &v4(id, 8, false));
        }
    }
    assert_eq!(lab.figures()[4] as usize, WAITING_FRAGMENTS);
    assert_eq!(lab.come(100, &v4(1, 0, true)).len(), 2, "it has less than any other");
}

#[test]
fn one_that_is_longer_than_the_mtu_does_not_wait() {
    let mut lab = Lab::new();
    lab.fragments.set_longest(28);
    assert!(lab.come(1, &v4(1, 8, false)).is_empty());
    let mut long = v4(1, 16, false);
    long.push(0);
    assert_eq!(lab.come(1, &long), [long]);
}

#[test]
fn what_nobody_fetches_takes_no_room_from_what_comes() {
    let mut lab = Lab::new();
    let part = |packet: &[u8]| Part::of(packet).expect("a fragment");
    let mut on = 0;
    for id in 0..2000_u16 {
        let packet = v4(id, 8, false);
        on += usize::from(!lab.fragments.take(lab.now, id.into(), &part(&packet), &packet, &lab.stats));
    }
    assert_eq!(on + lab.poll().len() + WAITING_FRAGMENTS, 2000, "each waits or has gone on");
}

proptest! {
    /// Whatever comes in whatever order: each fragment goes on exactly once, none before its first that came in time.
    #[test]
    fn every_fragment_goes_on_once_and_behind_its_first(
        order in prop::collection::vec((0_u16..5, 0_u16..4, 0_u32..2, 0_u64..40), 1..200)
    ) {
        let mut lab = Lab::new();
        let (mut came, mut on) = (Vec::new(), Vec::new());
        for (id, place, peer, pause) in order {
            on.extend(lab.pass(Duration::from_millis(pause)));
            let packet = v4(id, place * 8, place < 3);
            came.push(packet.clone());
            let before = on.len();
            on.extend(lab.come(peer, &packet));
            if place == 0 {
                prop_assert_eq!(&on[before], &packet, "a first goes on at once");
            }
        }
        on.extend(lab.pass(FRAGMENT_PATIENCE));
        came.sort();
        on.sort();
        prop_assert_eq!(came, on);
        let [held, followed, expired, evicted, waiting] = lab.figures();
        prop_assert_eq!((held, waiting), (followed + expired + evicted, 0));
    }
}
