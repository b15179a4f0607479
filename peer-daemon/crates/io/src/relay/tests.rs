//! Both ends without a thread between them.

use std::task::Context;

use futures_util::task::noop_waker_ref;

use super::*;

/// A header of one byte, the peer's number, for peers 1 and 2.
struct Numbered;

impl Framer for Numbered {
    const OVERHEAD: usize = 1;

    fn frame(&mut self, peer: u32, datagram: &[u8], room: &mut [u8]) -> Result<usize, Unframed> {
        if !(1..=2).contains(&peer) {
            return Err(Unframed::Gone);
        }
        if datagram.len() > 2000 {
            return Err(Unframed::TooBig);
        }
        room[0] = peer as u8;
        room[1..=datagram.len()].copy_from_slice(datagram);
        Ok(1 + datagram.len())
    }
}

fn port() -> (RelayPort, RelayEnd) {
    RelayPort::detached().expect("a descriptor")
}

fn woken(port: &RelayPort) -> bool {
    rustix::io::read(&*port.0.wake, &mut [0; 8]).is_ok()
}

fn batch(items: &[(&[u8], Path)]) -> DatagramBatch {
    let mut batch = DatagramBatch::with_capacity(1 << 16, 256);
    for (bytes, path) in items {
        assert!(batch.push(bytes, *path));
    }
    batch
}

fn frames(connection: &RelayConnection<Numbered>) -> Option<Vec<u8>> {
    let mut buffer = FrameBuffer::new();
    match connection.poll_frames(&mut Context::from_waker(noop_waker_ref()), &mut buffer) {
        Poll::Ready(result) => result.ok().map(|()| buffer.bytes().to_vec()),
        Poll::Pending => None,
    }
}

fn room(connection: &RelayConnection<Numbered>) -> Poll<Result<DatagramBatch, PortClosed>> {
    connection.poll_batch(&mut Context::from_waker(noop_waker_ref()))
}

#[test]
fn each_connection_gets_its_datagrams_in_order() {
    let (port, mut end) = port();
    let (a, b) = (port.attach(Numbered), port.attach(Numbered));
    assert!(woken(&port), "the thread is told of connections");
    end.look();
    let udp = Path::Udp { remote: ([127, 0, 0, 1], 9).into(), local: None };
    let stats = ShardStats::default();
    let items: [(&[u8], Path); 6] =
        [(b"x", a.path(1)), (b"y", a.path(2)), (b"-", udp), (b"z", b.path(1)), (b"u", a.path(1)), (b"", a.path(2))];
    end.send(&batch(&items), &stats);
    assert_eq!(frames(&a), Some(b"\x01x\x02y\x01u\x02".to_vec()));
    assert_eq!(frames(&b), Some(b"\x01z".to_vec()));
    assert_eq!(frames(&a), None, "they are fetched once");
    assert_eq!((stats.relay_out.packets.get(), stats.relay_out.bytes.get()), (5, 4));
}

#[test]
fn what_cannot_leave_is_counted() {
    let (port, mut end) = port();
    let (a, gone) = (port.attach(Numbered), port.attach(Numbered));
    end.look();
    let stats = ShardStats::default();
    let late = gone.path(1);
    drop(gone);
    end.look();
    end.send(&batch(&[(b"x", late), (b"x", a.path(3)), (&[0; 2001], a.path(1))]), &stats);
    assert_eq!((stats.drops(IoDrop::RelayGone), stats.drops(IoDrop::RelayTooBig)), (2, 1));
    let item: &[u8] = &[7; 1999];
    let full = batch(&[(item, a.path(1)); 32]);
    for _ in 0..5 {
        end.send(&full, &stats);
    }
    let fit = OUT_BYTES / 2000;
    assert_eq!(stats.drops(IoDrop::RelayFull), 160 - fit as u64);
    assert_eq!(frames(&a).map(|bytes| bytes.len()), Some(fit * 2000));
    end.send(&full, &stats);
    assert_eq!(frames(&a).map(|bytes| bytes.len()), Some(32 * 2000), "an empty buffer takes frames again");
}

#[test]
fn batches_arrive_and_come_back() {
    let (port, mut end) = port();
    let a = port.attach(Numbered);
    end.look();
    while woken(&port) {}
    let stats = ShardStats::default();
    for number in 0..IN_BATCHES as u8 {
        let Poll::Ready(Ok(mut batch)) = room(&a) else { panic!("there are {IN_BATCHES}") };
        assert!(batch.is_empty() && batch.push(&[number; 3], a.path(1)));
        a.deliver(batch);
    }
    assert!(room(&a).is_pending(), "the task waits for the shard");
    assert!(woken(&port) && !woken(&port), "one wake-up is enough for all");
    assert!(end.look());
    for number in 0..IN_BATCHES as u8 {
        let first = end.receive(&stats, |batch| batch.get(0).map(|(bytes, path)| (bytes.to_vec(), *path)));
        assert_eq!(first, Some(Some((vec![number; 3], a.path(1)))));
    }
    assert_eq!(end.receive(&stats, |_| ()), None);
    assert!(matches!(room(&a), Poll::Ready(Ok(batch)) if batch.is_empty()));
    assert_eq!((stats.relay_in.packets.get(), stats.relay_in.bytes.get(), stats.relay_in.calls.get()), (3, 9, 3));
}

#[test]
fn an_empty_batch_wakes_nobody() {
    let (port, mut end) = port();
    let a = port.attach(Numbered);
    end.look();
    while woken(&port) {}
    for _ in 0..2 * IN_BATCHES {
        let Poll::Ready(Ok(batch)) = room(&a) else { panic!("it came back") };
        a.deliver(batch);
    }
    assert!(!woken(&port) && !end.look());
}

#[test]
fn the_end_of_the_thread_is_told() {
    let (port, end) = port();
    let a = port.attach(Numbered);
    let mut context = Context::from_waker(noop_waker_ref());
    assert!(a.poll_frames(&mut context, &mut FrameBuffer::new()).is_pending());
    drop(end);
    assert_eq!(a.poll_frames(&mut context, &mut FrameBuffer::new()), Poll::Ready(Err(PortClosed)));
    assert!(matches!(room(&a), Poll::Ready(Err(PortClosed))));
    assert!(matches!(room(&port.attach(Numbered)), Poll::Ready(Err(PortClosed))), "also to those who come later");
}
