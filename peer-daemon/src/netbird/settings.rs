//! What the command line, the environment and the state directory say together. Flag > environment > state.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use peer_core::desired::UplinkChoice;
use peer_core::key::{PresharedKey, PrivateKey};
use peer_identity::{Ephemeral, Settings as Kept};
use peer_netbird::management::SetupKey;
use peer_netbird::proto::management::Flags;
use peer_netbird::server::ServerUrl;

use super::direct::interfaces::{self, External, LeadsTo};
use crate::cli::{EphemeralChoice, NetBirdArgs, UpArgs};

/// Where the official client goes if nobody says otherwise.
const DEFAULT_MANAGEMENT: &str = "https://api.netbird.io:443";
const DEFAULT_INTERFACE: &str = "wt0";
/// WireGuard's usual port.
const DEFAULT_PORT: u16 = 51820;
/// Of the official client, where the server says nothing: fits every path.
const DEFAULT_MTU: u16 = 1280;
/// Seconds between keepalives, as official clients have it. NAT bindings of UDP live 30 s at least (RFC 4787 says 120).
const KEEPALIVE: NonZeroU16 = NonZeroU16::new(25).expect("not zero");
/// Where official clients kept their configuration before it went into the state directory.
const FORMER_CONFIG: &str = "/etc/netbird/config.json";
/// Most bytes of the file of a setup key: the key and what an editor may add.
const MAX_SETUP_KEY_FILE: u64 = 4096;

/// Everything that is fixed at the start.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) private_key: PrivateKey,
    pub(super) management: ServerUrl,
    pub(super) hostname: Option<String>,
    pub(super) interface_name: String,
    pub(super) listen_port: ListenPort,
    /// `None`: what the server says.
    pub(super) mtu: Option<u16>,
    pub(super) preshared_key: Option<PresharedKey>,
    pub(super) dns_labels: Vec<String>,
    pub(super) ca_files: Vec<PathBuf>,
    pub(super) uplinks: UplinkChoice,
    pub(super) server_routes: bool,
    pub(super) block_inbound: bool,
    pub(super) ipv6: bool,
    /// `None`: what the server says.
    pub(super) lazy: Option<bool>,
    pub(super) lazy_inactivity: Duration,
    /// `None`: relays only.
    pub(super) ice: Option<IceSettings>,
    pub(super) keepalive: NonZeroU16,
    pub(super) ephemeral: Ephemeral,
    pub(super) max_stale_map: Duration,
    pub(super) setup_key: SetupKeySource,
    /// What the server is told of all this.
    pub(super) flags: Flags,
}

/// How direct paths are sought.
#[derive(Clone, Debug)]
pub(super) struct IceSettings {
    pub(super) timing: peer_ice::Settings,
    pub(super) interfaces: interfaces::Choice,
}

/// WireGuard's UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListenPort {
    /// This one and no other: somebody asked for it.
    Exactly(u16),
    /// This one, or any where it is in use.
    Preferably(u16),
}

impl ListenPort {
    /// The port that is tried first.
    pub(super) fn wanted(self) -> u16 {
        match self {
            Self::Exactly(port) | Self::Preferably(port) => port,
        }
    }
}

