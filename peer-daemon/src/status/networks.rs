//! `networks list` and `routes list`, as the official client prints them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A network of the map.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Network {
    /// Its name.
    pub(crate) id: String,
    /// Prefixes; none where there are domains.
    pub(crate) prefixes: Vec<String>,
    /// Domains; none where there are prefixes.
    pub(crate) domains: Vec<String>,
    /// Whether this peer carries it.
    pub(crate) selected: bool,
    /// Why it does not, although it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unsupported: Option<String>,
}

/// All of them, as text.
pub(crate) struct Listing<'a>(pub(crate) &'a [Network]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "No networks available.");
        }
        writeln!(f, "Available Networks:")?;
        self.0.iter().try_for_each(|network| write_network(f, network))
    }
}

fn write_network(f: &mut fmt::Formatter<'_>, network: &Network) -> fmt::Result {
    let status = if network.selected { "Selected" } else { "Not Selected" };
    writeln!(f, "\n  - ID: {}", network.id)?;
    if network.domains.is_empty() {
        writeln!(f, "    Network: {}", network.prefixes.join(", "))?;
        writeln!(f, "    Status: {status}")?;
    } else {
        writeln!(f, "    Domains: {}", network.domains.join(", "))?;
        writeln!(f, "    Status: {status}")?;
        writeln!(f, "    Resolved IPs: -")?;
    }
    match &network.unsupported {
        Some(why) => writeln!(f, "    Unsupported: {why}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from a client of version 0.77.1.
    const NETWORKS: &str = include_str!("testdata/networks-list.txt");
    const ROUTES: &str = include_str!("testdata/routes-list.txt");

    fn network(id: &str, prefixes: &[&str], domains: &[&str]) -> Network {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (prefixes, domains) = (owned(prefixes), owned(domains));
        Network { id: id.to_owned(), prefixes, domains, selected: true, unsupported: None }
    }

    #[test]
    fn the_list_is_that_of_a_real_client() {
        let networks = [
            network("dom1", &[], &["svc.internal.test"]),
            network("wild", &[], &["*.wild.test"]),
            network("exit", &["0.0.0.0/0", "::/0"], &[]),
            network("cl1", &["10.70.0.0/16"], &[]),
            network("cl2", &["10.71.0.0/16"], &[]),
            network("lan50", &["10.50.0.0/24"], &[]),
            network("host1", &["10.60.0.7/32"], &[]),
        ];
        assert_eq!(Listing(&networks).to_string(), NETWORKS);
        assert_eq!(NETWORKS, ROUTES);
        assert_eq!(Listing(&[]).to_string(), "No networks available.\n");
    }

    #[test]
    fn what_is_not_carried_says_why() {
        let mut domain = network("dom1", &[], &["svc.internal.test"]);
        domain.selected = false;
        domain.unsupported = Some("networks by domain".to_owned());
        let text = Listing(&[domain]).to_string();
        assert!(text.contains("    Status: Not Selected\n"), "{text}");
        assert!(text.ends_with("    Unsupported: networks by domain\n"), "{text}");
    }
}
