//! Programs that somebody else attached, in a few instructions each.

use peer_bpf_sys::program::Instruction;

/// Entries of a program's map of counters.
pub(crate) const COUNTERS: u32 = 512;
/// IPv6 next headers stand behind IPv4 protocols.
pub(crate) const IPV6_OFFSET: i32 = 256;

const NEXT: i32 = -1;
const OK: i32 = 0;
const SHOT: i32 = 2;

const LOOKUP: i32 = 1;
const STORE_BYTES: i32 = 9;
const REDIRECT: i32 = 23;

/// What a foreign program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Counts by protocol and ends the chain: `TC_ACT_OK`.
    CountAndPass,
    /// Counts by protocol and lets the next one decide: `TC_ACT_UNSPEC`.
    CountAndNext,
    /// Drops, and counts as protocol 1, what has a mark, a queue mapping or a tc index; the rest counts as protocol 0. IPv6
    /// with hop-by-hop options passes uncounted: the kernel's own multicast reports carry a mark by accident, because the
    /// field serves as their tail room before.
    DropMarked,
    /// Rewrites IPv4 UDP source ports of 32768 and above, as a tracker of host ports does on a collision.
    ChangeHighSource,
    /// Undoes it on answers, and ends the chain.
    RestoreHighDestination,
    /// Redirects everything to the device of this index as it is, and counts as protocol 0.
    RedirectBare(u32),
    /// Drops everything, uncounted.
    Swallow,
}

const fn op(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction::new(code, registers, offset, immediate)
}

/// The program, with `map` for its counters.
pub(crate) fn instructions(behaviour: Behaviour, map: i32) -> Vec<Instruction> {
    match behaviour {
        Behaviour::CountAndPass => count_by_protocol(map, OK),
        Behaviour::CountAndNext => count_by_protocol(map, NEXT),
        Behaviour::DropMarked => drop_marked(map),
        Behaviour::ChangeHighSource => change_port(14 + 20, NEXT),
        Behaviour::RestoreHighDestination => change_port(14 + 22, OK),
        Behaviour::RedirectBare(index) => redirect_bare(map, index),
        Behaviour::Swallow => end(SHOT).to_vec(),
    }
}

/// What is shorter than a header, or neither IPv4 nor IPv6, passes uncounted.
fn count_by_protocol(map: i32, verdict: i32) -> Vec<Instruction> {
    let mut code = vec![
        op(0xbf, 0x16, 0, 0),           // r6 = r1, the packet, as loads from packets want it
        op(0x28, 0x00, 0, 12),          // r0 = EtherType
        op(0x15, 0x00, 2, 0x0800),      // IPv4 → its load
        op(0x15, 0x00, 4, 0x86dd),      // IPv6 → its load
        op(0x05, 0x00, 15, 0),          // → the end
        op(0x30, 0x00, 0, 14 + 9),      // r0 = protocol
        op(0xbf, 0x07, 0, 0),           // r7 = r0
        op(0x05, 0x00, 3, 0),           // → the count
        op(0x30, 0x00, 0, 14 + 6),      // r0 = next header
        op(0xbf, 0x07, 0, 0),           // r7 = r0
        op(0x07, 0x07, 0, IPV6_OFFSET), // r7 += 256
    ];
    code.extend(count_r7(map));
    code.extend(end(verdict));
    code
}

fn drop_marked(map: i32) -> Vec<Instruction> {
    let mut code = vec![
        op(0xbf, 0x16, 0, 0),      //  0: r6 = r1, the packet, as loads from packets want it
        op(0x28, 0x00, 0, 12),     //  1: r0 = EtherType
        op(0x55, 0x00, 2, 0x86dd), //  2: not IPv6 → the mark
        op(0x30, 0x00, 0, 14 + 6), //  3: r0 = next header
        op(0x15, 0x00, 19, 0),     //  4: hop-by-hop → the end, uncounted
        op(0x61, 0x67, 8, 0),      //  5: r7 = mark
        op(0x61, 0x68, 12, 0),     //  6: r8 = queue mapping
        op(0x4f, 0x87, 0, 0),      //  7: r7 |= r8
        op(0x61, 0x68, 44, 0),     //  8: r8 = tc index
        op(0x4f, 0x87, 0, 0),      //  9: r7 |= r8
        op(0x15, 0x07, 1, 0),      // 10: none → the count
        op(0xb7, 0x07, 0, 1),      // 11: r7 = 1
    ];
    code.extend(count_r7(map));
    code.push(op(0x15, 0x07, 2, 0)); // not marked → the end
    code.extend(end(SHOT));
    code.extend(end(NEXT));
    code
}

