//! Flag before variable before its former name before what an earlier life left, setting by setting; and the table of
//! docs/netbird.md.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory as _, FromArgMatches as _};
use peer_identity::{Identity, StateDir};

use super::*;
use crate::cli::former::{accept, former};

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: UpArgs,
}

/// A setting, the places where it may stand, and a value for each.
struct Setting {
    meaning: &'static str,
    flag: &'static str,
    variable: &'static str,
    /// Its key in `default.json`, if the official client keeps it there.
    key: Option<&'static str>,
    /// Of flag, variable, former variable and file, as JSON; of a switch the others are what the first is not.
    values: [&'static str; 4],
    shown: fn(&Settings) -> String,
}

const ON: [&str; 4] = ["true", "false", "false", "false"];
/// The places: how many there are, and which is the file.
const PLACES: usize = 4;
const FILE: usize = 3;

const SETTINGS: [Setting; 12] = [
    Setting {
        meaning: "management server",
        flag: "management-url",
        variable: "NB_MANAGEMENT_URL",
        key: Some("ManagementURL"),
        values: [
            "https://flag.example:443",
            "https://variable.example:443",
            "https://former.example:443",
            "https://file.example:443",
        ],
        shown: |settings| settings.management.to_string(),
    },
    Setting {
        meaning: "mesh device",
        flag: "interface-name",
        variable: "NB_INTERFACE_NAME",
        key: Some("WgIface"),
        values: ["flag0", "variable0", "former0", "file0"],
        shown: |settings| settings.interface_name.clone(),
    },
    Setting {
        meaning: "UDP port",
        flag: "wireguard-port",
        variable: "NB_WIREGUARD_PORT",
        key: Some("WgPort"),
        values: ["51001", "51002", "51003", "51004"],
        shown: |settings| settings.listen_port.wanted().to_string(),
    },
    Setting {
        meaning: "MTU of the mesh device",
        flag: "mtu",
        variable: "NB_MTU",
        key: Some("MTU"),
        values: ["1301", "1302", "1303", "1304"],
        shown: |settings| settings.mtu(None).to_string(),
    },
    Setting {
        meaning: "preshared key",
        flag: "preshared-key",
        variable: "NB_PRESHARED_KEY",
        key: Some("PreSharedKey"),
        values: [
            "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
            "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
            "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
            "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=",
        ],
        shown: |settings| {
            settings.preshared_key.as_ref().map(|key| key.expose_base64().to_string()).unwrap_or_default()
        },
    },
    Setting {
        meaning: "DNS labels",
        flag: "extra-dns-labels",
        variable: "NB_EXTRA_DNS_LABELS",
        key: Some("DNSLabels"),
        values: ["flag", "variable", "former", "file"],
        shown: |settings| settings.dns_labels.join(","),
    },
    Setting {
        meaning: "no routes",
        flag: "disable-server-routes",
        variable: "NB_DISABLE_SERVER_ROUTES",
        key: Some("DisableServerRoutes"),
        values: ON,
        shown: |settings| settings.flags.disable_server_routes.to_string(),
    },
    Setting {
        meaning: "no firewall",
        flag: "disable-firewall",
        variable: "NB_DISABLE_FIREWALL",
        key: Some("DisableFirewall"),
        values: ON,
        shown: |settings| settings.flags.disable_firewall.to_string(),
    },
    Setting {
        meaning: "nothing inbound",
        flag: "block-inbound",
        variable: "NB_BLOCK_INBOUND",
        key: Some("BlockInbound"),
        values: ON,
        shown: |settings| settings.block_inbound.to_string(),
    },
    Setting {
        meaning: "no IPv6",
        flag: "disable-ipv6",
        variable: "NB_DISABLE_IPV6",
        key: Some("DisableIPv6"),
        values: ON,
        shown: |settings| (!settings.ipv6).to_string(),
    },
    Setting {
        meaning: "name of the peer",
        flag: "hostname",
        variable: "NB_HOSTNAME",
        key: None,
        values: ["flag", "variable", "former", ""],
        shown: |settings| settings.hostname.clone().unwrap_or_default(),
    },
    Setting {
        meaning: "setup key",
        flag: "setup-key",
        variable: "NB_SETUP_KEY",
        key: None,
        values: [
            "A2C8E62B-38F5-4553-B31E-DD66C696CEBB",
            "B2C8E62B-38F5-4553-B31E-DD66C696CEBB",
            "C2C8E62B-38F5-4553-B31E-DD66C696CEBB",
            "",
        ],
        shown: |settings| {
            let key = settings.setup_key.read().expect("readable");
            key.map(|key| key.expose().to_owned()).unwrap_or_default()
        },
    },
];

/// Where a child finds its command line, one argument a line, and its state directory.
const LINE: &str = "PEER_TEST_LINE";
const STATE: &str = "PEER_TEST_STATE";

#[test]
fn a_flag_goes_before_a_variable_and_that_before_its_former_name_and_that_before_the_file() {
    for given in 1..1_u8 << PLACES {
        let has = |place: usize| given & (1 << place) != 0;
        let first = (0..PLACES).find(|place| has(*place)).expect("one at least");
        for inverted in [false, true] {
            let says = in_a_process(has, |setting, place| value(setting, place, first, inverted));
            for setting in &SETTINGS {
                // What the file has no place for comes from the others or not at all.
                let place = (0..PLACES).find(|place| has(*place) && (*place != FILE || setting.key.is_some()));
                let Some(place) = place else { continue };
                let wanted = value(setting, place, first, inverted);
                let said = says.lines().find_map(|line| line.strip_prefix(&format!("{}=", setting.variable)));
                assert_eq!(said, Some(&*wanted), "{}: given {given:#b}", setting.variable);
            }
        }
    }
}

/// What a place says; of a switch the first place says the opposite of all others.
fn value(setting: &Setting, place: usize, first: usize, inverted: bool) -> String {
    if setting.values == ON { ((place == first) != inverted).to_string() } else { setting.values[place].to_owned() }
}

/// What the settings of a process are that was given these values.
fn in_a_process(has: impl Fn(usize) -> bool, value: impl Fn(&Setting, usize) -> String) -> String {
    let temp = tempfile::tempdir().expect("a directory");
    let mut line = vec!["up".to_owned()];
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.env_clear().args(["--ignored", "--exact", "--nocapture"]);
    command.arg("netbird::settings::precedence::says_what_it_is_set_to");
    let mut file = serde_json::json!({ "PrivateKey": "aBkPaAivDmERJRJv584z9Y5lztwXaPwGPcOswptmTyI=" });
    for setting in &SETTINGS {
        if has(0) {
            line.push(format!("--{}={}", setting.flag, value(setting, 0)));
        }
        if has(1) {
            command.env(setting.variable, value(setting, 1));
        }
        if has(2) {
            command.env(former(setting.variable).expect("all have one"), value(setting, 2));
        }
        if let Some(key) = setting.key.filter(|_| has(FILE)) {
            file[key] = in_file(key, &value(setting, FILE));
        }
    }
    std::fs::write(temp.path().join("default.json"), file.to_string()).expect("written");
    let output = command.env(LINE, line.join("\n")).env(STATE, temp.path()).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The value as the official client writes it.
fn in_file(key: &str, value: &str) -> serde_json::Value {
    match key {
        "ManagementURL" => {
            let (scheme, host) = value.split_once("://").expect("a URL");
            serde_json::json!({ "Scheme": scheme, "Host": host, "Path": "" })
        }
        "DNSLabels" => serde_json::json!([value]),
        "WgIface" | "PreSharedKey" => value.into(),
        _ => serde_json::from_str(value).expect("a number or a truth value"),
    }
}

#[test]
#[ignore = "run by the test above, as a process with an environment of its own"]
fn says_what_it_is_set_to() {
    let (Ok(line), Some(state)) = (std::env::var(LINE), std::env::var_os(STATE)) else { return };
    let matches = accept(Line::command()).try_get_matches_from(line.lines()).expect("taken");
    let args = Line::from_arg_matches(&matches).expect("taken").args;
    let dir = StateDir::open(Path::new(&state)).expect("opened");
    let identity = Identity::find(&dir, &[]).expect("there");
    let settings = Settings::resolve(&args, &identity.private_key, &identity.settings).expect("usable");
    println!();
    for setting in &SETTINGS {
        println!("{}={}", setting.variable, (setting.shown)(&settings));
    }
}

#[test]
fn the_table_of_precedence_is_that_of_the_program() {
    const BEGIN: &str = "<!-- made by a test: begin -->\n";
    const END: &str = "<!-- made by a test: end -->";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/netbird.md");
    let text = std::fs::read_to_string(&path).expect("docs/netbird.md");
    let (before, rest) = text.split_once(BEGIN).expect("the place for the table");
    let (_, after) = rest.split_once(END).expect("its end");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("PEER_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("write");
    }
    let found = std::fs::read_to_string(&path).expect("docs/netbird.md");
    assert!(found == wanted, "docs/netbird.md: PEER_WRITE_DOCS=1 cargo test -p peer-daemon precedence");
}

fn table() -> String {
    let mut text = String::from(
        "\n| setting | 1. flag | 2. variable | 3. its former name | 4. key in `default.json` |\n|---|---|---|---|---|\n",
    );
    for Setting { meaning, flag, variable, key, .. } in &SETTINGS {
        let key = key.map_or("—".to_owned(), |key| format!("`{key}`"));
        let former = former(variable).expect("all have one");
        writeln!(text, "| {meaning} | `--{flag}` | `{variable}` | `{former}` | {key} |").expect("a string");
    }
    text.push('\n');
    text
}
