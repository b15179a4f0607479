//! Legacy tc filters: what kernels without TCX have, and what others still use.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::sys::TcxHook;

// linux/rtnetlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// `TC_H_CLSACT`, parent of the qdisc; its handle is `ffff:`.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const ETH_P_ALL: u16 = 3;
const NETLINK_HEADER: usize = 16;
const TC_HEADER: usize = 20;

/// A filter as the kernel lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Lower ones run first.
    pub priority: u16,
    /// Its number within the priority.
    pub handle: u32,
    /// `bpf`, `u32`, `flower`, …
    pub kind: String,
    /// What its owner calls it; `bpf` only.
    pub name: Option<String>,
    /// Id of the program; `bpf` only.
    pub program: Option<u32>,
}

/// A netlink socket in the network namespace where it was made.
pub(crate) struct Tc {
    socket: Socket,
    sequence: u32,
}

impl Tc {
    pub(crate) fn connect() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The filters of a hook in the order in which they run. A device that is gone, or has no such qdisc, has none.
    pub(crate) fn filters(&mut self, ifindex: u32, hook: TcxHook) -> io::Result<Vec<Filter>> {
        let header = tc_header(ifindex, 0, parent(hook), 0);
        let messages = match self.ask(RTM_GETTFILTER, NLM_F_DUMP, &header) {
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            messages => messages?,
        };
        Ok(messages
            .iter()
            .filter(|(kind, _)| *kind == RTM_NEWTFILTER)
            .filter_map(|(_, body)| read_filter(body))
            .collect())
    }

