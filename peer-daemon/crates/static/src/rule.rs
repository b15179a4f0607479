//! `[[rule]]`.

use ipnet::IpNet;
use peer_core::desired::{Action, PortRange, Protocol, Rule, Scope};

use crate::check::Seen;
use crate::node::{Node, Sink, Table};
use crate::{schema, value};

/// The rule at `index` (from 0) of the file.
pub(crate) fn read<'a>(node: Node<'a>, index: usize, seen: &mut Seen<'a>, sink: &mut Sink) -> Option<Rule> {
    let table = Table::open(&node, schema::RULE, sink)?;
    let id = id(&table, node, index, seen, sink);
    let sources = prefixes(&table, "sources", "sources = [\"100.64.0.0/16\"]", sink);
    let destinations = prefixes(&table, "destinations", "destinations = [\"10.0.0.0/8\"]", sink);
    let protocol = table.get("protocol").map_or(Some(Protocol::Any), |node| {
        let choices =
            [("any", Protocol::Any), ("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("icmp", Protocol::Icmp)];
        value::choice(&node, &choices, sink)
    });
    let ports = ports(&table, protocol, sink);
    let action = match table.get("action") {
        Some(node) => value::choice(&node, &[("accept", Action::Accept), ("drop", Action::Drop)], sink),
        None => {
            sink.missing(&table, "action", "add action = \"accept\" or action = \"drop\"");
            None
        }
    };
    Some(Rule { id: id?, sources, destinations, protocol: protocol?, ports, action: action?, scope: Scope::Both })
}

fn id<'a>(table: &Table<'a>, rule: Node<'a>, index: usize, seen: &mut Seen<'a>, sink: &mut Sink) -> Option<u32> {
    if let Some(node) = table.get("id") {
        // 0 stands for "no rule" in the flow table.
        let id = value::integer(&node, 1..=u32::MAX.into(), sink)?;
        seen.rule_ids.push((node, id));
        return Some(id);
    }
    let id = u32::try_from(index + 1).ok()?;
    seen.rule_positions.push((rule, id));
    Some(id)
}

fn prefixes(table: &Table<'_>, key: &str, example: &str, sink: &mut Sink) -> Vec<IpNet> {
    value::networks(table.get(key), example, sink).into_iter().map(|(_, prefix)| prefix).collect()
}

fn ports(table: &Table<'_>, protocol: Option<Protocol>, sink: &mut Sink) -> Vec<PortRange> {
    let Some(node) = table.get("ports") else { return Vec::new() };
    let items = value::list(&node, "ports = [80, \"8000-8100\"]", sink);
    if !items.is_empty() && matches!(protocol, Some(Protocol::Any | Protocol::Icmp)) {
        let fix = "write protocol = \"tcp\" or protocol = \"udp\", or leave the ports out";
        sink.refuse(&node, "only tcp and udp have ports", fix);
    }
    items.iter().filter_map(|item| value::ports(item, sink)).collect()
}
