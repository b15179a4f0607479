//! Legacy tc filters: what kernels without TCX have, and what others still use.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rtnetlink::packet_core::{
    DecodeError, Emitable as _, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
    ParseableParametrized as _,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::sys::TcxHook;

const CLSACT_KIND: &str = "clsact";
/// The qdisc itself; its place on a device is [`TcHandle::CLSACT`].
const CLSACT_HANDLE: TcHandle = TcHandle { major: u16::MAX, minor: 0 };
const ETH_P_ALL: u16 = 3;

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
        let question = RouteNetlinkMessage::GetTrafficFilter(message(ifindex, TcHandle::UNSPEC, parent(hook), 0));
        match self.ask::<Tcm>(question, NLM_F_DUMP) {
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            answers => Ok(answers?.into_iter().filter_map(Tcm::filter).collect()),
        }
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
        let mut message = bpf_filter(ifindex, hook, filter);
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().unsigned_abs())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(filter.name.clone().unwrap_or_default())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        let how = if replace { NLM_F_REPLACE } else { NLM_F_EXCL };
        self.ask(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_ACK | NLM_F_CREATE | how).map(drop::<Vec<Tcm>>)
    }

    /// Removes the filter of that priority and handle.
    pub(crate) fn remove_filter(&mut self, ifindex: u32, hook: TcxHook, filter: &Filter) -> io::Result<()> {
        let message = bpf_filter(ifindex, hook, filter);
        match self.ask(RouteNetlinkMessage::DelTrafficFilter(message), NLM_F_ACK) {
            Err(error) if is_gone(&error) => Ok(()),
            result => result.map(drop::<Vec<Tcm>>),
        }
    }

    /// Sees to it that the device has the qdisc that filters hang on; `true`: it was made now.
    pub(crate) fn add_clsact(&mut self, ifindex: u32) -> io::Result<bool> {
        let mut message = message(ifindex, CLSACT_HANDLE, TcHandle::CLSACT, 0);
        message.attributes.push(TcAttribute::Kind(CLSACT_KIND.to_owned()));
        let request = RouteNetlinkMessage::NewQueueDiscipline(message);
        match self.ask::<Tcm>(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => match self.qdisc(ifindex)?.as_deref() {
                Some(CLSACT_KIND) => Ok(false),
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
        let message = message(ifindex, CLSACT_HANDLE, TcHandle::CLSACT, 0);
        match self.ask(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK) {
            Err(error) if is_gone(&error) => Ok(()),
            result => result.map(drop::<Vec<Tcm>>),
        }
    }

    /// Kind of the qdisc that takes the place of clsact.
    fn qdisc(&mut self, ifindex: u32) -> io::Result<Option<String>> {
        let question = RouteNetlinkMessage::GetQueueDiscipline(message(ifindex, TcHandle::UNSPEC, TcHandle::UNSPEC, 0));
        let qdiscs = self.ask::<Tcm>(question, NLM_F_DUMP)?.into_iter();
        Ok(qdiscs
            .filter(|qdisc| qdisc.header.index.cast_unsigned() == ifindex && qdisc.header.parent == TcHandle::CLSACT)
            .find_map(|qdisc| qdisc.kind))
    }

    /// What a device's alias says; `None`: it has none, or is gone.
    pub(crate) fn alias(&mut self, ifindex: u32) -> io::Result<Option<String>> {
        let question = RouteNetlinkMessage::GetLink(link(ifindex));
        let answers = match self.ask::<RouteNetlinkMessage>(question, NLM_F_ACK) {
            Err(error) if is_gone(&error) => return Ok(None),
            answers => answers?,
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfAlias(alias) => Some(alias),
                _ => None,
            }),
            _ => None,
        }))
    }

    /// Gives a device an alias, of at most 255 bytes.
    pub(crate) fn set_alias(&mut self, ifindex: u32, alias: &str) -> io::Result<()> {
        let mut message = link(ifindex);
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.ask::<RouteNetlinkMessage>(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// One request and all that comes back for it.
    fn ask<A>(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<A>>
    where
        A: NetlinkDeserializable<Error = DecodeError>,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(request);
        request.header.flags = flags | NLM_F_REQUEST;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let (answer, next) = split::<A>(rest).map_err(invalid)?;
                rest = next;
                // Of an earlier request that was given up.
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
            }
        }
    }
}

/// What is read of a filter or a qdisc. `TcMessage` would decode all attributes of all kinds, and one that it does not
/// understand of somebody else's filter would hide the whole list.
#[derive(Debug)]
struct Tcm {
    header: TcHeader,
    kind: Option<String>,
    options: Option<Vec<TcOption>>,
}

impl Tcm {
    /// `None`: only the head of a priority, which carries no filter.
    fn filter(self) -> Option<Filter> {
        let handle = u32::from(self.header.handle);
        let (kind, options) = (self.kind?, self.options?);
        if handle == 0 {
            return None;
        }
        let mut filter = Filter { priority: (self.header.info >> 16) as u16, handle, kind, ..Filter::default() };
        for option in options {
            match option {
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = Some(name),
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = Some(id),
                _ => {}
            }
        }
        Some(filter)
    }
}

