//! Namespaces without a name.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::command::{Finished, run};
use crate::sys::{namespace as sys, process};

/// Network namespace with its own mounts: an empty `/run` (so that `WireGuard` control sockets are its own), a `/sys`
/// that shows its devices. It exists as long as this value, its clones, or a process in it.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    net: OwnedFd,
    mounts: OwnedFd,
}

impl Namespace {
    /// Makes one, with loopback up.
    ///
    /// # Errors
    /// Needs root, or `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`.
    pub fn new(name: &str) -> Result<Self> {
        let (net, mounts) = apart(unshare).with_context(|| format!("make namespace {name} (this needs root)"))?;
        let this = Self { inner: Arc::new(Inner { name: name.to_owned(), net, mounts }) };
        ensure!(this.id()? != own_id()?, "namespace {name} is the one this process is in");
        this.exec("ip", &["link", "set", "lo", "up"])?;
        Ok(this)
    }

    /// Name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Inode that identifies the network namespace.
    ///
    /// # Errors
    /// The descriptor cannot be examined.
    pub fn id(&self) -> Result<u64> {
        Ok(File::from(self.inner.net.try_clone()?).metadata()?.ino())
    }

    /// Path by which `ip … netns` finds it while this process lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.inner.net.as_raw_fd()))
    }

    /// Calls `work` on a thread inside. Sockets made there stay in it; the mounts are its own.
    ///
    /// # Panics
    /// When `work` panics, with its panic; when the thread cannot enter.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        apart(|| {
            sys::enter(self.inner.net.as_fd(), self.inner.mounts.as_fd())
                .unwrap_or_else(|error| panic!("enter namespace {}: {error}", self.inner.name));
            work()
        })
    }

    /// A command that will start inside and die with the calling thread.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let inner = Arc::clone(&self.inner);
        process::confine(&mut command, move || sys::enter(inner.net.as_fd(), inner.mounts.as_fd()));
        command
    }

    /// As [`Self::command`]; besides, `/proc/sys` is read-only for it, as in a container that is not privileged.
    #[must_use]
    pub fn contained_command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let inner = Arc::clone(&self.inner);
        process::confine(&mut command, move || {
            sys::enter(inner.net.as_fd(), inner.mounts.as_fd())?;
            sys::read_only(c"/proc/sys")
        });
        command
    }

    /// Runs a program to its end and returns its standard output.
    ///
    /// # Errors
    /// It does not start, fails, or takes more than a minute.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let Finished { status, stdout, stderr } = run(self.command(program).args(arguments))?;
        ensure!(status.success(), "{}: {program} {}: {status}: {stderr}{stdout}", self.name(), arguments.join(" "));
        Ok(stdout)
    }

    /// Reads a file as it is inside (`/proc/net`, `/run`).
    ///
    /// # Errors
    /// As [`fs::read_to_string`].
    pub fn read(&self, path: &str) -> Result<String> {
        self.enter(|| fs::read_to_string(path.replace("/proc/net", "/proc/thread-self/net")))
            .with_context(|| format!("{}: read {path}", self.name()))
    }

    /// Writes a file inside.
    ///
    /// # Errors
    /// As [`fs::write`].
    pub fn write(&self, path: &Path, content: &str) -> Result<()> {
        self.enter(|| fs::write(path, content)).with_context(|| format!("{}: write {}", self.name(), path.display()))
    }

    /// Mounts a bpffs inside.
    ///
    /// # Errors
    /// The directory cannot be made or mounted on.
    pub fn mount_bpffs(&self, at: &Path) -> Result<()> {
        self.enter(|| {
            fs::create_dir_all(at)?;
            sys::mount(c"bpf", at)
        })
        .with_context(|| format!("{}: mount bpffs at {}", self.name(), at.display()))
    }

    /// Puts an empty directory of its own over one of the machine's, so that what programs write there is theirs alone.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn hide(&self, at: &Path) -> Result<()> {
        self.enter(|| sys::mount(c"tmpfs", at)).with_context(|| format!("{}: hide {}", self.name(), at.display()))
    }

    /// Names of the devices in it, loopback left out.
    ///
    /// # Errors
    /// `/proc/net/dev` cannot be read.
    pub fn devices(&self) -> Result<Vec<String>> {
        let table = self.read("/proc/net/dev")?;
        let names = table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
        Ok(names.filter(|name| name != "lo").collect())
    }

    /// Whether any process of this machine is in a network namespace of this inode, or this one holds it by a descriptor.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn exists(id: u64) -> Result<bool> {
        let held = |entry: io::Result<fs::DirEntry>| {
            let link = entry.ok().and_then(|entry| fs::read_link(entry.path()).ok());
            link.is_some_and(|link| link.as_os_str() == format!("net:[{id}]").as_str())
        };
        let held_here = fs::read_dir("/proc/self/fd")?.any(held);
        Ok(held_here || !Self::processes_in(id)?.is_empty())
    }

    /// Processes of this machine that are in a network namespace of this inode.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn processes_in(id: u64) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
            if fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|space| space.ino() == id) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

fn unshare() -> io::Result<(OwnedFd, OwnedFd)> {
    sys::unshare()?;
    sys::mount(c"tmpfs", Path::new("/run"))?;
    sys::mount(c"sysfs", Path::new("/sys"))?;
    fs::create_dir("/run/wireguard")?;
    fs::create_dir("/run/lab")?;
    Ok((File::open("/proc/thread-self/ns/net")?.into(), File::open("/proc/thread-self/ns/mnt")?.into()))
}

fn own_id() -> Result<u64> {
    Ok(fs::metadata("/proc/self/ns/net").context("own namespace")?.ino())
}

/// Calls `work` on a thread of its own, which takes its namespaces along when it ends.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
