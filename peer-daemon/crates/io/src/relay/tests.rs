//! Both ends without a thread between them.

use std::collections::VecDeque;
use std::time::Duration;

use peer_core::path::RelayId;

use super::*;

/// What a connection was told, and what it has to say.
#[derive(Default)]
struct Book {
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<(u32, Vec<u8>)>,
    flushes: usize,
    commands: usize,
    due: Option<Instant>,
    over: bool,
}

struct Bookish {
    connection: u32,
    book: Arc<Mutex<Book>>,
    fd: OwnedFd,
}

impl RelayLane for Bookish {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn wants_write(&self) -> bool {
        !lock(&self.book).sent.is_empty()
    }

    fn receive(&mut self, _: Instant, batch: &mut DatagramBatch) -> bool {
        let mut book = lock(&self.book);
        if let Some(bytes) = book.arrived.pop_front() {
            assert!(batch.push(&bytes, path(self.connection, 1)));
        }
        !book.arrived.is_empty()
    }

    fn send(&mut self, peer: u32, datagram: &[u8]) -> Result<(), LaneError> {
        match (peer, datagram.len()) {
            (3.., _) => Err(LaneError::Gone),
            (_, 2001..) => Err(LaneError::TooBig),
            (_, 0) => Err(LaneError::Full),
            _ => {
                lock(&self.book).sent.push((peer, datagram.to_vec()));
                Ok(())
            }
        }
    }

    fn flush(&mut self, _: Instant) {
        lock(&self.book).flushes += 1;
    }

    fn handle_commands(&mut self, _: Instant) {
        lock(&self.book).commands += 1;
    }

    fn handle_timeout(&mut self, _: Instant) {
        lock(&self.book).due = None;
    }

    fn poll_timeout(&self) -> Option<Instant> {
        lock(&self.book).due
    }

    fn is_over(&self) -> bool {
        lock(&self.book).over
    }
}

fn path(connection: u32, peer: u32) -> Path {
    Path::Relay(RelayId { connection, peer })
}

fn port() -> (RelayPort, RelayEnd) {
    RelayPort::detached().expect("a descriptor")
}

fn attach(port: &RelayPort) -> Result<Arc<Mutex<Book>>, AttachError> {
    let book = Arc::<Mutex<Book>>::default();
    let lane = Arc::clone(&book);
    let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
    port.attach(move |connection| Bookish { connection, book: lane, fd })?;
    Ok(book)
}

fn woken(end: &RelayEnd) -> bool {
    rustix::io::read(end, &mut [0; 8]).is_ok()
}

fn batch(items: &[(&[u8], Path)]) -> DatagramBatch {
    let mut batch = DatagramBatch::with_capacity(1 << 16, 256);
    for (bytes, path) in items {
        assert!(batch.push(bytes, *path));
    }
    batch
}

#[test]
fn each_connection_gets_its_datagrams_in_order() {
    let (port, mut end) = port();
    let (a, b) = (attach(&port).expect("open"), attach(&port).expect("open"));
    assert!(woken(&end) && !woken(&end), "the thread is told once");
    let now = Instant::now();
    end.look(now);
    let udp = Path::Udp { remote: ([127, 0, 0, 1], 9).into(), local: None };
    let stats = ShardStats::default();
    let items: [(&[u8], Path); 6] = [
        (b"x", path(1, 1)),
        (b"y", path(1, 2)),
        (b"-", udp),
        (b"z", path(2, 1)),
        (b"u", path(1, 1)),
        (b"v", path(1, 2)),
    ];
    end.send(now, &batch(&items), &stats);
    let sent = |items: &[(u32, &[u8])]| items.iter().map(|(peer, bytes)| (*peer, bytes.to_vec())).collect::<Vec<_>>();
    assert_eq!(lock(&a).sent, sent(&[(1, b"x"), (2, b"y"), (1, b"u"), (2, b"v")]));
    assert_eq!((lock(&a).flushes, lock(&b).flushes), (1 + 2, 1 + 1), "after commands, and once for each run");
    assert_eq!(lock(&b).sent, sent(&[(1, b"z")]));
    assert_eq!((stats.relay_out.packets.get(), stats.relay_out.bytes.get()), (5, 5));
    assert!(end.interests().all(|(_, flags)| flags == PollFlags::IN | PollFlags::OUT));
}

