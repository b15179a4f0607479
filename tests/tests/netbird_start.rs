//! A start that fails on this machine leaves neither a key nor a peer behind, and says what to do.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use common::{SECOND, page_by_relay};
use peer_test_control::member::Habits;
use peer_tests::lab::{Binaries, Mesh, MeshPlan, add_address, wait_for};

const STATE: &str = "/run/lab/state";

fn prepared() -> Mesh {
    Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh")
}

/// Starts the daemon, which must be refused, and returns what it says.
#[track_caller]
fn refused(mesh: &Mesh) -> String {
    let finished = mesh.node.run_to_end().expect("it ends");
    assert!(!finished.status.success(), "{}", finished.stderr);
    finished.stderr
}

#[track_caller]
fn assert_nothing_is_left(mesh: &Mesh) {
    assert_eq!(mesh.server.look(|account| account.peers.len()), 0, "no ghost");
    assert_eq!(mesh.server.seen().setup_keys, 0, "the server was not asked");
    assert!(!has_key(mesh), "{:?}", mesh.node.state_files().expect("files"));
    assert_eq!(mesh.node.pins().expect("pins"), [""; 0].map(PathBuf::from));
}

fn has_key(mesh: &Mesh) -> bool {
    mesh.node.state_files().expect("files").iter().any(|path| path.ends_with("default.json"))
}

#[test]
fn a_device_of_somebody_else_leaves_no_ghost_and_the_next_start_succeeds() {
    let mut mesh = prepared();
    let ip = |mesh: &Mesh, line: &str| {
        mesh.node.namespace.exec("ip", &line.split(' ').collect::<Vec<_>>()).expect("ip");
    };
    for (make, what) in
        [("tuntap add dev wt0 mode tun", "another program"), ("link add wt0 type bridge", "did not make")]
    {
        ip(&mesh, make);
        for _ in 0..2 {
            let said = refused(&mesh);
            assert!(said.contains(what) && said.contains("NB_INTERFACE_NAME"), "{said}");
            assert_nothing_is_left(&mesh);
        }
        ip(&mesh, "link delete wt0");
    }
    mesh.node.start().expect("start");
    mesh.join(Habits::default()).expect("a member");
    page_by_relay(&mesh);
    assert_eq!(mesh.server.look(|account| account.peers.len()), 2, "the node and the member");
    assert!(has_key(&mesh));
}

#[test]
fn a_port_of_somebody_else_leaves_no_ghost_and_the_next_start_succeeds() {
    let mut mesh = prepared();
    for address in ["127.0.0.1:9090", "[fd00:9::1]:9090"] {
        if address.starts_with('[') {
            add_address(&mesh.node.namespace, "lo", "fd00:9::1".parse().expect("an address"), 128).expect("ip");
        }
        mesh.node.health = address.parse().expect("an address");
        let health = mesh.node.namespace.enter(|| TcpListener::bind(address)).expect("bound");
        let said = refused(&mesh);
        assert!(said.contains("9090"), "{said}");
        assert_nothing_is_left(&mesh);
        drop(health);
    }
    let wireguard = mesh.node.namespace.enter(|| std::net::UdpSocket::bind("0.0.0.0:51999")).expect("bound");
    let environment = vec![("NB_WIREGUARD_PORT".to_owned(), "51999".to_owned())];
    mesh.node.joining.as_mut().expect("joins").environment = environment;
    let said = refused(&mesh);
    assert!(said.contains("51999") && said.contains("NB_WIREGUARD_PORT") && !said.contains("listen_port"), "{said}");
    assert_nothing_is_left(&mesh);
    drop(wireguard);
    mesh.node.start().expect("start");
    assert_eq!(mesh.server.look(|account| account.peers.len()), 1);
}

#[test]
fn a_start_without_any_key_writes_none_until_there_is_one_to_register_with() {
    let mut mesh = prepared();
    let key = mesh.node.joining.as_mut().expect("joins").setup_key.take();
    mesh.node.launch().expect("launch");
    let mut log = String::new();
    let said = wait_for(SECOND * 15, || {
        log = mesh.node.daemon().expect("it runs").log();
        log.contains("the server does not take this peer") && log.contains("NB_SETUP_KEY")
    });
    assert!(said, "{log}");
    assert!(!has_key(&mesh), "{log}");
    assert!(mesh.node.stop().expect("stop").success());
    assert!(mesh.node.namespace.devices().expect("devices").iter().all(|device| device != "wt0"));
    assert_nothing_is_left(&mesh);
    mesh.node.joining.as_mut().expect("joins").setup_key = key;
    mesh.node.start().expect("start");
    assert!(has_key(&mesh));
}

#[test]
fn state_of_another_user_is_refused_with_the_remedy() {
    let mut mesh = prepared();
    mesh.node.start().expect("start");
    assert!(mesh.node.stop().expect("stop").success());
    let owned_by = |mesh: &Mesh, uid: u32| {
        let files = mesh.node.state_files().expect("files");
        mesh.node.namespace.enter(|| {
            for path in files.iter().map(PathBuf::as_path).chain([Path::new(STATE)]) {
                chown(path, Some(uid), None).expect("chown");
            }
            fs::metadata(STATE).expect("there").permissions()
        })
    };
    owned_by(&mesh, 1000);
    let said = refused(&mesh);
    for part in ["uid 1000", "uid 0", &format!("chown -R root: {STATE}"), "runAsUser"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    owned_by(&mesh, 0);
    mesh.node.start().expect("start");
    assert_eq!(mesh.server.look(|account| account.peers.len()), 1, "the same peer");
}
