//! What an engine lets the kernel drop of its datagrams before they are received: classic BPF programs for sockets, which
//! take no capability (Linux, `Documentation/networking/filter.rst`).

/// One instruction, as `struct sock_filter` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions are passed over when a condition holds.
    pub if_true: u8,
    /// And when it does not.
    pub if_false: u8,
    /// The operand.
    pub operand: u32,
}

/// Programs for the sockets of both families. What they see begins with the UDP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filters {
    /// For the IPv4 socket.
    pub v4: Box<[Instruction]>,
    /// For the IPv6 socket.
    pub v6: Box<[Instruction]>,
}

/// What is to become of the filters of a shard's sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterChange {
    /// These, in place of those before.
    Attach(Filters),
    /// None.
    Detach,
}
