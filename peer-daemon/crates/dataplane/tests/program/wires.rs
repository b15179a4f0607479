//! The programs on real devices: wt0 is a TUN device, the uplink one end of a veth pair.

use std::process::Command;

use aya::programs::TcAttachType;
use peer_common::layout::program;
use peer_common::route::Route;

use crate::Bench;
use crate::bench::with_bench;
use crate::lab::FAMILIES;
use crate::sys::device::{Port, index};

/// Both ends, as their other sides see them.
pub(crate) struct Wires {
    pub(crate) wt0: Port,
    pub(crate) lan: Port,
    /// A link header from the LAN to the uplink.
    pub(crate) macs: [u8; 12],
}

impl Wires {
    /// A packet as the LAN sends it to the uplink.
    pub(crate) fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let mut frame = self.macs.to_vec();
        frame.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(packet);
        frame
    }
}

/// Runs `test` with both devices up, and servers known as neighbours.
pub(crate) fn with_wires(test: impl FnOnce(&mut Bench, &mut Wires) + Send + 'static) {
    with_bench(|bench| {
        let wt0 = Port::tun(c"wt0").expect("a TUN device");
        let (near, far) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        ip("link add eth0 address 02:00:00:00:00:01 type veth peer name lan0 address 02:00:00:00:00:02");
        for device in ["wt0", "eth0", "lan0"] {
            ip(&format!("link set {device} up"));
        }
        let (wt0_index, uplink, lan) = (index(c"wt0"), index(c"eth0"), index(c"lan0"));
        let (wt0_index, uplink) = (wt0_index.expect("an index"), uplink.expect("an index"));
        for family in FAMILIES {
            let (len, dad) = if family.uplink.is_ipv4() { (24, "") } else { (64, " nodad") };
            ip(&format!("address add {}/{len} dev eth0{dad}", family.uplink));
            ip(&format!("neighbour add {} lladdr 02:00:00:00:00:02 dev eth0", family.server));
            bench.route_by(family.server, len, 10 + len, Route::MASQUERADE, uplink);
        }
        bench.uplink(uplink, 1500);
        bench.config(|config| config.wt0 = wt0_index);
        bench.attach(program::WT0_INGRESS, "wt0", TcAttachType::Ingress);
        bench.attach(program::WT0_EGRESS, "wt0", TcAttachType::Egress);
        bench.attach(program::UPLINK_INGRESS, "eth0", TcAttachType::Ingress);
        let lan = Port::packets(lan.expect("an index")).expect("a packet socket");
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&near);
        macs[6..].copy_from_slice(&far);
        test(bench, &mut Wires { wt0, lan, macs });
    });
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}