#[test]
fn what_cannot_leave_is_counted() {
    let (port, mut end) = port();
    let _a = attach(&port).expect("open");
    let now = Instant::now();
    end.look(now);
    let stats = ShardStats::default();
    end.send(
        now,
        &batch(&[(b"x", path(9, 1)), (b"x", path(1, 3)), (&[0; 2001], path(1, 1)), (b"", path(1, 1))]),
        &stats,
    );
    for (reason, count) in [(IoDrop::RelayGone, 2), (IoDrop::RelayTooBig, 1), (IoDrop::RelayFull, 1)] {
        assert_eq!(stats.drops(reason), count, "{reason:?}");
    }
    assert_eq!(stats.relay_out.packets.get(), 0);
}

#[test]
fn what_the_descriptor_does_not_know_of_is_not_forgotten() {
    let (port, mut end) = port();
    let a = attach(&port).expect("open");
    lock(&a).arrived = [vec![1; 10], vec![2; 20]].into();
    let now = Instant::now();
    end.look(now);
    let (stats, mut batch) = (ShardStats::default(), DatagramBatch::with_capacity(100, 10));
    assert!(end.has_pending(), "it may have brought something along");
    assert!(end.receive(0, false, now, &mut batch, &stats));
    assert!(!end.receive(0, false, now, &mut batch, &stats));
    assert!(!end.has_pending() && batch.len() == 2);
    lock(&a).arrived.push_back(vec![3; 30]);
    assert!(!end.receive(0, false, now, &mut batch, &stats) && batch.len() == 2, "neither ready nor pending");
    assert!(!end.receive(0, true, now, &mut batch, &stats) && batch.len() == 3);
    assert_eq!((stats.relay_in.packets.get(), stats.relay_in.bytes.get(), stats.relay_in.calls.get()), (3, 60, 3));
    assert!(!end.receive(1, true, now, &mut batch, &stats), "there is no second one");
}

#[test]
fn commands_and_timeouts_reach_those_they_are_for() {
    let (port, mut end) = port();
    let (a, b) = (attach(&port).expect("open"), attach(&port).expect("open"));
    let now = Instant::now();
    end.look(now);
    end.look(now);
    assert_eq!(lock(&a).commands, 1, "no news");
    port.wake();
    end.look(now);
    assert_eq!((lock(&a).commands, lock(&b).commands), (2, 2));
    let due = now + Duration::from_secs(1);
    (lock(&a).due, lock(&b).due) = (Some(due + Duration::from_secs(1)), Some(due));
    assert_eq!(end.poll_timeout(), Some(due));
    end.handle_timeout(due);
    assert_eq!((lock(&b).due, end.poll_timeout()), (None, Some(due + Duration::from_secs(1))));
}

#[test]
fn connections_are_bounded_and_make_room() {
    let (port, mut end) = port();
    let books: Vec<_> = (0..MAX_LANES).map(|_| attach(&port).expect("room")).collect();
    assert!(matches!(attach(&port), Err(AttachError::TooMany)));
    let now = Instant::now();
    end.look(now);
    assert_eq!(end.len(), MAX_LANES);
    lock(&books[7]).over = true;
    end.tidy();
    assert_eq!((end.len(), Arc::strong_count(&books[7])), (MAX_LANES - 1, 1));
    assert!(attach(&port).is_ok() && attach(&port).is_err());
}

#[test]
fn the_end_of_the_thread_ends_all() {
    let (port, mut end) = port();
    let driven = attach(&port).expect("open");
    end.look(Instant::now());
    let waiting = attach(&port).expect("open");
    drop(end);
    assert_eq!((Arc::strong_count(&driven), Arc::strong_count(&waiting)), (1, 1));
    assert!(matches!(attach(&port), Err(AttachError::Closed)));
}
