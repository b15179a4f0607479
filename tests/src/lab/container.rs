//! The daemon in a container: an image that podman runs as a node's kubelet would.
//!
//! Storage lies below `target/`, what podman keeps at run time in the node's own `/run`. Container and monitor are in a
//! PID namespace whose first process dies with the thread that started it, and take their mounts along; the control
//! groups that they leave are removed at the end.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::binaries::{named_by, target_directory};
use super::command::run;
use super::namespace::Namespace;
use super::traffic::wait_for;

/// What the `DaemonSet` gives the daemon, and no more.
pub const DEPLOYED: [&str; 3] = ["NET_ADMIN", "BPF", "PERFMON"];

const DAEMON: &str = "/usr/local/bin/peer-daemon";
/// The name of the container; its storage has no other.
const NAME: &str = "peer";
/// Of podman, in the node's own `/run`.
const RUN: &str = "/run/lab/podman";
/// A container that was killed may take so long to be gone, with its devices and maps, on a busy machine.
const LEFT: Duration = Duration::from_secs(20);
/// Its profile of system calls.
const SECCOMP: &str = "/usr/share/containers/seccomp.json";
/// Where podman remembers which layers it has seen, whatever its storage; hidden from it.
const MEMORY: &str = "/var/lib/containers";

/// An image, loaded into a storage of its own, which is removed with it.
#[derive(Debug)]
pub struct Image {
    storage: PathBuf,
    /// As podman knows it.
    name: String,
    /// Control group of what runs from it.
    control_group: String,
    /// Whether the machine had no [`MEMORY`] before.
    made: bool,
}

impl Image {
    /// The archives named by `$PEER_IMAGE` and `$PEER_IMAGE_TOOLS`; `None` without these variables.
    ///
    /// # Errors
    /// A variable names no file.
    pub fn find() -> Result<Option<[PathBuf; 2]>> {
        let found = [named_by("PEER_IMAGE")?, named_by("PEER_IMAGE_TOOLS")?];
        let [Some(minimal), Some(tools)] = found else { return Ok(None) };
        Ok(Some([minimal, tools]))
    }

    /// Loads an OCI archive.
    ///
    /// # Errors
    /// podman is missing or refuses it.
    pub fn load(archive: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let number = format!("{}-{number}", std::process::id());
        let storage = target_directory().join("lab-podman").join(&number);
        fs::create_dir_all(storage.join("temp")).with_context(|| format!("make {}", storage.display()))?;
        let profile =
            fs::read_to_string(SECCOMP).with_context(|| format!("read {SECCOMP}, which comes with podman"))?;
        let made = fs::create_dir(MEMORY).is_ok();
        let mut image = Self { storage, name: String::new(), control_group: format!("peer-lab-{number}"), made };
        fs::write(image.seccomp(), runtime_default(&profile)?).context("write the seccomp profile")?;
        let namespace = Namespace::new("podman")?;
        let mut load = image.podman(&namespace);
        let finished = run(load.args(["load", "--quiet", "--input"]).arg(archive))?;
        let said = || format!("podman load {}: {}{}", archive.display(), finished.stdout, finished.stderr);
        let name = finished.stdout.trim().strip_prefix("Loaded image: ").filter(|_| finished.status.success());
        name.with_context(said)?.clone_into(&mut image.name);
        Ok(image)
    }

    /// podman with this storage, alone in a PID namespace; its arguments are still to be added.
    fn podman(&self, namespace: &Namespace) -> Command {
        // runc looks for control groups, which this `/sys` lacks; what podman shares and remembers is to be gone at the end.
        const PREPARE: &str = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount -t tmpfs tmpfs /dev/shm && \
                               mount -t tmpfs tmpfs /var/lib/containers && exec \"$@\"";
        let mut command = namespace.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        command.args(["sh", "-c", PREPARE, "sh", "podman"]).args(self.globals());
        command.env("TMPDIR", self.storage.join("temp")).env_remove("NOTIFY_SOCKET");
        command
    }

    /// System calls that containers may make.
    fn seccomp(&self) -> PathBuf {
        self.storage.join("seccomp.json")
    }

    fn globals(&self) -> Vec<String> {
        let root = self.storage.join("root");
        let mut words = vec![format!("--root={}", root.display())];
        words.extend([format!("--runroot={RUN}/root"), format!("--tmpdir={RUN}/temp")]);
        words.extend(["--storage-driver=vfs", "--runtime=runc", "--cgroup-manager=cgroupfs"].map(str::to_owned));
        words.push("--events-backend=none".to_owned());
        words
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // What cannot be removed lies below target/, where it harms nobody.
        let _ = fs::remove_dir_all(&self.storage);
        let _ = self.storage.parent().map(fs::remove_dir);
        if self.made {
            let _ = fs::remove_dir(MEMORY);
        }
    }
}

/// How the daemon is run.
#[derive(Debug)]
pub struct Container {
    /// What is run.
    pub image: Image,
    /// User and group; `None`: the image's.
    pub user: Option<&'static str>,
    /// All that it may do, without `CAP_`.
    pub capabilities: Vec<&'static str>,
    /// Whether it has `/dev/net/tun`.
    pub tun: bool,
    /// Whether it has the node's bpffs.
    pub bpffs: bool,
    /// More options of `podman run`.
    pub options: Vec<String>,
}

impl Container {
    /// Where it finds its state.
    pub const STATE: &str = "/var/lib/netbird";
    /// Where it finds the node's bpffs.
    pub const BPFFS: &str = "/run/bpf";
    /// The device by which it makes the mesh device.
    pub const TUN: &str = "/dev/net/tun";