    /// Puts a program into the filter of that priority and handle: a new one, or in place of the one that is there.
    pub(crate) fn set_filter(
        &mut self,
        ifindex: u32,
        hook: TcxHook,
        filter: &Filter,
        program: BorrowedFd<'_>,
        replace: bool,
    ) -> io::Result<()> {
        let mut body = tc_header(ifindex, filter.handle, parent(hook), info(filter.priority));
        attribute(&mut body, TCA_KIND, b"bpf\0");
        let mut options = Vec::new();
        attribute(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
        let name = [filter.name.as_deref().unwrap_or_default().as_bytes(), b"\0"].concat();
        attribute(&mut options, TCA_BPF_NAME, &name);
        attribute(&mut options, TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
        attribute(&mut body, TCA_OPTIONS, &options);
        let how = if replace { NLM_F_REPLACE } else { NLM_F_EXCL };
        self.ask(RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE | how, &body).map(drop)
    }

    /// Removes the filter of that priority and handle.
    pub(crate) fn remove_filter(&mut self, ifindex: u32, hook: TcxHook, filter: &Filter) -> io::Result<()> {
        let mut body = tc_header(ifindex, filter.handle, parent(hook), info(filter.priority));
        attribute(&mut body, TCA_KIND, b"bpf\0");
        match self.ask(RTM_DELTFILTER, NLM_F_ACK, &body) {
            Err(error) if is_gone(&error) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Sees to it that the device has the qdisc that filters hang on; `true`: it was made now.
    pub(crate) fn add_clsact(&mut self, ifindex: u32) -> io::Result<bool> {
        let mut body = tc_header(ifindex, CLSACT_HANDLE, CLSACT, 0);
        attribute(&mut body, TCA_KIND, b"clsact\0");
        match self.ask(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => match self.qdisc(ifindex)?.as_deref() {
                Some("clsact") => Ok(false),
                other => Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("a qdisc of kind {} is where clsact belongs", other.unwrap_or("unknown")),
                )),
            },
            Err(error) => Err(error),
        }
    }

    /// Removes the qdisc, and with it whatever hangs on it.
    pub(crate) fn remove_clsact(&mut self, ifindex: u32) -> io::Result<()> {
        match self.ask(RTM_DELQDISC, NLM_F_ACK, &tc_header(ifindex, CLSACT_HANDLE, CLSACT, 0)) {
            Err(error) if is_gone(&error) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Kind of the qdisc that takes the place of clsact.
    fn qdisc(&mut self, ifindex: u32) -> io::Result<Option<String>> {
        let messages = self.ask(RTM_GETQDISC, NLM_F_DUMP, &tc_header(ifindex, 0, 0, 0))?;
        let there = messages.iter().filter(|(kind, body)| {
            *kind == RTM_NEWQDISC && word(body, 4) == Some(ifindex) && word(body, 12) == Some(CLSACT)
        });
        Ok(there.filter_map(|(_, body)| text(find(body.get(TC_HEADER..)?, TCA_KIND)?)).next())
    }

    /// One request and all that comes back for it: types and bodies.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::with_capacity(NETLINK_HEADER + body.len());
        request.extend(((NETLINK_HEADER + body.len()) as u32).to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend(0_u32.to_ne_bytes());
        request.extend(body);
        self.socket.send(&request, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some((kind, sequence, body, next)) = split(rest) {
                rest = next;
                // Of an earlier request that was given up.
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => match word(body, 0).map(|code| code as i32) {
                        Some(0) => return Ok(answers),
                        Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                        None => return Err(io::ErrorKind::InvalidData.into()),
                    },
                    kind => answers.push((kind, body.to_vec())),
                }
            }
        }
    }
}

fn parent(hook: TcxHook) -> u32 {
    match hook {
        TcxHook::Ingress => 0xffff_fff2,
        TcxHook::Egress => 0xffff_fff3,
    }
}

/// Priority, and the protocol that filters for everything have.
fn info(priority: u16) -> u32 {
    (u32::from(priority) << 16) | u32::from(ETH_P_ALL.to_be())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL))
}

fn tc_header(ifindex: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, ifindex, handle, parent, info].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend(((4 + value.len()) as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Type, sequence number and body of the first message, and what follows it.
fn split(datagram: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let len = word(datagram, 0)? as usize;
    let body = datagram.get(NETLINK_HEADER..len)?;
    let next = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((half(datagram, 4)?, word(datagram, 8)?, body, next))
}

/// `None`: only the head of a priority, which carries no filter.
fn read_filter(body: &[u8]) -> Option<Filter> {
    let handle = word(body, 8)?;
    let attributes = body.get(TC_HEADER..)?;
    let kind = text(find(attributes, TCA_KIND)?)?;
    let options = find(attributes, TCA_OPTIONS)?;
    if handle == 0 {
        return None;
    }
    let bpf = |attribute| if kind == "bpf" { find(options, attribute) } else { None };
    Some(Filter {
        priority: (word(body, 16)? >> 16) as u16,
        handle,
        name: bpf(TCA_BPF_NAME).and_then(text),
        program: bpf(TCA_BPF_ID).and_then(|value| word(value, 0)),
        kind,
    })
}

fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(half(attributes, 0)?);
        let value = attributes.get(4..len)?;
        if half(attributes, 2)? & NLA_TYPE_MASK == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

fn text(value: &[u8]) -> Option<String> {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok().map(str::to_owned)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_as_the_kernel_writes_it() {
        let mut body = tc_header(3, 0x17, 0xffff_fff2, info(2));
        attribute(&mut body, TCA_KIND, b"bpf\0");
        let mut options = Vec::new();
        attribute(&mut options, TCA_BPF_NAME, b"cil_from_netdev-eth0\0");
        attribute(&mut options, TCA_BPF_ID, &77_u32.to_ne_bytes());
        attribute(&mut body, TCA_OPTIONS | 0x8000, &options);
        let filter = Filter {
            priority: 2,
            handle: 0x17,
            kind: "bpf".into(),
            name: Some("cil_from_netdev-eth0".into()),
            program: Some(77),
        };
        assert_eq!(read_filter(&body), Some(filter));
    }

    #[test]
    fn the_head_of_a_priority_is_no_filter() {
        let mut body = tc_header(3, 0, 0xffff_fff2, info(2));
        attribute(&mut body, TCA_KIND, b"bpf\0");
        assert_eq!(read_filter(&body), None);
    }

    #[test]
    fn whatever_the_bytes_nothing_panics() {
        for len in 0..40 {
            for fill in [0, 1, 4, 0xff] {
                let bytes = vec![fill; len];
                assert!(read_filter(&bytes).is_none_or(|filter| filter.handle != 0));
                assert!(split(&bytes).is_none_or(|(_, _, body, _)| body.len() <= len));
            }
        }
    }
}
