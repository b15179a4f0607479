//! The device by itself: made, adopted, refused, removed.

use peer_core::batch::PacketBatch;
use peer_io::stats::ShardStats;
use peer_io::tun::ReadEnd;
use peer_io::wt0::{Change, RefusedAddress, SkippedRoute};
use peer_io::{Error, Offloads, Wt0, Wt0Config};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{LinkTun, LinkVeth, RouteMessageBuilder};

use crate::lab::{Kernel, config, in_namespace, is_up, net};

const BOTH: [&str; 2] = ["100.64.0.1/16", "fd00:64::1/64"];
const ROUTES: [&str; 2] = ["10.9.0.0/24", "fd00:9::/48"];

#[test]
fn is_made_with_all_that_was_asked_for() {
    in_namespace(|| async {
        let wt0 = Wt0::open(&config(&BOTH, &ROUTES)).await.expect("a device");
        assert_eq!((wt0.name(), wt0.adopted()), ("wt0", false));
        assert_eq!(wt0.offloads(), Offloads { tcp: true, udp: true });
        let kernel = Kernel::connect();
        let link = kernel.link("wt0").await.expect("it is there");
        assert!(is_up(&link) && link.header.index == wt0.index());
        assert!(link.attributes.contains(&LinkAttribute::Mtu(1420)));
        assert!(link.attributes.contains(&LinkAttribute::TxQueueLen(2000)));
        assert_eq!(kernel.addresses(wt0.index()).await, [(net(BOTH[0]), true), (net(BOTH[1]), true)], "no link-local");
        let index = wt0.index();
        let routes = [net(ROUTES[0]), net("100.64.0.0/16"), net(ROUTES[1]), net("fd00:64::/64")];
        assert_eq!(kernel.routes().await, routes.map(|route| (route, index)));
        // It shows the namespace of the thread that opens it.
        let forwarding = |name: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/forwarding")).expect("a setting")
        };
        assert_eq!(forwarding("wt0").trim(), "1");
        assert_eq!(forwarding("lo").trim(), "0", "of this device only");
    });
}

#[test]
fn outlives_its_process_and_is_adopted() {
    in_namespace(|| async {
        let first = Wt0::open(&config(&BOTH, &ROUTES)).await.expect("a device");
        let index = first.index();
        drop(first);
        let kernel = Kernel::connect();
        assert!(kernel.link("wt0").await.is_some_and(|link| is_up(&link)), "it is persistent");
        let kept = ["100.64.0.1/16", "100.64.0.7/16"];
        let config = Wt0Config { mtu: 1280, ..config(&kept, &["10.8.0.0/24", ROUTES[1]]) };
        let second = Wt0::open(&config).await.expect("the same device");
        assert!(second.adopted());
        assert_eq!(second.index(), index);
        assert_eq!(kernel.addresses(index).await, kept.map(|address| (net(address), true)));
        let routes = [net("10.8.0.0/24"), net("100.64.0.0/16"), net(ROUTES[1])];
        assert_eq!(kernel.routes().await, routes.map(|route| (route, index)));
        let link = kernel.link("wt0").await.expect("it is there");
        assert!(link.attributes.contains(&LinkAttribute::Mtu(1280)));
        drop(second);
        // The first address of a network goes, the second stays: the kernel would take both.
        let third = Wt0::open(&crate::lab::config(&kept[1..], &[])).await.expect("the same device");
        assert_eq!(kernel.addresses(index).await, [(net(kept[1]), true)]);
        assert_eq!(kernel.routes().await, [(net("100.64.0.0/16"), index)]);
        third.remove().await.expect("removed");
    });
}

#[test]
fn is_made_anew_where_it_is_not_to_be_adopted() {
    in_namespace(|| async {
        let fresh = Wt0Config { adopt: false, ..config(&BOTH, &ROUTES) };
        let first = Wt0::open(&fresh).await.expect("a device");
        let index = first.index();
        let error = Wt0::open(&fresh).await.expect_err("in use");
        assert!(matches!(&error, Error::Busy { .. }), "{error}");
        drop(first);
        let second = Wt0::open(&fresh).await.expect("another device");
        assert!(!second.adopted() && second.index() != index);
        assert_eq!(second.look().await.expect("a look"), Some(Vec::new()));
    });
}

#[test]
fn is_gone_after_removal_even_with_open_queues() {
    in_namespace(|| async {
        let mut wt0 = Wt0::open(&config(&BOTH, &ROUTES)).await.expect("a device");
        let mut queue = wt0.take_queues().remove(0);
        assert!(wt0.take_queues().is_empty());
        wt0.remove().await.expect("removed");
        let kernel = Kernel::connect();
        assert!(kernel.link("wt0").await.is_none());
        assert_eq!(kernel.routes().await, []);
        let mut batch = PacketBatch::with_capacity(1 << 17, 9);
        let error = queue.read(&mut batch, 1, &ShardStats::default()).expect_err("the device is gone");
        assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
        assert!(batch.push(&[0x45; 20], ()));
        let error = queue.write(&batch, &ShardStats::default()).expect_err("the device is gone");
        assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
    });
}

