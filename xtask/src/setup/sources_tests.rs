use std::fs;

use super::of_suite;

/// What is derived from a machine with these files of sources.
fn derived(files: &[(&str, &str)]) -> Option<String> {
    let apt = tempfile::tempdir().expect("temp folder");
    fs::create_dir(apt.path().join("sources.list.d")).expect("folder");
    for (name, text) in files {
        fs::write(apt.path().join(name), text).expect("file");
    }
    of_suite(apt.path(), "bookworm", "sid")
}

#[test]
fn a_stanza_lends_its_mirror_and_keys() {
    let text = "Types: deb deb-src\n# a note\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n\
                Components: main contrib\nSigned-By: /usr/share/keyrings/debian.gpg\n\n\
                Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n";
    let expected = "Types: deb\nURIs: http://mirror.test/debian\nSuites: sid\nComponents: main\n\
                    signed-by: /usr/share/keyrings/debian.gpg\n";
    assert_eq!(derived(&[("sources.list.d/debian.sources", text)]).as_deref(), Some(expected));
}

#[test]
fn an_embedded_key_is_kept_line_by_line() {
    let text = "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\n\
                Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----\n";
    let derived = derived(&[("sources.list.d/debian.sources", text)]).expect("a source");
    assert!(derived.ends_with(
        "signed-by:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----\n"
    ));
}

#[test]
fn a_line_lends_its_mirror_and_options() {
    let text = "# deb http://old.test/debian bookworm main\n\
                deb-src http://mirror.test/debian bookworm main\n\
                deb http://mirror.test/security bookworm-security main\n\
                deb [arch=amd64,arm64 signed-by=/key.gpg lang=de] http://mirror.test/debian bookworm main # ours\n";
    let expected = "Types: deb\nURIs: http://mirror.test/debian\nSuites: sid\nComponents: main\n\
                    architectures: amd64 arm64\nsigned-by: /key.gpg\n";
    assert_eq!(derived(&[("sources.list", text)]).as_deref(), Some(expected));
}

#[test]
fn a_line_without_options_relies_on_the_default_keys() {
    let expected = "Types: deb\nURIs: http://mirror.test/debian\nSuites: sid\nComponents: main\n";
    let text = "deb http://mirror.test/debian bookworm main";
    assert_eq!(derived(&[("sources.list", text)]).as_deref(), Some(expected));
}

#[test]
fn foreign_disabled_and_other_releases_lend_nothing() {
    let disabled = "Enabled: no\nTypes: deb\nURIs: http://a.test\nSuites: bookworm\nComponents: main\n";
    let vendor = "deb https://vendor.test/apt stable main\n";
    let without_main = "deb http://mirror.test/debian bookworm contrib\n";
    let files = [
        ("sources.list", vendor),
        ("sources.list.d/a.sources", disabled),
        ("sources.list.d/b.list", without_main),
        ("sources.list.d/c.list.save", "deb http://mirror.test/debian bookworm main\n"),
    ];
    assert_eq!(derived(&files), None);
    assert_eq!(derived(&[]), None);
}
