//! `[[route]]`.

use peer_core::desired::{Route, UplinkChoice};

use crate::check::Seen;
use crate::node::{Node, Sink, Table};
use crate::{schema, value};

pub(crate) fn read<'a>(node: &Node<'a>, seen: &mut Seen<'a>, sink: &mut Sink) -> Option<Route> {
    seen.routes.push(node.clone());
    let table = Table::open(node, schema::ROUTE, sink)?;
    let destination = match table.get("destination") {
        Some(node) => {
            let prefix = value::network(&node, sink);
            seen.destinations.extend(prefix.map(|prefix| (node, prefix)));
            prefix
        }
        None => {
            sink.missing(&table, "destination", "add destination = \"10.0.0.0/8\"");
            None
        }
    };
    let masquerade = table.get("masquerade").map_or(Some(true), |node| value::boolean(&node, sink));
    let uplink = match table.get("uplink") {
        None => Some(UplinkChoice::Auto),
        Some(node) if node.value().as_str() == Some("auto") => Some(UplinkChoice::Auto),
        Some(node) => value::device_name(&node, sink).map(|name| {
            seen.uplinks.push((node, name.clone()));
            UplinkChoice::Named(name)
        }),
    };
    Some(Route { destination: destination?, masquerade: masquerade?, uplink: uplink? })
}