impl NetlinkDeserializable for Tcm {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let header = TcHeader::parse(payload)?;
        let attributes = NlasIterator::new(&payload[header.buffer_len()..]);
        let mut read = Self { header, kind: None, options: None };
        for attribute in attributes {
            let attribute = attribute?;
            // Options of an unknown kind stay bytes.
            let decode = |kind| TcAttribute::parse_with_param(&attribute, kind);
            let attribute = match read.kind.as_deref() {
                Some(TcFilterBpf::KIND) => decode(TcFilterBpf::KIND).or_else(|_| decode("")),
                _ => decode(""),
            };
            match attribute {
                Ok(TcAttribute::Kind(kind)) => read.kind = Some(kind),
                Ok(TcAttribute::Options(options)) => read.options = Some(options),
                // Statistics and the like.
                _ => {}
            }
        }
        Ok(read)
    }
}

fn link(ifindex: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message
}

fn message(ifindex: u32, handle: TcHandle, parent: TcHandle, info: u32) -> TcMessage {
    let header = TcHeader { index: ifindex.cast_signed(), handle, parent, info, ..TcHeader::default() };
    TcMessage::from_parts(header, Vec::new())
}

fn bpf_filter(ifindex: u32, hook: TcxHook, filter: &Filter) -> TcMessage {
    let mut message = message(ifindex, filter.handle.into(), parent(hook), info(filter.priority));
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message
}

fn parent(hook: TcxHook) -> TcHandle {
    let minor = match hook {
        TcxHook::Ingress => TcHandle::MIN_INGRESS,
        TcxHook::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: u16::MAX, minor }
}

/// Priority, and the protocol that filters for everything have.
fn info(priority: u16) -> u32 {
    (u32::from(priority) << 16) | u32::from(ETH_P_ALL.to_be())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL))
}

/// The first message, and what follows it.
fn split<A>(datagram: &[u8]) -> Result<(NetlinkMessage<A>, &[u8]), DecodeError>
where
    A: NetlinkDeserializable<Error = DecodeError>,
{
    let len = NetlinkBuffer::new_checked(datagram)?.length() as usize;
    let message = NetlinkMessage::deserialize(&datagram[..len])?;
    Ok((message, datagram.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::DefaultNla;

    use super::*;

    fn read(message: &TcMessage) -> Option<Filter> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        Tcm::deserialize(&NetlinkHeader::default(), &bytes).expect("a message").filter()
    }

    fn listed(handle: u32, attributes: Vec<TcAttribute>) -> TcMessage {
        let mut message = message(3, handle.into(), parent(TcxHook::Ingress), info(2));
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_filter_is_read_as_the_kernel_writes_it() {
        let options = vec![
            TcOption::Bpf(TcFilterBpfOption::ProgName("cil_from_netdev-eth0".into())),
            TcOption::Bpf(TcFilterBpfOption::ProgId(77)),
        ];
        let message = listed(0x17, vec![TcAttribute::Kind("bpf".into()), TcAttribute::Options(options)]);
        let filter = Filter {
            priority: 2,
            handle: 0x17,
            kind: "bpf".into(),
            name: Some("cil_from_netdev-eth0".into()),
            program: Some(77),
        };
        assert_eq!(read(&message), Some(filter));
    }

    #[test]
    fn the_head_of_a_priority_is_no_filter() {
        assert_eq!(read(&listed(0, vec![TcAttribute::Kind("bpf".into())])), None);
    }

    /// A flower of a kernel newer than the crate that decodes it, with statistics that nobody knows.
    #[test]
    fn a_filter_that_cannot_be_decoded_is_one_all_the_same() {
        let options = vec![TcOption::Other(DefaultNla::new(8, vec![1, 2, 3]))];
        let statistics = TcAttribute::Other(DefaultNla::new(3, vec![1]));
        let kind = TcAttribute::Kind("flower".into());
        let filter = read(&listed(1, vec![kind, TcAttribute::Options(options), statistics]));
        assert_eq!(filter, Some(Filter { priority: 2, handle: 1, kind: "flower".into(), ..Filter::default() }));
    }

    #[test]
    fn a_name_that_is_no_text_does_not_hide_a_filter() {
        let options = vec![TcOption::Other(DefaultNla::new(7, vec![0xff, 0]))];
        let message = listed(1, vec![TcAttribute::Kind("bpf".into()), TcAttribute::Options(options)]);
        let filter = Filter { priority: 2, handle: 1, kind: "bpf".into(), ..Filter::default() };
        assert_eq!(read(&message), Some(filter));
    }

    #[test]
    fn whatever_the_bytes_nothing_panics() {
        for len in 0..40 {
            for fill in [0, 1, 4, 0xff] {
                let bytes = vec![fill; len];
                let read = Tcm::deserialize(&NetlinkHeader::default(), &bytes);
                assert!(read.ok().and_then(Tcm::filter).is_none_or(|filter| filter.handle != 0));
                assert!(!split::<Tcm>(&bytes).is_ok_and(|(_, rest)| rest.len() >= len));
            }
        }
    }
}
