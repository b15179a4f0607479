use super::*;

/// Recorded from a client of version 0.77.1, with a throw-away key.
const RECORDED: &str = include_str!("../testdata/node-default.json");

fn directory() -> (tempfile::TempDir, StateDir) {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = StateDir::open(temp.path()).expect("opened");
    (temp, dir)
}

fn refused(text: &str) -> String {
    parse(Path::new("default.json"), text.as_bytes()).map(|_| ()).expect_err(text).to_string()
}

#[test]
fn the_configuration_of_a_real_client_is_understood() {
    let (key, settings) = parse(Path::new("default.json"), RECORDED.as_bytes()).expect("understood");
    assert_eq!(key.expose_base64().as_str(), "2GJjWqn9gSgM9yHLqm99ifng0qvBVH1rCP3IrDW6znk=");
    assert_eq!(key.public_key().to_string(), "aBkPaAivDmERJRJv584z9Y5lztwXaPwGPcOswptmTyI=");
    let expected = Settings {
        management_url: Some("http://10.99.0.1:8080".to_owned()),
        interface_name: Some("wt0".to_owned()),
        listen_port: Some(51820),
        mtu: Some(1280),
        ..Settings::default()
    };
    assert_eq!(settings, expected);
}

#[test]
fn what_we_write_is_read_again_and_is_no_more_than_needed() {
    let (_temp, dir) = directory();
    let key = PrivateKey::from_bytes([9; 32]);
    let path = config_path(&dir).expect("the default");
    create(&path, &key, "https://nb.example:443/sub").expect("written");
    let (again, settings) = read(&path).expect("read").expect("there");
    assert_eq!(again.expose(), key.expose());
    let url = Some("https://nb.example:443/sub".to_owned());
    assert_eq!(settings, Settings { management_url: url, ..Settings::default() });
}

#[test]
fn the_active_profile_names_the_file() {
    let (_temp, dir) = directory();
    assert_eq!(config_path(&dir).expect("none is the default"), dir.file("default.json"));
    let with = |text: &str| {
        std::fs::write(dir.file("active_profile.json"), text).expect("written");
        config_path(&dir)
    };
    assert_eq!(with(include_str!("../testdata/active_profile.json")).expect("default"), dir.file("default.json"));
    let other = with(r#"{"name":"work","username":"ann"}"#).expect("another");
    assert_eq!(other, dir.path().join("ann/work.json"));
    for outside in [r#"{"name":"../x","username":"ann"}"#, r#"{"name":"x","username":".."}"#, r#"{"name":"x"}"#, "["] {
        assert!(with(outside).expect_err(outside).to_string().contains("active_profile.json"), "{outside}");
    }
}

#[test]
fn what_is_wrong_is_named_and_no_key_is_shown() {
    let key = "2GJjWqn9gSgM9yHLqm99ifng0qvBVH1rCP3IrDW6znk=";
    for (text, expected) in [
        ("{", "no JSON in line 1"),
        ("{}", "PrivateKey is no key"),
        (r#"{"PrivateKey":""}"#, "PrivateKey is no key"),
        (r#"{"PrivateKey":"2GJjWqn9gSgM9yHLqm99ifng0qvBVH1rCP3IrDW6znk"}"#, "PrivateKey is no key"),
        (r#"{"PrivateKey":["2GJjWqn9gSgM9yHLqm99ifng0qvBVH1rCP3IrDW6znk="]}"#, "wrong kind in line 1"),
        (r#"{"WgPort":"2GJjWqn9gSgM9yHLqm99ifng0qvBVH1rCP3IrDW6znk="}"#, "wrong kind in line 1"),
        (r#"{"PrivateKey":"2GJjWqn9gSgM9yHLqm99ifng0qvBVH1rCP3IrDW6znk=","PreSharedKey":"x"}"#, "PreSharedKey is no"),
    ] {
        let message = refused(text);
        assert!(message.contains(expected) && message.contains("default.json"), "{text}: {message}");
        assert!(!message.contains(&key[..20]), "{message}");
    }
}

#[test]
fn an_escaped_key_is_a_key() {
    let escaped = r#"{"PrivateKey":"2GJjWqn9gSgM9yHLqm99ifng0qvBVH1rCP3IrDW6znk\u003d"}"#;
    let (key, _) = parse(Path::new("default.json"), escaped.as_bytes()).expect("understood");
    assert_eq!(key.expose_base64().as_str(), "2GJjWqn9gSgM9yHLqm99ifng0qvBVH1rCP3IrDW6znk=");
}
