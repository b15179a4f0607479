//! What a confined process may and may not do, tried in a process of its own: what is given up does not come back.

mod sys;

use std::collections::BTreeMap;
use std::ffi::c_long;
use std::fs;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use peer_confine::{DENIED, Measure};

/// Says to this program which part of a test to play.
const ROLE: &str = "PEER_CONFINE_TEST_ROLE";
const SECRET: &str = "8BFA8AB0-0000-4000-8000-C0FFEE000001";

/// This program again, with one test only, in `role`.
fn play(role: &str, more: &[&str]) -> Output {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", "role", "--nocapture", "--test-threads=1"]).args(more).env(ROLE, role);
    let output = command.env("NB_SETUP_KEY", SECRET).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("PLAYED"),
        "{role}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The part itself; nothing when nobody asks for one.
#[test]
fn role() {
    match std::env::var(ROLE).as_deref() {
        Ok("calls") => calls(),
        Ok("threads") => threads(),
        Ok("secrets") => secrets(),
        Ok("forbidden") => forbidden(),
        _ => return,
    }
    println!("PLAYED");
}

#[test]
fn each_denied_call_is_refused_and_was_not_before() {
    play("calls", &[]);
}

#[test]
fn threads_of_before_and_after_are_confined() {
    play("threads", &[]);
}

#[test]
fn where_a_container_forbids_the_filter_the_rest_is_in_force() {
    play("forbidden", &[]);
}

#[test]
fn secrets_leave_command_line_and_environment() {
    play("secrets", &["--skip", SECRET]);
}

fn calls() {
    // Arguments that no call takes: without the filter they are bad pointers, descriptors and flags. Not tried before:
    // what has no arguments, and what would take these.
    let harmless = |name: &str| !["fork", "vfork", "vhangup", "personality"].contains(&name);
    let errno = |number: c_long| sys::call(number).err().and_then(|error| error.raw_os_error());
    let before: BTreeMap<_, _> =
        DENIED.iter().filter(|(name, _)| harmless(name)).map(|(name, number)| (*name, errno(*number))).collect();
    // A container's own filter, or a missing capability, refuses some of them already.
    let open = |name: &str| before[name] != Some(libc::EPERM);
    assert!(["execve", "execveat", "setns", "process_vm_readv"].iter().all(|name| open(name)), "{before:?}");

    let lapses = peer_confine::confine();
    assert!(lapses.is_empty(), "{lapses:?}");
    assert!(peer_confine::look().iter().all(|(_, in_force)| *in_force), "{:?}", peer_confine::look());

    for (name, number) in DENIED {
        assert_eq!(errno(*number), Some(libc::EPERM), "{name}");
    }
    let wanted = [
        "execve",
        "execveat",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "kexec_file_load",
        "keyctl",
        "add_key",
        "request_key",
        "unshare",
        "setns",
        "userfaultfd",
        "perf_event_open",
        "io_uring_setup",
        "personality",
        "reboot",
        "swapon",
        "swapoff",
        "acct",
        "settimeofday",
        "clock_settime",
        "adjtimex",
        "sethostname",
        "quotactl",
        "open_by_handle_at",
        "name_to_handle_at",
        "chroot",
        "process_madvise",
        "pidfd_getfd",
        "kcmp",
        "lookup_dcookie",
    ];
    for name in wanted {
        assert!(DENIED.iter().any(|(denied, _)| *denied == name), "{name} is not on the list");
    }
    // As people would do it.
    let refused = Command::new("/bin/true").status().expect_err("no program starts");
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    assert_eq!(errno(libc::SYS_clone), Some(libc::EPERM), "all flags are set: namespaces among them");
    assert_eq!(errno(libc::SYS_clone3), Some(libc::ENOSYS));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(errno(0x4000_0000 + 520), Some(libc::EPERM), "execve of the x32 ABI");
    // What is not on the list works: threads, files, sockets.
    thread::spawn(|| fs::read("/proc/self/stat").expect("files")).join().expect("threads");
    std::net::UdpSocket::bind("127.0.0.1:0").expect("sockets");
}

fn threads() {
    let (ask, asked) = mpsc::channel::<()>();
    let before = thread::spawn(move || {
        asked.recv().expect("asked");
        status("Seccomp")
    });
    let lapses = peer_confine::confine();
    assert!(lapses.is_empty(), "{lapses:?}");
    ask.send(()).expect("it waits");
    assert_eq!(before.join().expect("it ends"), "2", "a thread of before");
    let after = thread::spawn(|| ["Seccomp", "NoNewPrivs", "CapBnd", "CapAmb", "CapInh"].map(status));
    let [seccomp, privileges, sets @ ..] = after.join().expect("it ends");
    assert_eq!((seccomp.as_str(), privileges.as_str()), ("2", "1"));
    assert_eq!(&sets[1..], ["0000000000000000", "0000000000000000"]);
    peer_confine::settle(false).expect("less");
    let held = u64::from_str_radix(&status("CapPrm"), 16).expect("a mask");
    assert_eq!(held & !(1 << 12 | 1 << 39), 0, "NET_ADMIN and BPF: {held:#x}");
    assert_eq!(u64::from_str_radix(&status("CapEff"), 16).expect("a mask"), held);
}

fn forbidden() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    let errno = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().expect("an architecture");
    let rules = [(libc::SYS_seccomp, Vec::new())].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    apply_filter(&program).expect("applied");

    let lapses = peer_confine::confine();
    assert_eq!(lapses.iter().map(|lapse| lapse.measure).collect::<Vec<_>>(), [Measure::Seccomp]);
    let text = lapses[0].to_string();
    assert!(text.contains("seccomp") && text.contains(Measure::Seccomp.remedy()), "{text}");
    let missing: Vec<_> = peer_confine::look().into_iter().filter(|(_, in_force)| !in_force).collect();
    assert_eq!(missing, [(Measure::Seccomp, false)], "although there is a filter: not this one");
}

fn secrets() {
    let shown = |file: &str| {
        let bytes = fs::read(format!("/proc/self/{file}")).expect("proc");
        String::from_utf8_lossy(&bytes).matches(SECRET).count()
    };
    assert_eq!((shown("cmdline"), shown("environ")), (1, 1));
    peer_confine::conceal(&[SECRET, "up"]).expect("concealed");
    assert_eq!((shown("cmdline"), shown("environ")), (0, 0));
    let asterisks = "*".repeat(SECRET.len());
    assert_eq!(std::env::args().next_back(), Some(asterisks.clone()));
    assert_eq!(std::env::var("NB_SETUP_KEY"), Ok(asterisks));
    assert!(std::env::var(ROLE).is_ok(), "the rest stays");
}

fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect(field);
    line.trim().to_owned()
}

/// What `doctor` tells an admin.
#[test]
fn a_process_that_was_not_confined_says_so() {
    let seccomp = peer_confine::look().into_iter().find(|(measure, _)| *measure == Measure::Seccomp);
    assert_eq!(seccomp, Some((Measure::Seccomp, false)));
}
