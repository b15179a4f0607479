//! The static control plane: one TOML file with keys, peers, routes and rules.
//!
//! ```toml
//! [interface]
//! private_key_file = "wt0.key"     # or private_key
//! addresses = ["100.64.0.1/16"]
//! listen_port = 51820              # 0: any
//! mtu = 1420
//! name = "wt0"
//!
//! [[peer]]
//! public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
//! # preshared_key = "…"
//! endpoint = "192.0.2.1:51820"
//! allowed_ips = ["100.64.0.2/32"]
//! persistent_keepalive = 25        # seconds; 0 or "off"
//!
//! [[route]]
//! destination = "10.0.0.0/8"
//! masquerade = true
//! uplink = "auto"                  # or a device
//!
//! [[rule]]
//! sources = ["100.64.0.0/16"]      # none: nobody
//! destinations = ["10.0.0.0/8"]
//! protocol = "tcp"                 # any, tcp, udp, icmp
//! ports = [80, "8000-8100"]        # none: all
//! action = "accept"                # or drop; drop wins, and what no rule accepts is dropped
//! id = 1                           # in logs and metrics; else the position in the file, from 1
//! ```
//!
//! A file is taken whole or refused whole, with all its problems at once: the place, the value, why not, and what to
//! write instead. Secrets do not appear in a problem, and what was read of them is wiped.
#![forbid(unsafe_code)]

mod check;
mod error;
mod file;
mod interface;
mod node;
mod peer;
mod route;
mod rule;
mod schema;
mod syntax;
mod value;

use std::borrow::Cow;
use std::path::Path;

use peer_core::desired::{Desired, Rule};
use toml::de::{DeTable, DeValue};
use zeroize::Zeroize;

pub use self::check::{MAX_PEER_PREFIXES, MAX_ROUTES};
pub use self::error::{Error, Problem, Problems};
use self::node::{Node, Sink, Table};

/// Reads the file at `path`. A relative `private_key_file` in it stands beside it.
///
/// # Errors
/// When the file cannot be read, is no text, or says something that must not be; see [`Error`].
pub fn load(path: &Path) -> Result<Desired, Error> {
    let text = file::config(path)?;
    let base = path.parent().unwrap_or(Path::new(""));
    parse(&text, base).map_err(|problems| Error::Invalid { path: path.to_owned(), problems })
}

/// Reads `text`; `base` is the directory that a relative `private_key_file` is looked for in. Nothing but that file is
/// opened.
///
/// # Errors
/// All problems of the text, in the order of their lines. Syntax comes first: while there are problems with it, values
/// are not looked at.
pub fn parse(text: &str, base: &Path) -> Result<Desired, Problems> {
    let mut sink = Sink::new(text);
    let (mut root, errors) = DeTable::parse_recoverable(text);
    let desired = if errors.is_empty() {
        read(root.get_ref(), base, &mut sink)
    } else {
        syntax::report(text, &errors, &mut sink);
        None
    };
    wipe_table(root.get_mut());
    match (desired, sink.finish()) {
        (Some(desired), problems) if problems.is_empty() => Ok(desired),
        (_, problems) => Err(problems),
    }
}

fn read<'a>(root: &'a DeTable<'a>, base: &Path, sink: &mut Sink) -> Option<Desired> {
    let root = Table::root(root, schema::ROOT, sink);
    let mut seen = check::Seen::default();
    let interface = match root.get("interface") {
        Some(node) => interface::read(&node, base, &mut seen, sink),
        None => {
            sink.missing(&root, "interface", "add [interface] with private_key_file and addresses");
            None
        }
    };
    let peers = sections(&root, "peer", sink, |node, _, sink| peer::read(&node, &mut seen, sink));
    let routes = sections(&root, "route", sink, |node, _, sink| route::read(&node, &mut seen, sink));
    let rules = sections(&root, "rule", sink, |node, index, sink| rule::read(node, index, &mut seen, sink));
    seen.check(sink);
    let (interface, rules) = (interface?, Rule::list(rules));
    Some(Desired { interface, peers: peers.into(), routes, rules, unsupported: Vec::new() })
}

/// What `read` makes of each of the tables `[[key]]`.
fn sections<'a, T>(
    root: &Table<'a>,
    key: &'static str,
    sink: &mut Sink,
    mut read: impl FnMut(Node<'a>, usize, &mut Sink) -> Option<T>,
) -> Vec<T> {
    let Some(node) = root.get(key) else { return Vec::new() };
    let Some(items) = node.array() else {
        sink.refuse(&node, format!("there may be more than one {key}"), format!("write [[{key}]]"));
        return Vec::new();
    };
    items.into_iter().enumerate().filter_map(|(index, node)| read(node, index, sink)).collect()
}

/// Strings with escapes are copies that the parser made; everything else is borrowed from the text.
fn wipe_table(table: &mut DeTable<'_>) {
    for (_, value) in table {
        wipe(value.get_mut());
    }
}

fn wipe(value: &mut DeValue<'_>) {
    match value {
        DeValue::String(Cow::Owned(text)) => text.zeroize(),
        DeValue::Array(items) => items.iter_mut().for_each(|item| wipe(item.get_mut())),
        DeValue::Table(table) => wipe_table(table),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