/// Where the setup key is.
#[derive(Clone, Debug)]
pub(super) enum SetupKeySource {
    Nowhere,
    Given(SetupKey),
    /// Read when it is needed: a mounted secret may be renewed.
    File(PathBuf),
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub(super) struct BadSetting {
    field: &'static str,
    why: String,
}

/// What can be checked before the state directory is opened.
pub(super) fn check(args: &UpArgs) -> Result<(), BadSetting> {
    let netbird = &args.netbird;
    if let Some(url) = given(netbird.management_url.as_ref()) {
        server("--management-url", url)?;
    }
    setup_key(netbird)?;
    preshared_key(netbird)?;
    ice(netbird)?;
    if netbird.block_lan_access == Some(true) {
        return Err(no_lan_block("--block-lan-access (NB_BLOCK_LAN_ACCESS)"));
    }
    Ok(())
}

/// Where else the identity may be, the first to be taken first.
pub(super) fn elsewhere(args: &UpArgs) -> Vec<PathBuf> {
    let named = args.config.clone().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    named.into_iter().chain([PathBuf::from(FORMER_CONFIG)]).collect()
}

impl Settings {
    /// Puts them together.
    pub(super) fn resolve(args: &UpArgs, private_key: &PrivateKey, kept: &Kept) -> Result<Self, BadSetting> {
        let netbird = &args.netbird;
        let url = given(netbird.management_url.as_ref()).or(kept.management_url.as_deref());
        let disabled = |flag: Option<bool>, kept: bool| flag.unwrap_or(kept);
        if disabled(netbird.block_lan_access, kept.block_lan_access) {
            return Err(no_lan_block("BlockLANAccess in the state directory"));
        }
        let disable_server_routes = disabled(netbird.disable_server_routes, kept.disable_server_routes);
        let disable_firewall = disabled(netbird.disable_firewall, kept.disable_firewall);
        let block_inbound = disabled(netbird.block_inbound, kept.block_inbound);
        let disable_ipv6 = disabled(netbird.disable_ipv6, kept.disable_ipv6);
        if kept.rosenpass_enabled {
            tracing::warn!(
                "the state directory asks for Rosenpass, which this peer does not have: peers that insist on it \
                            are not reached"
            );
        }
        let labels = if netbird.extra_dns_labels.is_empty() { &kept.dns_labels } else { &netbird.extra_dns_labels };
        let flags = Flags {
            disable_client_routes: true,
            disable_server_routes,
            disable_dns: true,
            disable_firewall,
            block_inbound,
            lazy_connection_enabled: netbird.lazy_connections == Some(true),
            disable_ipv6,
            ..Flags::default()
        };
        Ok(Self {
            private_key: private_key.clone(),
            management: server("the management URL", url.unwrap_or(DEFAULT_MANAGEMENT))?,
            hostname: given(netbird.hostname.as_ref()).map(str::to_owned),
            interface_name: given(netbird.interface_name.as_ref())
                .or(kept.interface_name.as_deref())
                .unwrap_or(DEFAULT_INTERFACE)
                .to_owned(),
            listen_port: match netbird.wireguard_port {
                Some(port) => ListenPort::Exactly(port),
                None => ListenPort::Preferably(kept.listen_port.unwrap_or(DEFAULT_PORT)),
            },
            mtu: netbird.mtu.or(kept.mtu.filter(|mtu| *mtu != DEFAULT_MTU)),
            preshared_key: preshared_key(netbird)?.or_else(|| kept.preshared_key.clone()),
            dns_labels: labels.iter().filter(|label| !label.is_empty()).cloned().collect(),
            ca_files: netbird.ca_files.iter().filter(|path| !path.as_os_str().is_empty()).cloned().collect(),
            uplinks: uplinks(&args.uplinks),
            server_routes: !disable_server_routes && !disable_firewall,
            block_inbound,
            ipv6: !disable_ipv6,
            lazy: netbird.lazy_connections,
            lazy_inactivity: netbird.lazy_inactivity,
            ice: ice(netbird)?,
            keepalive: KEEPALIVE,
            ephemeral: match netbird.ephemeral {
                EphemeralChoice::Auto => Ephemeral::Auto,
                EphemeralChoice::Yes => Ephemeral::Yes,
                EphemeralChoice::No => Ephemeral::No,
            },
            max_stale_map: netbird.max_stale_map,
            setup_key: setup_key(netbird)?,
            flags,
        })
    }

