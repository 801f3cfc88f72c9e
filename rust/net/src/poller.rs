//! The thread that accepts, sniffs and deals connections, and wakes the workers that own them.
//!
//! timely wakes a worker by unparking its thread, which doesn't interrupt a system call that waits for sockets; so
//! workers never wait for sockets. This thread does, for the whole process, and unparks the worker whose connection
//! became ready. The workers do the reading and writing.
//!
//! **No wake-up is lost.** Whoever has news for a worker first puts it where the worker looks (its [`Mailbox`], under
//! a lock), then unparks the thread; a worker first takes what is in its mailbox, then parks. An unpark that comes
//! between the two is kept by the thread and ends the next park at once. Sockets are watched for edges: they are
//! registered again, under the worker's token, when they are dealt, which reports anew what is ready by then, and a
//! connection is dealt with its readiness taken for granted, so that an edge seen before the worker knows the
//! connection may be forgotten.
//!
//! **Tokens** name the worker (lowest bits) and the connection, so that this thread keeps no table of connections it
//! has dealt. Events of one connection that its worker hasn't taken yet are one entry of the mailbox: a worker that
//! is busy for a second finds no more entries than it has connections.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};

use mio::{Poll, Token, Waker};

use crate::connection::{Connection, ConnectionId, Readiness};
use crate::http::Doorkeeper;
use crate::limits::Limits;
use crate::lobby::Lobby;
use crate::places::Places;
use crate::tls::Identity;

/// Workers and I/O threads of a process at most.
const MAX_THREADS: usize = 1000;
/// Bits of a token that name the worker.
const SLOT_BITS: u32 = 10;
/// The slot of what belongs to the poller's thread itself; worker 0 has the next.
pub(crate) const OWN_SLOT: usize = 0;
/// Serial number of the listener's token and of the waker's; connections count from 1.
pub(crate) const LISTENER: Token = Token(OWN_SLOT);
const WAKER: Token = Token((1 << SLOT_BITS) - 1);

/// The token of a connection that belongs to a slot.
pub(crate) fn token(connection: ConnectionId, slot: usize) -> Token {
    Token((connection.0 as usize) << SLOT_BITS | slot)
}

fn parts(token: Token) -> (ConnectionId, usize) {
    (ConnectionId((token.0 >> SLOT_BITS) as u64), token.0 & ((1 << SLOT_BITS) - 1))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handle of the poller's thread; stops it when dropped.
#[derive(Debug)]
pub struct Poller {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
}

/// What the poller's thread and others both touch.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Written by the handle, read by the thread after its waker fires.
    stopping: AtomicBool,
    /// The same.
    deaf: AtomicBool,
    /// Connections open.
    pub(crate) places: Arc<Places>,
    /// Of the workers, then of the I/O threads.
    slots: Vec<Arc<Slot>>,
    workers: usize,
    waker: Waker,
}

impl Shared {
    /// Hands a connection to the thread with this slot.
    pub(crate) fn deal(&self, slot: usize, connection: Connection) {
        lock(&self.slots[slot].news).opened.push(connection);
        self.slots[slot].wake();
    }

    /// Number of workers.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// The slot of the thread that reads and writes an owner's connection: the owner's own, or that of an I/O thread
    /// which the connection's number gives.
    pub(crate) fn slot(&self, id: ConnectionId, owner: usize) -> usize {
        match self.slots.len() - self.workers {
            0 => owner,
            io_threads => self.workers + id.0 as usize % io_threads,
        }
    }
}