#[test]
fn has_as_many_queues_as_asked_for() {
    in_namespace(|| async {
        let config = Wt0Config { queues: 4, ..config(&BOTH, &[]) };
        let mut wt0 = Wt0::open(&config).await.expect("a device");
        let mut queues = wt0.take_queues();
        assert_eq!(queues.len(), 4);
        let mut batch = PacketBatch::with_capacity(1 << 20, 99);
        for queue in &mut queues {
            // Returns although there is nothing to come.
            assert_eq!(queue.read(&mut batch, 10, &ShardStats::default()).ok(), Some(ReadEnd::Empty));
        }
        drop((wt0, queues));
        assert!(Wt0::open(&config).await.expect("the same device").adopted());
    });
}

#[test]
fn a_second_daemon_is_told_that_it_is_in_use() {
    in_namespace(|| async {
        let first = Wt0::open(&config(&BOTH, &[])).await.expect("a device");
        let error = Wt0::open(&config(&[], &[])).await.expect_err("in use");
        assert!(matches!(&error, Error::Busy { name } if name == "wt0"), "{error}");
        let kernel = Kernel::connect();
        assert_eq!(kernel.addresses(first.index()).await.len(), 2, "nothing was changed");
    });
}

#[test]
fn devices_of_others_are_left_alone() {
    in_namespace(|| async {
        let kernel = Kernel::connect();
        kernel.0.link().add(LinkVeth::new("wt0", "other").build()).execute().await.expect("a veth pair");
        let error = Wt0::open(&config(&BOTH, &[])).await.expect_err("a veth");
        assert!(matches!(&error, Error::NotTun { kind, .. } if kind == "veth"), "{error}");
        assert!(kernel.link("wt0").await.is_some_and(|link| !is_up(&link)), "untouched");
        let lo = Wt0Config { name: "lo".into(), ..config(&BOTH, &[]) };
        let error = Wt0::open(&lo).await.expect_err("no TUN");
        assert!(matches!(&error, Error::NotTun { .. }), "{error}");
    });
}

#[test]
fn routes_of_others_stay() {
    in_namespace(|| async {
        let kernel = Kernel::connect();
        kernel.0.link().add(LinkVeth::new("eth0", "other").build()).execute().await.expect("a veth pair");
        let eth0 = kernel.link("eth0").await.expect("it is there").header.index;
        kernel.up(eth0).await;
        // With another metric than ours would have: the kernel would take both, and prefer ours.
        let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix([10, 9, 0, 0].into(), 24)
            .output_interface(eth0)
            .scope(rtnetlink::packet_route::route::RouteScope::Link)
            .priority(100)
            .build();
        kernel.0.route().add(route).execute().await.expect("a route");
        let wt0 = Wt0::open(&config(&BOTH[..1], &["10.9.0.0/24", "10.10.0.0/24"])).await.expect("a device");
        let skipped = SkippedRoute { destination: net("10.9.0.0/24"), interface: Some(eth0) };
        assert_eq!(wt0.skipped_routes(), [skipped]);
        let index = wt0.index();
        let expected = [(net("10.9.0.0/24"), eth0), (net("10.10.0.0/24"), index), (net("100.64.0.0/16"), index)];
        let routes: Vec<_> = kernel.routes().await.into_iter().filter(|(net, _)| net.addr().is_ipv4()).collect();
        assert_eq!(routes, expected);
    });
}

#[test]
fn an_address_that_the_kernel_refuses_is_left_out_and_the_others_are_set() {
    in_namespace(|| async {
        // A multicast address is none that a device may have.
        let wt0 = Wt0::open(&config(&["224.0.0.1/4", BOTH[0]], &[])).await.expect("a device");
        let refused: Vec<_> = wt0.refused_addresses().iter().map(|refused| refused.address).collect();
        assert_eq!(refused, [net("224.0.0.1/4")]);
        assert_eq!(Kernel::connect().addresses(wt0.index()).await, [(net(BOTH[0]), true)]);
        assert_eq!(wt0.look().await.expect("a look"), Some(Vec::new()), "it is no deviation");
    });
}

