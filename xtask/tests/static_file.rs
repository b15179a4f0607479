//! What the pages show must hold.

use std::fs;
use std::path::Path;

/// The configuration that is shown is one that the daemon takes.
#[test]
fn the_configuration_that_is_shown_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("workspace");
    let page = fs::read_to_string(root.join("docs/static.md")).expect("a page");
    let (_, rest) = page.split_once("```toml\n").expect("a TOML block");
    let (text, _) = rest.split_once("```").expect("its end");
    let folder = tempfile::tempdir().expect("temp folder");
    fs::write(folder.path().join("peer.toml"), text).expect("configuration");
    let key = folder.path().join("wt0.key");
    fs::write(&key, "IJ7/6ZYZWA4PahYh75LKrKmEcsF+qjoT8exrNazABm8=\n").expect("key");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("mode");
    let desired = peer_static::load(&folder.path().join("peer.toml")).expect("valid");
    assert_eq!((desired.peers.len(), desired.routes.len(), desired.rules.len()), (1, 1, 2));
}
