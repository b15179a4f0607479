//! Flows for people.

use std::fmt;

use super::events::{Event, Kind};
use super::record::{Flow, Listing};
use crate::status::{Ago, Count, Size};

const COLUMNS: [&str; 15] = [
    "PROTOCOL",
    "VERDICT",
    "KIND",
    "PEER",
    "DESTINATION",
    "NAT",
    "UPLINK",
    "ROUTE",
    "POLICY",
    "FROM PEER",
    "TO PEER",
    "STATE",
    "AGE",
    "IDLE",
    "EXPIRES",
];
/// Characters of a key that are shown: enough for `--peer`.
const KEY: usize = 8;

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.flows.iter().map(cells).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([COLUMNS[column].len()]).max().unwrap_or(0)
        };
        let widths: [usize; COLUMNS.len()] = std::array::from_fn(width);
        if !rows.is_empty() {
            write_row(f, &COLUMNS.map(str::to_owned), &widths, "PEER KEY")?;
        }
        for (row, flow) in rows.iter().zip(&self.flows) {
            write_row(f, row, &widths, key(flow))?;
        }
        if self.more > 0 {
            return writeln!(f, "{}", more(self.more));
        }
        writeln!(f, "{} flows", self.flows.len())
    }
}

/// `+` opened, `-` closed, two blanks: active.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.event {
            Kind::Opened => '+',
            Kind::Closed => '-',
            Kind::Active => ' ',
        };
        let flow = self.flow;
        let what = flow.kind.clone().unwrap_or_else(|| verdict(flow));
        write!(f, "{mark} {:<6} {what:<11} {} > {}", flow.protocol, flow.peer, flow.destination)?;
        if let Some(nat) = &flow.nat {
            write!(f, " as {nat}")?;
        }
        if let (Some(packets), Some(bytes)) = (self.packets_per_second, self.bytes_per_second) {
            write!(f, ", {packets} packets/s, {}/s", Size(bytes as u64))?;
        }
        if self.event == Kind::Closed {
            write!(f, ", {}: from peer {}, to peer {}", self.reason.unwrap_or("closed"), flow.from_peer, back(flow))?;
        }
        Ok(())
    }
}

/// What did not fit.
pub(super) fn more(more: u64) -> String {
    format!("and {more} more, less recently active: filter, or raise --limit")
}

fn cells(flow: &Flow) -> [String; COLUMNS.len()] {
    fn shown<T: ToString>(value: Option<&T>) -> String {
        value.map_or_else(|| "-".to_owned(), ToString::to_string)
    }
    [
        flow.protocol.clone(),
        verdict(flow),
        shown(flow.kind.as_ref()),
        flow.peer.to_string(),
        flow.destination.to_string(),
        shown(flow.nat.as_ref()),
        shown(flow.uplink.as_ref()),
        shown(flow.route.as_ref()),
        shown(flow.policy.as_ref()),
        flow.from_peer.to_string(),
        back(flow),
        shown(flow.state.as_ref()),
        Ago(flow.age_seconds).to_string(),
        Ago(flow.idle_seconds).to_string(),
        Ago(flow.expires_in_seconds).to_string(),
    ]
}

fn verdict(flow: &Flow) -> String {
    flow.drop_reason.as_ref().map_or_else(|| flow.verdict.clone(), |reason| format!("{}: {reason}", flow.verdict))
}

fn write_row(f: &mut fmt::Formatter<'_>, row: &[String], widths: &[usize], last: &str) -> fmt::Result {
    for (cell, width) in row.iter().zip(widths) {
        write!(f, "{cell:<width$}  ")?;
    }
    writeln!(f, "{last}")
}

fn back(flow: &Flow) -> String {
    flow.to_peer.as_ref().map_or_else(|| "-".to_owned(), Count::to_string)
}

fn key(flow: &Flow) -> &str {
    flow.peer_key.as_deref().map_or("-", |key| key.get(..KEY).unwrap_or(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::record::tests::{denied_sample, sample};

    #[test]
    fn a_table_has_a_header_a_line_per_flow_and_what_is_missing() {
        let listing = Listing { flows: vec![sample(), sample()], more: 7, now_ns: 0 };
        let text = listing.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("PROTOCOL  VERDICT  KIND "), "{text}");
        assert_eq!(lines[0].find("  NAT  "), lines[1].find("  198.51.100.1:21000"), "{text}");
        assert!(lines[1].contains("20 packets (27.3 KiB)") && lines[1].ends_with("AQEBAQEB"), "{text}");
        assert!(lines[3].contains("7 more") && lines[3].contains("--limit"), "{text}");
        assert_eq!(Listing { flows: Vec::new(), more: 0, now_ns: 0 }.to_string(), "0 flows\n");
    }

    #[test]
    fn what_was_dropped_says_why() {
        let text = Listing { flows: vec![denied_sample(), sample()], more: 0, now_ns: 0 }.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].contains("denied: policy_rule  -  ") && lines[2].contains("  allowed  "), "{text}");
        let flow = denied_sample();
        let event =
            Event { event: Kind::Opened, reason: None, packets_per_second: None, bytes_per_second: None, flow: &flow };
        assert!(event.to_string().starts_with("+ udp    denied: policy_rule 100.64.0.10:40000 > "), "{event}");
    }

    #[test]
    fn events_are_marked() {
        let flow = sample();
        let event = |event, reason| {
            Event { event, reason, packets_per_second: Some(2.5), bytes_per_second: Some(2048.0), flow: &flow }
                .to_string()
        };
        assert!(event(Kind::Active, None).starts_with("  tcp "));
        assert!(event(Kind::Opened, None).ends_with("as 198.51.100.1:21000, 2.5 packets/s, 2.0 KiB/s"));
        let closed = event(Kind::Closed, Some("closing"));
        assert!(closed.starts_with("- tcp ") && closed.contains("closing: from peer 10 packets"), "{closed}");
    }
}