    /// As the `DaemonSet` runs it: root with three capabilities, on a read-only root.
    #[must_use]
    pub fn deployed(image: Image) -> Self {
        let (user, capabilities) = (Some("0:0"), DEPLOYED.to_vec());
        Self { image, user, capabilities, tun: true, bpffs: true, options: Vec::new() }
    }

    /// The daemon, with `arguments` and `environment`, to be started. It sees the node's state, bpffs and files `shared` at
    /// the same path.
    pub(crate) fn up_command(
        &self,
        node: &Namespace,
        places: &Places<'_>,
        arguments: &[String],
        environment: &[(&str, &str)],
    ) -> Command {
        let mut command = self.image.podman(node);
        command.args(["run", "--rm", "--name", NAME, "--network=host"]);
        command.arg(format!("--cgroup-parent=/{}", self.image.control_group));
        // Containers of this machine cannot raise limits, nor can they be counted in every kind of control group.
        command.args(["--ulimit=host", "--pids-limit=0", "--log-driver=none"]);
        command.args(["--read-only", "--read-only-tmpfs=false", "--security-opt=no-new-privileges"]);
        command.arg(format!("--security-opt=seccomp={}", self.image.seccomp().display())).arg("--cap-drop=ALL");
        command.args(self.capabilities.iter().map(|name| format!("--cap-add={name}")));
        command.args(self.user.map(|user| format!("--user={user}")));
        let mut mount = |from: &Path, to: &str, how: &str| {
            command.arg(format!("--volume={}:{to}{how}", from.display()));
        };
        mount(places.state, Self::STATE, "");
        if self.bpffs {
            mount(places.bpffs, Self::BPFFS, "");
        }
        if self.tun {
            mount(Path::new(Self::TUN), Self::TUN, "");
        }
        for file in places.shared {
            mount(file, &file.to_string_lossy(), ":ro");
        }
        command.arg(format!("--env=NB_BPFFS={}", Self::BPFFS));
        // As the manifests.
        command.arg("--env=NB_REQUIRE_PINS=true");
        command.args(environment.iter().map(|(name, value)| format!("--env={name}={value}")));
        command.args(&self.options).arg(&self.image.name).args(arguments);
        command
    }

    /// A program in the container that `podman` (its process) runs, with the daemon's user and capabilities.
    pub(crate) fn exec_command(&self, node: &Namespace, podman: u32, program: &[&str]) -> Command {
        let mut command = node.command("nsenter");
        command.args(["--target", &podman.to_string(), "--mount", "--pid", "--"]);
        command.arg("podman").args(self.image.globals()).args(["exec", NAME]).args(program);
        command
    }

    /// The daemon's own command line in the container.
    pub(crate) fn daemon_command(&self, node: &Namespace, podman: u32, arguments: &[&str]) -> Command {
        self.exec_command(node, podman, &[&[DAEMON], arguments].concat())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = remove_control_group(&self.image.control_group) {
            eprintln!("a control group is left behind: {error:#}");
        }
    }
}

/// Where the daemon's things are on the node.
pub(crate) struct Places<'a> {
    pub(crate) state: &'a Path,
    pub(crate) bpffs: &'a Path,
    /// Files that it reads.
    pub(crate) shared: &'a [&'a Path],
}

/// The profile `RuntimeDefault` of a node's container runtime, made from podman's, which differs in that it knows
/// `CAP_SYS_ADMIN` only.
fn runtime_default(podmans: &str) -> Result<String> {
    const BY: [(&str, &str); 2] = [("bpf", "CAP_BPF"), ("perf_event_open", "CAP_PERFMON")];
    let mut profile: Value = serde_json::from_str(podmans).context("podman's seccomp profile")?;
    let rules = profile["syscalls"].as_array_mut().context("podman's seccomp profile has no rules")?;
    for rule in rules.iter_mut() {
        if let Some(names) = rule["names"].as_array_mut() {
            names.retain(|name| BY.iter().all(|(call, _)| name != call));
        }
    }
    let allow = |(call, capability)| json!({"names": [call], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {"caps": [capability]}});
    rules.extend(BY.map(allow));
    Ok(profile.to_string())
}

/// Once nothing is in it any more.
fn remove_control_group(name: &str) -> Result<()> {
    let namespace = Namespace::new("control groups")?;
    // Anew at each try it would be refused: the same is mounted there already.
    namespace.exec("mount", &["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"])?;
    let group = Path::new("/sys/fs/cgroup").join(name);
    let mut outcome = Ok(());
    let removed = wait_for(LEFT, || {
        outcome = namespace.enter(|| remove_groups(&group));
        outcome.is_ok()
    });
    ensure!(removed, "{name}: {outcome:?}");
    Ok(())
}

/// A control group and all below it; the files in them go with them.
fn remove_groups(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_is_for_those_with_its_capability() {
        let rule = |action: &str| json!({"names": ["bpf", "setns"], "action": action});
        let podmans = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("SCMP_ACT_ALLOW")]});
        let profile: Value =
            serde_json::from_str(&runtime_default(&podmans.to_string()).expect("a profile")).expect("JSON");
        assert_eq!(profile["syscalls"][0]["names"], json!(["setns"]));
        assert_eq!(profile["syscalls"][1]["names"], json!(["bpf"]));
        assert_eq!(profile["syscalls"][1]["includes"]["caps"], json!(["CAP_BPF"]));
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        runtime_default("{}").expect_err("no rules");
    }
}
