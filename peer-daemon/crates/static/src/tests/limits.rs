use std::fmt::Write as _;
use std::fs;

use super::*;

fn routes(count: usize) -> String {
    (0..count).fold(interface(), |mut text, i| {
        write!(text, "[[route]]\ndestination = \"10.{}.{}.0/24\"\n", i / 256, i % 256).expect("memory");
        text
    })
}

fn prefixes(count: usize) -> String {
    let mut text = format!("{}[[peer]]\npublic_key = \"{PEER}\"\nallowed_ips = [\n", interface());
    for i in 0..count {
        writeln!(text, "\"10.{}.{}.{}/32\",", i / 65_536, i / 256 % 256, i % 256).expect("memory");
    }
    text + "]\n"
}

#[test]
fn routes_are_limited() {
    assert_eq!(read(&routes(MAX_ROUTES)).expect("room").routes.len(), MAX_ROUTES);
    let found = problems(&routes(MAX_ROUTES + 2));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].field.as_str(), found[0].line), ("route[4096]", 5 + 2 * 4096));
    assert!(found[0].why.contains("4098") && found[0].why.contains("4096"), "{}", found[0]);
}

#[test]
fn prefixes_of_peers_are_limited() {
    assert_eq!(read(&prefixes(MAX_PEER_PREFIXES)).expect("room").peers[0].allowed_ips.len(), MAX_PEER_PREFIXES);
    let found = problems(&prefixes(MAX_PEER_PREFIXES + 1));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].field, "peer[0].allowed_ips[65536]");
    assert!(found[0].why.contains("65537"), "{}", found[0]);
}

#[test]
fn a_file_that_is_no_toml_at_all_does_not_flood() {
    let found = problems(&"no TOML\n".repeat(10_000));
    assert_eq!(found.len(), 100);
    assert_eq!(found[99].line, 100);
}

#[test]
fn files_that_are_no_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("peer.toml");
    let shown = |path: &Path| load(path).expect_err("bad").to_string();

    assert!(shown(&path).contains("peer.toml: cannot be read: No such file"), "{}", shown(&path));
    assert!(shown(dir.path()).contains("neither a file nor a pipe"), "{}", shown(dir.path()));

    fs::write(&path, b"[interface]\nname = \"\xff\"\n").expect("writable");
    assert!(matches!(load(&path), Err(Error::NotText { line: 2, .. })));
    assert!(shown(&path).contains("peer.toml:2: not UTF-8"), "{}", shown(&path));

    fs::write(&path, "[interface]\nmtu = 1\n").expect("writable");
    assert!(shown(&path).contains("peer.toml:2: interface.mtu = 1: "), "{}", shown(&path));

    let sparse = fs::File::create(&path).and_then(|file| file.set_len((16 << 20) + 1));
    sparse.expect("writable");
    assert!(matches!(load(&path), Err(Error::TooLarge { limit: 16_777_216, .. })));
}

#[test]
fn a_file_of_unknown_size_is_read_whole() {
    // Files of /proc say that they are empty.
    let text = load(Path::new("/proc/self/maps")).expect_err("no TOML");
    assert!(matches!(text, Error::Invalid { .. }), "{text}");
}
