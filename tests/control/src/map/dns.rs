//! Names of peers.

use std::net::IpAddr;

use super::{Account, Peer, fqdn};
use crate::proto::management::{CustomZone, DnsConfig, SimpleRecord};

/// Port of the routers' DNS forwarder.
const FORWARDER_PORT: i64 = 22054;

pub(crate) fn dns_config(account: &Account, own: &Peer, online: &[&Peer]) -> DnsConfig {
    let mut records = Vec::new();
    for peer in [own].iter().chain(online) {
        let addresses = [Some(IpAddr::from(peer.address)), peer.address6.map(IpAddr::from)];
        records.extend(addresses.into_iter().flatten().map(|address| SimpleRecord {
            name: fqdn(account, peer),
            r#type: if address.is_ipv4() { 1 } else { 28 },
            class: "IN".to_owned(),
            ttl: 300,
            r_data: address.to_string(),
        }));
    }
    let zone = CustomZone { domain: format!("{}.", account.domain), records };
    DnsConfig { service_enable: true, custom_zones: vec![zone], forwarder_port: FORWARDER_PORT }
}
