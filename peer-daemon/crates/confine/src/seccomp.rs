//! A list of system calls that the process never makes, and that are what a taken-over one would want.
//!
//! A deny list, because a library's next release may well use a call that no test of ours has seen, and traffic must not
//! stop for that; the allow list is in the systemd unit, where the admin may widen it. For the same reason a denied call
//! fails with `EPERM` instead of ending the process: it is denied either way. Calls by another architecture's table (32 bits)
//! end the process. The kernel remembers which numbers are always allowed (Linux 5.11), so that reading and writing
//! packets costs nothing more.

use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};

/// The filter could not be installed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SeccompError(#[from] seccompiler::Error);

/// Names and numbers on this architecture, of those that are denied whatever their arguments.
///
/// `bpf` is needed. `clone` is denied for processes and namespaces and allowed for threads; `clone3`, whose arguments no
/// filter sees, does not exist (`ENOSYS`), and the C library falls back to `clone`.
pub const DENIED: &[(&str, c_long)] = &[
    // Other programs and other processes.
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    #[cfg(target_arch = "x86_64")]
    ("fork", libc::SYS_fork),
    #[cfg(target_arch = "x86_64")]
    ("vfork", libc::SYS_vfork),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("process_madvise", libc::SYS_process_madvise),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("kcmp", libc::SYS_kcmp),
    ("migrate_pages", libc::SYS_migrate_pages),
    ("move_pages", libc::SYS_move_pages),
    // The tree of files, and ways around it.
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("move_mount", libc::SYS_move_mount),
    ("open_tree", libc::SYS_open_tree),
    ("open_tree_attr", OPEN_TREE_ATTR),
    ("fsopen", libc::SYS_fsopen),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fspick", libc::SYS_fspick),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("quotactl", libc::SYS_quotactl),
    ("quotactl_fd", libc::SYS_quotactl_fd),
    ("swapon", libc::SYS_swapon),
    ("swapoff", libc::SYS_swapoff),
    ("acct", libc::SYS_acct),
    // Namespaces.
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    // The kernel's code, and large parts of it that are not needed.
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("kexec_load", libc::SYS_kexec_load),
    ("kexec_file_load", libc::SYS_kexec_file_load),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("keyctl", libc::SYS_keyctl),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("lookup_dcookie", libc::SYS_lookup_dcookie),
    ("nfsservctl", libc::SYS_nfsservctl),
    ("personality", libc::SYS_personality),
    #[cfg(target_arch = "x86_64")]
    ("modify_ldt", libc::SYS_modify_ldt),
    #[cfg(target_arch = "x86_64")]
    ("uselib", libc::SYS_uselib),
    #[cfg(target_arch = "x86_64")]
    ("_sysctl", libc::SYS__sysctl),
    // The machine.
    ("reboot", libc::SYS_reboot),
    ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime),
    ("adjtimex", libc::SYS_adjtimex),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("sethostname", libc::SYS_sethostname),
    ("setdomainname", libc::SYS_setdomainname),
    ("syslog", libc::SYS_syslog),
    ("vhangup", libc::SYS_vhangup),
    #[cfg(target_arch = "x86_64")]
    ("iopl", libc::SYS_iopl),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", libc::SYS_ioperm),
];

/// Linux 6.15, the same number everywhere; the libc crate does not have it yet.
const OPEN_TREE_ATTR: c_long = 467;

/// Flags of `clone` that make namespaces. `CLONE_NEWTIME` is one of `clone3` only.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

static INSTALLED: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_installed() -> bool {
    INSTALLED.load(Ordering::Relaxed)
}

/// Installs the filters in every thread. They cannot be removed.
pub(crate) fn install() -> Result<(), SeccompError> {
    for program in programs().map_err(seccompiler::Error::from)? {
        apply_filter_all_threads(&program)?;
    }
    INSTALLED.store(true, Ordering::Relaxed);
    Ok(())
}

/// The kernel asks all of them, and the strictest answer counts.
fn programs() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = |rules: Vec<(c_long, Vec<SeccompRule>)>, errno: i32| {
        let answer = SeccompAction::Errno(errno.cast_unsigned());
        SeccompFilter::new(rules.into_iter().collect(), SeccompAction::Allow, answer, arch)?.try_into()
    };
    let mut rules: Vec<_> = DENIED.iter().map(|&(_, number)| (number, Vec::new())).collect();
    rules.push((libc::SYS_clone, no_thread()?));
    let mut programs = vec![filter(rules, libc::EPERM)?, filter(vec![(libc::SYS_clone3, Vec::new())], libc::ENOSYS)?];
    #[cfg(target_arch = "x86_64")]
    programs.push(no_x32());
    programs.reverse();
    Ok(programs)
}

/// `clone` without CLONE_THREAD, or with a new namespace. Its first argument is its flags on both architectures.
fn no_thread() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let flags = |mask: libc::c_int, value: libc::c_int| {
        let (mask, value) = (u64::from(mask.cast_unsigned()), u64::from(value.cast_unsigned()));
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)?;
        SeccompRule::new(vec![condition])
    };
    let process = flags(libc::CLONE_THREAD, 0);
    std::iter::once(process).chain(NAMESPACES.iter().map(|&flag| flags(flag, flag))).collect()
}

/// The x32 ABI has the architecture of x86-64 and numbers of its own, which a list of numbers would let pass.
#[cfg(target_arch = "x86_64")]
fn no_x32() -> BpfProgram {
    use seccompiler::sock_filter;

    /// `__X32_SYSCALL_BIT` of asm/unistd.h.
    const X32: u32 = 0x4000_0000;
    /// Of `struct seccomp_data`: the number comes first.
    const NUMBER: u32 = 0;
    let step = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_call_is_there_once_and_none_that_is_needed() {
        let numbers: BTreeSet<_> = DENIED.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers.len(), DENIED.len());
        for needed in [libc::SYS_bpf, libc::SYS_clone, libc::SYS_read, libc::SYS_sendmmsg, libc::SYS_futex] {
            assert!(!numbers.contains(&needed));
        }
    }

    /// The kernel takes 4096 instructions for one program, 32768 for all of a process.
    #[test]
    fn programs_are_small() {
        let programs = programs().expect("they compile");
        assert!(programs.iter().all(|program| !program.is_empty()));
        assert!(programs.iter().map(Vec::len).sum::<usize>() < 1000);
    }
}
