//! The official client's files: its profile, and the configuration in which its key is.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use peer_core::key::{PresharedKey, PrivateKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{Error, StateDir, file};

const PROFILE: &str = "active_profile.json";
const DEFAULT: &str = "default.json";
const LIMIT: u64 = 1 << 20;

/// What the configuration says besides the key, as far as it matters to a routing peer. `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Management, such as `https://api.netbird.io:443`.
    pub management_url: Option<String>,
    /// Mesh device.
    pub interface_name: Option<String>,
    /// WireGuard's UDP port.
    pub listen_port: Option<u16>,
    /// Of the mesh device.
    pub mtu: Option<u16>,
    /// Mixed into every handshake.
    pub preshared_key: Option<PresharedKey>,
    /// DNS labels beyond the host name's.
    pub dns_labels: Vec<String>,
    /// Serve no routes.
    pub disable_server_routes: bool,
    /// Install no rules, and serve no routes.
    pub disable_firewall: bool,
    /// Let nothing in, and serve no routes.
    pub block_inbound: bool,
    /// Serve no networks that the node itself is in.
    pub block_lan_access: bool,
    /// Take no overlay address of IPv6.
    pub disable_ipv6: bool,
    /// Post-quantum keys, which this peer does not have.
    pub rosenpass_enabled: bool,
}

/// The configuration file of the active profile.
pub(crate) fn config_path(dir: &StateDir) -> Result<PathBuf, Error> {
    #[derive(Deserialize)]
    struct Profile {
        #[serde(default, alias = "Name")]
        name: String,
        #[serde(default, alias = "Username")]
        username: String,
    }
    let path = dir.file(PROFILE);
    let default = dir.file(DEFAULT);
    let Some(bytes) = file::read(&path, LIMIT)? else { return Ok(default) };
    let damaged = |why: String| Error::Damaged {
        path: path.clone(),
        field: "name",
        why,
        fix: "delete the file, and the profile \"default\" is taken",
    };
    let profile: Profile =
        serde_json::from_slice(&bytes).map_err(|error| damaged(format!("cannot be read ({error})")))?;
    if profile.name.is_empty() || profile.name == "default" {
        return Ok(default);
    }
    // They become parts of a path.
    let plain = |text: &str| !text.is_empty() && !text.starts_with('.') && !text.contains(['/', '\0']);
    if !plain(&profile.name) || !plain(&profile.username) {
        return Err(damaged(format!("{:?} of user {:?} is no file's name", profile.name, profile.username)));
    }
    Ok(dir.path().join(profile.username).join(format!("{}.json", profile.name)))
}

/// Key and settings in the configuration file at `path`; `None` when there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<(PrivateKey, Settings)>, Error> {
    let Some(bytes) = file::read(path, LIMIT)? else { return Ok(None) };
    parse(path, &bytes).map(Some)
}

/// Writes a configuration that the official client understands as well.
pub(crate) fn create(path: &Path, key: &PrivateKey, management_url: &str) -> Result<(), Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config<'a> {
        private_key: &'a str,
        #[serde(rename = "ManagementURL", skip_serializing_if = "Option::is_none")]
        management_url: Option<Url>,
    }
    let text = key.expose_base64();
    let config = Config { private_key: &text, management_url: Url::parse(management_url) };
    // Room for all of it: a vector that grows would leave copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096 + management_url.len() * 2));
    serde_json::to_writer_pretty(&mut *bytes, &config).map_err(|error| Error::io("write", path)(error.into()))?;
    file::write(path, &[&bytes, b"\n"])
}

/// Copies the configuration of a client that kept it elsewhere, in which `key` was found.
pub(crate) fn copy(from: &Path, to: &Path, key: &PrivateKey) -> Result<(), Error> {
    let gone = || Error::io("read", from)(std::io::ErrorKind::NotFound.into());
    let bytes = file::read(from, LIMIT)?.ok_or_else(gone)?;
    let (found, _) = parse(from, &bytes)?;
    if found.public_key() != key.public_key() {
        return Err(Error::Damaged {
            path: from.to_owned(),
            field: "PrivateKey",
            why: "has changed just now".to_owned(),
            fix: "start the daemon again",
        });
    }
    file::write(to, &[&bytes])
}

/// The text of a secret: borrowed from the file's bytes, or wiped.
#[derive(Default)]
struct Secret<'a>(Cow<'a, str>);

impl<'a, 'de: 'a> Deserialize<'de> for Secret<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        Text::deserialize(deserializer).map(|text| Self(text.0))
    }
}

impl Drop for Secret<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

/// Field names are those of the official client; what it leaves unset is null or absent.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config<'a> {
    #[serde(borrow, default)]
    private_key: Secret<'a>,
    #[serde(borrow, default)]
    pre_shared_key: Secret<'a>,
    #[serde(rename = "ManagementURL", default)]
    management_url: Option<Url>,
    #[serde(default)]
    wg_iface: Option<String>,
    #[serde(default)]
    wg_port: Option<u16>,
    #[serde(rename = "MTU", default)]
    mtu: Option<u16>,
    #[serde(rename = "DNSLabels", default)]
    dns_labels: Option<Vec<String>>,
    #[serde(default)]
    disable_server_routes: bool,
    #[serde(default)]
    disable_firewall: bool,
    #[serde(default)]
    block_inbound: bool,
    #[serde(rename = "BlockLANAccess", default)]
    block_lan_access: bool,
    #[serde(rename = "DisableIPv6", default)]
    disable_ipv6: bool,
    #[serde(default)]
    rosenpass_enabled: bool,
}

/// A URL in its parts.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Url {
    scheme: String,
    host: String,
    #[serde(default)]
    path: String,
}

impl Url {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        Some(Self { scheme: scheme.to_owned(), host: host.to_owned(), path: path.to_owned() })
    }

    fn text(&self) -> String {
        format!("{}://{}{}", self.scheme, self.host, self.path)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<(PrivateKey, Settings), Error> {
    let damaged = |field, why: String| Error::Damaged {
        path: path.to_owned(),
        field,
        why,
        fix: "put the file of the backup back, or delete it: the peer then registers as a new one",
    };
    // The parser's message says where, never what stands there: it may be a key.
    let config: Config<'_> = serde_json::from_slice(bytes).map_err(|error| {
        let kind = if error.is_data() { "has a value of the wrong kind" } else { "is no JSON" };
        damaged("the file", format!("{kind} in line {}, column {}", error.line(), error.column()))
    })?;
    let key = config.private_key.0.parse().map_err(|error| damaged("PrivateKey", format!("is no key ({error})")))?;
    let preshared_key = match &*config.pre_shared_key.0 {
        "" => None,
        text => Some(text.parse().map_err(|error| damaged("PreSharedKey", format!("is no key ({error})")))?),
    };
    let settings = Settings {
        management_url: config.management_url.filter(|url| !url.host.is_empty()).map(|url| url.text()),
        interface_name: config.wg_iface.filter(|name| !name.is_empty()),
        listen_port: config.wg_port,
        mtu: config.mtu.filter(|mtu| *mtu != 0),
        preshared_key,
        dns_labels: config.dns_labels.unwrap_or_default(),
        disable_server_routes: config.disable_server_routes,
        disable_firewall: config.disable_firewall,
        block_inbound: config.block_inbound,
        block_lan_access: config.block_lan_access,
        disable_ipv6: config.disable_ipv6,
        rosenpass_enabled: config.rosenpass_enabled,
    };
    Ok((key, settings))
}

#[cfg(test)]
mod tests;
