//! What belongs to the process as a whole.

use rustix::io;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::set_no_new_privs;

pub(crate) fn no_new_privileges() -> io::Result<()> {
    set_no_new_privs(true)
}

/// `/proc/PID` then belongs to root, and `ptrace` needs `CAP_SYS_PTRACE`. The process's own `/proc/self` stays readable.
pub(crate) fn not_dumpable() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

pub(crate) fn is_not_dumpable() -> bool {
    dumpable_behavior().is_ok_and(|behavior| behavior == DumpableBehavior::NotDumpable)
}

/// The hard limit as well, which cannot be raised again without `CAP_SYS_RESOURCE`. Not dumpable says the same to the
/// kernel; this holds where a handler of cores reads the limit.
pub(crate) fn no_core() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}

pub(crate) fn has_no_core() -> bool {
    getrlimit(Resource::Core).maximum == Some(0)
}
