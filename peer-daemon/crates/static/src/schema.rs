//! The keys there are, each with an example of its value.

/// A key and how it may look in a file.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) example: &'static str,
}

const fn key(name: &'static str, example: &'static str) -> Key {
    Key { name, example }
}

pub(crate) const ROOT: &[Key] =
    &[key("interface", "[interface]"), key("peer", "[[peer]]"), key("route", "[[route]]"), key("rule", "[[rule]]")];

pub(crate) const INTERFACE: &[Key] = &[
    key("private_key", "private_key = \"…\""),
    key("private_key_file", "private_key_file = \"wt0.key\""),
    key("listen_port", "listen_port = 51820"),
    key("addresses", "addresses = [\"100.64.0.1/16\"]"),
    key("mtu", "mtu = 1420"),
    key("name", "name = \"wt0\""),
];

pub(crate) const PEER: &[Key] = &[
    key("public_key", "public_key = \"…\""),
    key("preshared_key", "preshared_key = \"…\""),
    key("endpoint", "endpoint = \"192.0.2.1:51820\""),
    key("allowed_ips", "allowed_ips = [\"100.64.0.2/32\"]"),
    key("persistent_keepalive", "persistent_keepalive = 25"),
];

pub(crate) const ROUTE: &[Key] = &[
    key("destination", "destination = \"10.0.0.0/8\""),
    key("masquerade", "masquerade = true"),
    key("uplink", "uplink = \"auto\""),
];

pub(crate) const RULE: &[Key] = &[
    key("sources", "sources = [\"100.64.0.0/16\"]"),
    key("destinations", "destinations = [\"10.0.0.0/8\"]"),
    key("protocol", "protocol = \"tcp\""),
    key("ports", "ports = [80, \"8000-8100\"]"),
    key("action", "action = \"accept\""),
    key("id", "id = 1"),
];

/// The sections and their keys.
pub(crate) const SECTIONS: [(&str, &[Key]); 4] =
    [("interface", INTERFACE), ("peer", PEER), ("route", ROUTE), ("rule", RULE)];

/// Whether its value is a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    matches!(name, "private_key" | "preshared_key")
}

/// What to write instead of the unknown key `name`: the nearest of `known`, or all of them when none is near. Case and
/// underscores do not count, so that `AllowedIPs` is near `allowed_ips`.
pub(crate) fn suggestion(name: &str, known: &[Key]) -> String {
    let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let distance = |key: &&Key| strsim::osa_distance(&plain(name), &plain(key.name));
    let nearest = known.iter().min_by_key(distance);
    match nearest {
        Some(key) if distance(&key) <= 3.min(key.name.len() / 2) => {
            format!("write {} (as in {})", key.name, key.example)
        }
        _ => {
            let names: Vec<_> = known.iter().map(|key| key.name).collect();
            format!("known keys are {}", names.join(", "))
        }
    }
}