#[test]
fn without_ipv6_there_is_ipv4_and_ipv6_comes_when_it_is_switched_on() {
    in_namespace(|| async {
        // Of this test's own namespace.
        let disable = |device: &str, value: &str| {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), value).expect("a setting");
        };
        disable("default", "1");
        let mut wt0 = Wt0::open(&config(&BOTH, &ROUTES)).await.expect("a device with IPv4");
        let kernel = Kernel::connect();
        assert_eq!(kernel.addresses(wt0.index()).await, [(net(BOTH[0]), true)]);
        let refused = [RefusedAddress { address: net(BOTH[1]), why: "IPv6 is off".to_owned() }];
        assert_eq!(wt0.refused_addresses(), refused);
        assert_eq!(wt0.look().await.expect("a look"), Some(Vec::new()));
        disable("wt0", "0");
        wt0.retry_refused().await.expect("tried again");
        assert_eq!(wt0.refused_addresses(), []);
        assert_eq!(kernel.addresses(wt0.index()).await, [(net(BOTH[0]), true), (net(BOTH[1]), true)]);
        // The route that was left out comes with the next repair.
        wt0.put_back(&[]).await.expect("put right");
        assert!(kernel.routes().await.contains(&(net(ROUTES[1]), wt0.index())));
    });
}

/// What somebody does to the device, and of which kinds the differences are.
type Meddling = (&'static [&'static str], &'static [Change]);

#[test]
fn whatever_somebody_changes_is_found_and_put_back() {
    const CASES: [Meddling; 9] = [
        (&["ip link set wt0 down"], &[Change::Down, Change::Address]),
        (&["ip link set wt0 down", "ip link set wt0 up"], &[Change::Address, Change::Route]),
        (&["ip address flush dev wt0"], &[Change::Address, Change::Route]),
        (&["ip -4 route flush dev wt0"], &[Change::Route]),
        (&["ip -6 route flush dev wt0"], &[Change::Route]),
        (&["ip route flush table local dev wt0"], &[Change::Address]),
        (&["ip link set wt0 mtu 1200"], &[Change::Mtu, Change::Address]),
        (&["ip link set wt0 txqueuelen 500"], &[Change::QueueLength]),
        (&["sysctl -q -w net.ipv4.conf.wt0.forwarding=0"], &[Change::Forwarding]),
    ];
    in_namespace(|| async {
        let mut wt0 = Wt0::open(&config(&BOTH, &ROUTES)).await.expect("a device");
        let kernel = Kernel::connect();
        let (addresses, routes) = (kernel.addresses(wt0.index()).await, kernel.routes().await);
        for (commands, kinds) in CASES {
            assert_eq!(wt0.look().await.expect("a look"), Some(Vec::new()), "before {commands:?}");
            for command in commands {
                let mut words = command.split(' ');
                let program = words.next().expect("a program");
                let done = std::process::Command::new(program).args(words).status().expect("it runs");
                assert!(done.success(), "{command}");
            }
            let found = wt0.look().await.expect("a look").expect("it is there");
            for kind in kinds {
                assert!(found.iter().any(|deviation| deviation.change == *kind), "{commands:?}: {kind:?}: {found:?}");
            }
            let before: Vec<_> = Change::ALL.iter().map(|change| wt0.repairs().get(*change)).collect();
            wt0.put_back(&found).await.expect("put back");
            for (change, before) in Change::ALL.into_iter().zip(before) {
                let counted = u64::from(found.iter().any(|deviation| deviation.change == change));
                assert_eq!(wt0.repairs().get(change), before + counted, "{commands:?}: {change:?}");
            }
            assert_eq!(wt0.look().await.expect("a look"), Some(Vec::new()), "after {commands:?}");
            assert_eq!(kernel.addresses(wt0.index()).await, addresses, "{commands:?}: none is link-local");
            assert_eq!(kernel.routes().await, routes, "{commands:?}");
        }
    });
}

#[test]
fn impossible_configurations_are_refused_before_anything_is_opened() {
    in_namespace(|| async {
        for name in ["", ".", "a/b", "a b", "wt%d", "sixteen-letters-"] {
            let config = Wt0Config { name: name.into(), ..config(&[], &[]) };
            assert!(matches!(Wt0::open(&config).await, Err(Error::Name { .. })), "{name:?}");
        }
        for (mtu, queues, addresses) in [(575, 1, &[][..]), (1279, 1, &BOTH[1..]), (1420, 0, &[]), (1420, 257, &[])] {
            let config = Wt0Config { mtu, queues, ..config(addresses, &[]) };
            assert!(matches!(Wt0::open(&config).await, Err(Error::Range { .. })), "{config:?}");
        }
    });
}

#[test]
fn a_tun_of_another_program_is_left_alone() {
    in_namespace(|| async {
        let kernel = Kernel::connect();
        // A TUN can be made by its driver only: this netlink request is refused, which is why adopting is by ioctl.
        assert!(kernel.0.link().add(LinkTun::new("wt1").build()).execute().await.is_err());
        let ip = std::process::Command::new("ip").args(["tuntap", "add", "dev", "wt0", "mode", "tun"]).status();
        assert!(ip.is_ok_and(|status| status.success()), "iproute2 is needed");
        let error = Wt0::open(&config(&BOTH, &[])).await.expect_err("a single queue");
        assert!(matches!(&error, Error::ForeignTun { .. }), "{error}");
        assert!(kernel.link("wt0").await.is_some_and(|link| !is_up(&link)), "untouched");
    });
}
