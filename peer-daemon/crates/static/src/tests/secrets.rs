//! Secrets do not appear in what is shown, wherever they stand; key files are looked after.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;

fn shown(text: &str) -> String {
    let problems = read(text).expect_err("bad");
    format!("{problems}\n{problems:?}")
}

#[test]
fn no_secret_is_shown_wherever_it_stands() {
    let slip = &PRIVATE[1..];
    let longer = format!("{PRIVATE}=");
    let unpadded = PRIVATE.trim_end_matches('=');
    let twice = PRIVATE.repeat(2);
    let sentence = format!("key {PRIVATE}");
    for secret in [PRIVATE, slip, &longer, unpadded, &twice, &sentence] {
        for text in [
            format!("[interface]\nprivate_key = \"{secret}\"\naddresses = []\n"),
            format!("[interface]\nprivate_key = [\"{secret}\"]\n"),
            format!("[interface]\nprivate_key = {{ x = \"{secret}\" }}\n"),
            format!("[interface]\nprivate_key = {secret}\n"),
            format!("[interface]\nprivate_key = \"{secret}\n"),
            format!("[interface]\nprivate_key \"{secret}\"\n"),
            format!("[interface]\nprivate_key = \"{secret}\"\nprivate_key = \"{secret}\"\n"),
            format!("[interface]\nPrivateKey = \"{secret}\"\n"),
            format!("[interface]\nprivate_key_file = \"{secret}\"\n"),
            format!("[interface]\nname = \"{secret}\"\n"),
            format!("[interface]\naddresses = [\"{secret}\"]\n"),
            format!("[interface]\n\"{secret}\" = 1\n"),
            format!("\"{secret}\" = 1\n"),
            format!("{secret}\n"),
            format!("[interface]\nname = {secret}\n"),
            format!("[interface]\nname = \"wt0\" private_key = \"{secret}\"\n"),
            format!("[interface]\nname=wt0 private_key={secret}\n"),
            format!("[interface]\nname\nprivate_key={secret}\n"),
            format!("[[peer]]\npreshared_key = \"{secret} \"\n"),
            format!("[[peer]]\nendpoint = \"{secret}\"\n"),
            format!("[[peer]]\npersistent_keepalive = \"{secret}\"\n"),
        ] {
            let shown = shown(&text);
            assert!(!shown.contains(&PRIVATE[2..20]), "{text}\n{shown}");
        }
    }
}

#[test]
fn the_debug_form_of_what_was_read_has_no_secret() {
    let text = format!("{}[[peer]]\npublic_key = \"{PEER}\"\npreshared_key = \"{OTHER}\"\n", interface());
    let shown = format!("{:?}", read(&text).expect("good"));
    assert!(shown.contains(PEER) && !shown.contains(PRIVATE) && !shown.contains(OTHER), "{shown}");
}

#[test]
fn copies_that_the_parser_made_are_wiped() {
    let text = "a = \"\\u0041BC\"\nb = [\"x\\u0041\", { c = \"\\u0042\" }]\nd = \"borrowed\"\n";
    let mut root = DeTable::parse(text).expect("TOML").into_inner();
    wipe_table(&mut root);
    assert_eq!(root.get("a").and_then(|value| value.get_ref().as_str()), Some(""));
    let list = root.get("b").and_then(|value| value.get_ref().as_array()).expect("a list");
    assert_eq!(list[0].get_ref().as_str(), Some(""));
    assert_eq!(list[1].get_ref().get("c").and_then(|value| value.get_ref().as_str()), Some(""));
    assert_eq!(root.get("d").and_then(|value| value.get_ref().as_str()), Some("borrowed"));
}

#[test]
fn key_files_are_for_their_owner_alone_and_hold_a_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("wt0.key");
    let text = "[interface]\nprivate_key_file = \"wt0.key\"\naddresses = [\"100.64.0.1/16\"]\n";
    let outcome = |content: &[u8], mode| {
        fs::write(&path, content).expect("writable");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("own file");
        parse(text, dir.path()).map_err(|problems| {
            let problems: Vec<_> = problems.iter().cloned().collect();
            let [problem] = &problems[..] else { panic!("{problems:#?}") };
            assert_eq!((problem.line, problem.field.as_str()), (2, "interface.private_key_file"));
            assert_eq!(problem.value.as_deref(), Some("\"wt0.key\""));
            problem.clone()
        })
    };
    for mode in [0o600, 0o400, 0o700] {
        assert!(outcome(format!(" {PRIVATE}\r\n").as_bytes(), mode).is_ok(), "{mode:o}");
    }
    for (mode, shown) in [(0o640, "0640"), (0o604, "0604"), (0o620, "0620"), (0o601, "0601")] {
        let problem = outcome(PRIVATE.as_bytes(), mode).expect_err("others may access it");
        assert!(problem.why.contains(shown), "{problem}");
        assert_eq!(problem.fix, format!("chmod 600 {}", path.display()));
    }
    for (content, size) in [
        (Vec::new(), "the 0 bytes"),
        (PRIVATE.as_bytes()[1..].to_vec(), "the 43 bytes"),
        (format!("{PRIVATE}\n{PRIVATE}").into_bytes(), "the 89 bytes"),
        (vec![0xff; 44], "the 44 bytes"),
        (vec![b'\n'; 5000], "more than 4096 bytes"),
    ] {
        let problem = outcome(&content, 0o600).expect_err("no key");
        assert!(problem.why.contains(size) && problem.fix.contains("genkey"), "{problem}");
        assert!(!problem.to_string().contains(&PRIVATE[2..20]), "{problem}");
    }
}