    /// MTU of the device, if the server says `said`.
    pub(super) fn mtu(&self, said: Option<u16>) -> u16 {
        self.mtu.or(said).unwrap_or(DEFAULT_MTU)
    }
}

impl SetupKeySource {
    /// The key as it is now.
    ///
    /// # Errors
    /// When the file cannot be read, or what is in it is no key.
    pub(super) fn read(&self) -> Result<Option<SetupKey>, BadSetting> {
        match self {
            Self::Nowhere => Ok(None),
            Self::Given(key) => Ok(Some(key.clone())),
            Self::File(path) => {
                let wrong =
                    |why: String| BadSetting { field: "--setup-key-file", why: format!("{}: {why}", path.display()) };
                // Read again at each try, so not from a pipe: it would be empty then, or wait for whoever writes.
                let bytes = match peer_identity::read_file(path, MAX_SETUP_KEY_FILE) {
                    Ok(bytes) => bytes.ok_or_else(|| wrong("no such file".to_owned()))?,
                    Err(error) => return Err(BadSetting { field: "--setup-key-file", why: error.to_string() }),
                };
                let text = str::from_utf8(&bytes).map_err(|_| wrong("not UTF-8".to_owned()))?;
                text.parse().map(Some).map_err(|error| wrong(format!("{error}")))
            }
        }
    }
}

/// An empty variable says nothing.
fn given(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// An empty variable names none.
fn uplinks(names: &[String]) -> UplinkChoice {
    let mut names: Vec<_> = names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    match names.len() {
        0 => UplinkChoice::Auto,
        1 => UplinkChoice::Named(names.remove(0)),
        _ => UplinkChoice::Among(names),
    }
}

fn server(field: &'static str, url: &str) -> Result<ServerUrl, BadSetting> {
    url.parse().map_err(|error| BadSetting { field, why: format!("{error}") })
}

fn setup_key(args: &NetBirdArgs) -> Result<SetupKeySource, BadSetting> {
    if let Some(key) = given(args.setup_key.as_ref()) {
        let wrong = |error| BadSetting { field: "--setup-key (NB_SETUP_KEY)", why: format!("{error}") };
        return key.parse().map(SetupKeySource::Given).map_err(wrong);
    }
    let file = args.setup_key_file.clone().filter(|path| !path.as_os_str().is_empty());
    Ok(file.map_or(SetupKeySource::Nowhere, SetupKeySource::File))
}

fn preshared_key(args: &NetBirdArgs) -> Result<Option<PresharedKey>, BadSetting> {
    let wrong = |error| BadSetting { field: "--preshared-key (NB_PRESHARED_KEY)", why: format!("{error}") };
    given(args.preshared_key.as_ref()).map(|text| text.parse().map_err(wrong)).transpose()
}

fn ice(args: &NetBirdArgs) -> Result<Option<IceSettings>, BadSetting> {
    let seconds = |seconds: u16| Duration::from_secs(seconds.into());
    let names = |names: &[String]| -> Vec<String> {
        names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    };
    let external = names(&args.external_ip_map).iter().map(|text| external_ip(text)).collect::<Result<_, _>>()?;
    let timing = peer_ice::Settings {
        keepalive: seconds(args.ice_keep_alive_interval),
        disconnected: seconds(args.ice_disconnected_timeout),
        failed: seconds(args.ice_failed_timeout),
        ..peer_ice::Settings::default()
    };
    let interfaces =
        interfaces::Choice { only: names(&args.ice_interfaces), never: names(&args.extra_iface_blacklist), external };
    let relays_only = args.force_relay == Some(true) || args.force_turn == Some(true);
    Ok((!relays_only).then_some(IceSettings { timing, interfaces }))
}

/// `PUBLIC`, `PUBLIC/LOCAL` or `PUBLIC/DEVICE`.
fn external_ip(text: &str) -> Result<External, BadSetting> {
    let wrong = |what: &str| BadSetting {
        field: "--external-ip-map (NB_EXTERNAL_IP_MAP)",
        why: format!(
            "{text:?}: {what}; write PUBLIC, PUBLIC/LOCAL or PUBLIC/DEVICE, such as 203.0.113.7/192.168.1.7 or 203.0.113.7/eth0"
        ),
    };
    let (external, local) = match text.split_once('/') {
        Some((external, local)) => (external, Some(local)),
        None => (text, None),
    };
    let external: IpAddr = external.parse().map_err(|_| wrong("the public address cannot be read"))?;
    let leads_to = match local.map(|local| (local, local.parse::<IpAddr>())) {
        None => LeadsTo::Any,
        Some((_, Ok(local))) if local.is_ipv4() != external.is_ipv4() => {
            return Err(wrong("both addresses must be of one family"));
        }
        Some((_, Ok(local))) => LeadsTo::Address(local),
        Some((device, Err(_))) if device.is_empty() || device.contains([':', '/', ' ']) || device.len() > 15 => {
            return Err(wrong("what stands behind the slash is neither an address nor a device"));
        }
        Some((device, Err(_))) => LeadsTo::Device(device.to_owned()),
    };
    Ok(External { external, leads_to })
}

fn no_lan_block(field: &'static str) -> BadSetting {
    let why = "networks that the node itself is in cannot be left out yet: leave them out of the routes instead, and set it to false";
    BadSetting { field, why: why.to_owned() }
}

#[cfg(test)]
mod precedence;
#[cfg(test)]
mod tests;