/// Flips the lowest bit of a port at `offset` if it is 32768 or above, and drops the checksum, which IPv4 allows.
fn change_port(offset: i32, verdict: i32) -> Vec<Instruction> {
    let mut code = vec![
        op(0xbf, 0x16, 0, 0),       //  0: r6 = r1
        op(0x28, 0x00, 0, 12),      //  1: r0 = EtherType
        op(0x55, 0x00, 24, 0x0800), //  2: not IPv4 → the end
        op(0x30, 0x00, 0, 14 + 9),  //  3: r0 = protocol
        op(0x55, 0x00, 22, 17),     //  4: not UDP → the end
        op(0x28, 0x00, 0, offset),  //  5: r0 = port
        op(0xa5, 0x00, 20, 32768),  //  6: below → the end
        op(0xa7, 0x00, 0, 1),       //  7: r0 ^= 1
        op(0xdc, 0x00, 0, 16),      //  8: r0 in network order
        op(0x6b, 0x0a, -2, 0),      //  9: port = r0
        op(0xb7, 0x00, 0, 0),       // 10: r0 = 0
        op(0x6b, 0x0a, -4, 0),      // 11: checksum = r0
    ];
    for (at, from) in [(offset, -2), (14 + 26, -4)] {
        code.extend([
            op(0xbf, 0x61, 0, 0),           // r1 = packet
            op(0xb7, 0x02, 0, at),          // r2 = offset
            op(0xbf, 0xa3, 0, 0),           // r3 = frame
            op(0x07, 0x03, 0, from),        // r3 += from
            op(0xb7, 0x04, 0, 2),           // r4 = length
            op(0xb7, 0x05, 0, 0),           // r5 = flags
            op(0x85, 0x00, 0, STORE_BYTES), // r0 = bpf_skb_store_bytes
        ]);
    }
    code.push(op(0x05, 0x00, 0, 0)); // 26: → the end
    code.extend(end(verdict));
    code
}

fn redirect_bare(map: i32, index: u32) -> Vec<Instruction> {
    let mut code = vec![op(0xb7, 0x07, 0, 0)]; // r7 = 0
    code.extend(count_r7(map));
    code.extend([
        op(0xb7, 0x01, 0, index as i32), // r1 = device
        op(0xb7, 0x02, 0, 0),            // r2 = flags
        op(0x85, 0x00, 0, REDIRECT),     // r0 = bpf_redirect
        op(0x95, 0x00, 0, 0),            // exit
    ]);
    code
}

/// `counter[r7] += 1`.
fn count_r7(map: i32) -> [Instruction; 9] {
    [
        op(0x63, 0x7a, -4, 0),     // key = r7
        op(0xbf, 0xa2, 0, 0),      // r2 = frame
        op(0x07, 0x02, 0, -4),     // r2 = &key
        op(0x18, 0x11, 0, map),    // r1 = map, two slots
        op(0x00, 0x00, 0, 0),      //
        op(0x85, 0x00, 0, LOOKUP), // r0 = bpf_map_lookup_elem
        op(0x15, 0x00, 2, 0),      // none → behind
        op(0xb7, 0x01, 0, 1),      // r1 = 1
        op(0xdb, 0x10, 0, 0),      // atomic *r0 += r1
    ]
}

fn end(verdict: i32) -> [Instruction; 2] {
    [op(0xb7, 0x00, 0, verdict), op(0x95, 0x00, 0, 0)]
}