impl Poller {
    /// Starts the thread on a bound listener, with one mailbox for each of the process's workers and then one for each
    /// of its I/O threads, of which there are at least one and at most a thousand together. Every connection has one
    /// of the workers as its owner. It goes into the owner's mailbox if there are no I/O threads; else into that of
    /// the I/O thread whose index is the connection's number modulo their number.
    ///
    /// # Errors
    ///
    /// The system has no descriptors or threads left, or the number of workers is out of range.
    pub fn start(
        listener: std::net::TcpListener,
        workers: usize,
        io_threads: usize,
        limits: Arc<Limits>,
        doorkeeper: Arc<dyn Doorkeeper>,
        identity: Arc<Identity>,
    ) -> io::Result<(Poller, Vec<Mailbox>)> {
        let threads = workers.saturating_add(io_threads);
        if workers == 0 || threads > MAX_THREADS {
            let message = format!("{workers} workers and {io_threads} I/O threads, not 1 to {MAX_THREADS}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let poll = Poll::new()?;
        let slots: Vec<Arc<Slot>> = (0..threads).map(|_| Arc::default()).collect();
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            places: Arc::default(),
            slots: slots.clone(),
            workers,
            waker: Waker::new(poll.registry(), WAKER)?,
        });
        let lobby = Lobby::new(
            listener,
            poll.registry().try_clone()?,
            Arc::clone(&shared),
            limits,
            doorkeeper,
            identity,
        )?;
        let run = Run { poll, shared: Arc::clone(&shared), lobby };
        let thread =
            std::thread::Builder::new().name("dataflow:poller".to_owned()).spawn(move || run.run())?;
        let mailboxes = slots.into_iter().map(|slot| Mailbox { slot }).collect();
        Ok((Poller { shared, thread: Some(thread), address }, mailboxes))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Connections open in the process, those not yet dealt included.
    pub fn connections(&self) -> usize {
        self.shared.places.taken()
    }

    /// Closes the listening socket; open connections stay.
    pub fn stop_listening(&self) {
        self.shared.deaf.store(true, Ordering::Release);
        self.nudge();
    }

    /// Wakes a worker (counted within the process), or an I/O thread (counted after these), from any thread.
    ///
    /// # Panics
    ///
    /// There is no such thread.
    pub fn waker(&self, worker: usize) -> WorkerWaker {
        WorkerWaker { slot: Arc::clone(&self.shared.slots[worker]) }
    }

    /// Ends the thread, and closes the connections not yet dealt; those dealt live on, but are not watched any longer.
    pub fn stop(self) {
        drop(self);
    }

    fn nudge(&self) {
        // It fails only where the thread's poll is gone, and with it who was to be nudged.
        let _ = self.shared.waker.wake();
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.nudge();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a worker shares with those who have news for it.
#[derive(Debug, Default)]
struct Slot {
    news: Mutex<News>,
    /// Who is unparked; set by the worker itself.
    thread: Mutex<Option<Thread>>,
}

/// What a worker hasn't taken yet.
#[derive(Debug, Default)]
struct News {
    opened: Vec<Connection>,
    ready: HashMap<ConnectionId, Readiness>,
}

impl Slot {
    fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.unpark();
        }
    }
}

/// Where a worker gets its connections and their readiness. Owned by the worker.
#[derive(Debug)]
pub struct Mailbox {
    slot: Arc<Slot>,
}

impl Mailbox {
    /// From now on the calling thread is the one that is unparked. Called first thing on the worker's thread, before
    /// it looks into the mailbox for the first time.
    pub fn attach(&self) {
        *lock(&self.slot.thread) = Some(std::thread::current());
    }

    /// Moves newly dealt connections to `into`, in the order dealt. Each may have messages inside already, and may be
    /// ready for reading and writing without an event saying so.
    pub fn take_opened(&self, into: &mut Vec<Connection>) {
        into.append(&mut lock(&self.slot.news).opened);
    }

    /// Moves what became ready to `into`, each connection once, in order; one that the worker has dropped, or hasn't
    /// taken yet, may be among them.
    pub fn take_ready(&self, into: &mut Vec<(ConnectionId, Readiness)>) {
        let start = into.len();
        into.extend(lock(&self.slot.news).ready.drain());
        into[start..].sort_unstable_by_key(|&(connection, _)| connection);
    }
}

/// Wakes one worker, from any thread.
#[derive(Clone, Debug)]
pub struct WorkerWaker {
    slot: Arc<Slot>,
}

impl WorkerWaker {
    /// Unparks the worker's thread. What the worker is to find must be in place before.
    pub fn wake(&self) {
        self.slot.wake();
    }
}

/// What the thread runs on.
struct Run {
    poll: Poll,
    shared: Arc<Shared>,
    lobby: Lobby,
}

/// Events taken from the system at once.
const EVENTS: usize = 1024;

impl Run {
    fn run(mut self) {
        let mut events = mio::Events::with_capacity(EVENTS);
        let mut seen: Vec<Vec<(ConnectionId, Readiness)>> = vec![Vec::new(); self.shared.slots.len()];
        // Guests may want handshakes, which take their time: workers hear first of what is theirs.
        let mut guests: Vec<(ConnectionId, Readiness)> = Vec::new();
        while !self.shared.stopping.load(Ordering::Acquire) {
            match self.poll.poll(&mut events, self.lobby.patience()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The system call has no other errors for a poll that exists.
                Err(_) => break,
            }
            if self.shared.deaf.load(Ordering::Acquire) {
                self.lobby.stop_listening();
            }
            let now = std::time::Instant::now();
            for event in &events {
                let readiness = Readiness {
                    readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                    writable: event.is_writable() || event.is_write_closed() || event.is_error(),
                };
                match (event.token(), parts(event.token())) {
                    (LISTENER, _) => self.lobby.knock(),
                    (WAKER, _) => {}
                    (_, (connection, OWN_SLOT)) => guests.push((connection, readiness)),
                    (_, (connection, slot)) => seen[slot - 1].push((connection, readiness)),
                }
            }
            for (slot, seen) in self.shared.slots.iter().zip(&mut seen) {
                report(slot, seen);
            }
            for (connection, readiness) in guests.drain(..) {
                self.lobby.ready(connection, readiness, now);
            }
            self.lobby.turn(now);
        }
    }
}

fn report(slot: &Slot, seen: &mut Vec<(ConnectionId, Readiness)>) {
    if seen.is_empty() {
        return;
    }
    let mut news = lock(&slot.news);
    for (connection, readiness) in seen.drain(..) {
        let known = news.ready.entry(connection).or_default();
        known.readable |= readiness.readable;
        known.writable |= readiness.writable;
    }
    drop(news);
    slot.wake();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_connection_and_worker() {
        for (connection, slot) in [(1, 0), (1, 1), (77, 1000), (1 << 40, 3)] {
            let token = token(ConnectionId(connection), slot);
            assert_eq!(parts(token), (ConnectionId(connection), slot));
            assert!(token != LISTENER && token != WAKER);
        }
    }
}
