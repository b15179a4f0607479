//! Facts that rarely change: kernel, distribution, hardware, surroundings.

use std::fs;
use std::path::Path;

use crate::proto::management::Environment;

/// Longest text taken from a file, bytes.
const LONGEST: usize = 256;

pub(super) struct Machine {
    pub(super) hostname: String,
    pub(super) kernel: String,
    pub(super) kernel_version: String,
    pub(super) platform: String,
    pub(super) os: String,
    pub(super) os_version: String,
    pub(super) serial_number: String,
    pub(super) product_name: String,
    pub(super) manufacturer: String,
    pub(super) environment: Environment,
}

impl Machine {
    pub(super) fn read(root: &Path) -> Self {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let kernel = text(uname.sysname());
        let (os, os_version) = distribution(root);
        let dmi = Dmi { root };
        Self {
            hostname: text(uname.nodename()),
            kernel_version: text(uname.release()),
            platform: text(uname.machine()),
            os: if os.is_empty() { kernel.clone() } else { os },
            os_version,
            kernel,
            serial_number: dmi.serial_number(),
            product_name: dmi.first(&["product_name", "board_name"]),
            manufacturer: dmi.first(&["sys_vendor"]),
            environment: Environment { cloud: dmi.cloud().to_owned(), platform: container(root).to_owned() },
        }
    }
}

/// Name and version of the distribution (os-release(5)).
fn distribution(root: &Path) -> (String, String) {
    let text =
        ["etc/os-release", "usr/lib/os-release"].iter().find_map(|path| fs::read_to_string(root.join(path)).ok());
    let text = text.unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        bounded(line.unwrap_or_default().trim().trim_matches(['"', '\'']))
    };
    (value("NAME"), value("VERSION_ID"))
}

/// The firmware's words about the machine.
struct Dmi<'a> {
    root: &'a Path,
}

impl Dmi<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join("sys/class/dmi/id").join(name)).ok()?;
        let text = text.trim();
        (!text.is_empty() && text.is_ascii()).then(|| bounded(text))
    }

    fn first(&self, names: &[&str]) -> String {
        names.iter().find_map(|name| self.value(name)).unwrap_or_default()
    }

    /// The chassis' or the product's; the board's where those are missing. Root alone may read them.
    fn serial_number(&self) -> String {
        let serials = ["chassis_serial", "product_serial", "board_serial"];
        let real = serials.iter().find_map(|name| self.value(name).filter(|serial| serial != "Default string"));
        real.unwrap_or_else(|| self.first(&serials))
    }

    /// The provider by what it writes into its firmware. Its metadata service would know more; a router has no business
    /// asking it.
    fn cloud(&self) -> &'static str {
        let vendor = self.first(&["sys_vendor"]);
        let is = |name: &str| vendor.contains(name);
        match () {
            () if is("Amazon") => "AWS",
            () if is("Google") => "Google Cloud Platform",
            () if is("Alibaba") => "Alibaba Cloud",
            () if is("DigitalOcean") => "Digital Ocean",
            () if is("Vultr") => "Vultr",
            // Hyper-V on anybody's desk has the same vendor; Azure's chassis has this tag.
            () if self.value("chassis_asset_tag").is_some_and(|tag| tag == "7783-7084-3265-9085-8269-3286-77") => {
                "Microsoft Azure"
            }
            () if self.value("chassis_asset_tag").is_some_and(|tag| tag == "OracleCloud.com") => "Oracle",
            () => "",
        }
    }
}

fn container(root: &Path) -> &'static str {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        "Kubernetes"
    } else if root.join(".dockerenv").exists() || root.join("run/.containerenv").exists() {
        "Docker"
    } else {
        ""
    }
}

fn bounded(text: &str) -> String {
    text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= LONGEST).map(|(_, c)| c).collect()
}
