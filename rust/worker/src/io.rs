//! Threads that read, decode, encode and write for the workers (`--io-threads`).
//!
//! A connection still has an owner among the workers; its socket is with one of these threads. Up go decoded requests
//! ([`Arrival`]), down what the owner wants done ([`Dispatch`]). Either way a batch a turn, under one lock.
//!
//! **Bounds.** A connection isn't read while [`AHEAD_REQUESTS`] of its requests, or more of their bytes than
//! `inbox_bytes`, wait for its owner; what its owner has sent counts as queued for it from the moment it was sent
//! (see `flow`).
//!
//! **Order.** A request that changes what later ones mean is not overtaken: its connection isn't read until the owner
//! says [`Dispatch::Resume`]. Requests are decoded against the catalog that the owner has published, looked up when
//! their bytes are here: whoever has been told of a relation finds it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dataflow_net::connection::{ConnectionId, Message};
use dataflow_net::http::HttpRequest;
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::request::Request;

use crate::catalog::Catalog;
use crate::dispatch::Dispatch;
use crate::flow::{Ahead, Flow};
use crate::metrics::IoMetrics;
use crate::panics;
use crate::process::Process;
use crate::sockets::{Arrived, Fate, Requested, Sockets, decoded};
use crate::turns::Turns;

/// Requests of a connection that may be decoded before its owner takes them.
const AHEAD_REQUESTS: usize = 1 << 10;
/// Requests taken from one connection before it is the next one's turn.
const REQUESTS_PER_VISIT: usize = 64;
/// Bytes read in a turn.
const BYTES_PER_TURN: usize = 4 << 20;
/// How long an idle thread sleeps at most; it is woken earlier by anything to do.
const PARK: Duration = Duration::from_millis(100);

/// What a worker hears of a connection.
pub(crate) enum Arrival {
    /// It is there, with what both sides count of it.
    Opened(ConnectionId, Arc<Flow>),
    /// It has sent a request.
    Request(ConnectionId, Encoding, Requested, Ahead),
    /// It has sent a plain HTTP request.
    Http(ConnectionId, HttpRequest),
    /// This has become of it.
    Became(ConnectionId, Fate),
    /// The thread has begun to close all connections of the worker that it has told of.
    AllClosed(usize),
}

/// Where workers and threads leave things for each other.
pub(crate) struct Hub {
    desks: Vec<Desk>,
    threads: Vec<Mutex<Vec<Dispatch>>>,
}

/// A worker's side of it.
#[derive(Default)]
pub(crate) struct Desk {
    arrivals: Mutex<Vec<Arrival>>,
    catalog: Mutex<Arc<Catalog>>,
    inbox_bytes: AtomicUsize,
    transaction_rows: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new(workers: usize, threads: usize) -> Self {
        Hub {
            desks: (0..workers).map(|_| Desk::default()).collect(),
            threads: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// Number of I/O threads.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The thread that has a connection's socket; as connections are dealt.
    pub(crate) fn thread_of(&self, id: ConnectionId) -> usize {
        id.0 as usize % self.threads.len()
    }

    /// What has arrived for a worker since the last call.
    pub(crate) fn take_arrivals(&self, local: usize, into: &mut Vec<Arrival>) {
        into.append(&mut lock(&self.desks[local].arrivals));
    }

    /// From now on a worker's requests are decoded against this catalog.
    pub(crate) fn publish(&self, local: usize, catalog: Arc<Catalog>) {
        *lock(&self.desks[local].catalog) = catalog;
    }

    /// How many bytes of requests may wait for a worker, of one connection, and how many rows a transaction may have.
    pub(crate) fn limit(&self, local: usize, inbox_bytes: usize, transaction_rows: usize) {
        self.desks[local].inbox_bytes.store(inbox_bytes, Ordering::Relaxed);
        self.desks[local].transaction_rows.store(transaction_rows, Ordering::Relaxed);
    }

    fn catalog(&self, local: usize) -> Arc<Catalog> {
        Arc::clone(&lock(&self.desks[local].catalog))
    }

    /// Leaves a batch for a thread, which is to be woken.
    pub(crate) fn dispatch(&self, thread: usize, batch: &mut Vec<Dispatch>) {
        lock(&self.threads[thread]).append(batch);
    }
}

/// A connection as its thread knows it.
struct Peer {
    owner: usize,
    flow: Arc<Flow>,
    /// Not read until the owner says so.
    shut: bool,
}

/// One I/O thread.
pub(crate) struct IoThread {
    process: Arc<Process>,
    hub: Arc<Hub>,
    index: usize,
    metrics: IoMetrics,
    sockets: Sockets,
    turns: Turns,
    peers: HashMap<ConnectionId, Peer>,
    /// Connections of which as much waits as may.
    full: Vec<ConnectionId>,
    /// For each worker what it hasn't been given yet.
    arrivals: Vec<Vec<Arrival>>,
}

impl IoThread {
    pub(crate) fn new(process: Arc<Process>, hub: Arc<Hub>, index: usize, sockets: Sockets) -> Self {
        let arrivals = (0..process.config.threads).map(|_| Vec::new()).collect();
        IoThread {
            metrics: process.metrics.io_thread(index),
            process,
            hub,
            index,
            sockets,
            turns: Turns::default(),
            peers: HashMap::new(),
            full: Vec::new(),
            arrivals,
        }
    }

    /// Lives until all workers have ended. Does not panic; a panic inside ends the process's workers, for it takes
    /// their connections with it.
    pub(crate) fn run(mut self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.turns())) {
            self.process.give_up(format!("an I/O thread failed: {}", panics::text(&*panic)));
        }
    }

    fn turns(&mut self) {
        self.sockets.attach();
        let mut clock = Instant::now();
        while !self.process.all_ended() {
            let mut more = self.accept();
            more |= self.carry_out();
            more |= self.read();
            self.flush();
            more |= self.deliver() || !self.turns.is_empty();
            self.metrics.worked(&mut clock);
            if !more {
                std::thread::park_timeout(PARK);
                self.metrics.parked(&mut clock);
            }
        }
    }

    fn accept(&mut self) -> bool {
        let (peers, arrivals) = (&mut self.peers, &mut self.arrivals);
        self.sockets.accept(&mut self.turns, |id, owner, flow| {
            arrivals[owner].push(Arrival::Opened(id, Arc::clone(flow)));
            peers.insert(id, Peer { owner, flow: Arc::clone(flow), shut: false });
        })
    }

    /// What workers want done.
    fn carry_out(&mut self) -> bool {
        let batch = std::mem::take(&mut *lock(&self.hub.threads[self.index]));
        let any = !batch.is_empty();
        for dispatch in batch {
            let arrived = |id: &ConnectionId, weight| {
                if let Some(peer) = self.peers.get(id) {
                    peer.flow.arrived(weight);
                }
            };
            match &dispatch {
                Dispatch::Reply(id, _, payload) => arrived(id, payload.weight()),
                Dispatch::Push(id, _, tail) => arrived(id, tail.bytes().len()),
                Dispatch::Parcel(parcel, to) => to.iter().for_each(|(id, _)| arrived(id, parcel.weight())),
                Dispatch::Resume(id) => {
                    self.peers.get_mut(id).into_iter().for_each(|peer| peer.shut = false);
                }
                Dispatch::CloseAll(owner, _) => self.arrivals[*owner].push(Arrival::AllClosed(self.index)),
                _ => {}
            }
            self.sockets.carry_out(dispatch, &mut self.turns);
        }
        any
    }

    /// Requests, from one connection after the other.
    fn read(&mut self) -> bool {
        self.full.drain(..).for_each(|id| self.turns.schedule(id));
        let mut bytes = BYTES_PER_TURN;
        let mut turn = self.turns.take();
        while let Some(id) = turn.pop_front() {
            let mut visit = REQUESTS_PER_VISIT;
            while visit > 0 && self.visit(id, &mut bytes) {
                visit -= 1;
            }
            if visit == 0 || bytes == 0 {
                self.turns.schedule(id);
            }
            if bytes == 0 {
                break;
            }
        }
        turn.into_iter().for_each(|id| self.turns.schedule(id));
        !self.turns.is_empty()
    }

    /// One request of a connection; whether to ask it for another.
    fn visit(&mut self, id: ConnectionId, bytes: &mut usize) -> bool {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.shut) else { return false };
        let desk = &self.hub.desks[peer.owner];
        let limit = desk.inbox_bytes.load(Ordering::Relaxed);
        if peer.flow.is_full(AHEAD_REQUESTS, limit) {
            self.full.push(id);
            return false;
        }
        let decode = |message: &Message, flow: &Flow| {
            let rows = desk.transaction_rows.load(Ordering::Relaxed);
            decoded(message, &self.hub.catalog(peer.owner), flow, rows)
        };
        match self.sockets.next(id, bytes, decode, &mut self.turns) {
            None => return false,
            Some(Arrived::Http(request)) => self.arrivals[peer.owner].push(Arrival::Http(id, request)),
            Some(Arrived::Request(encoding, read, bytes)) => {
                peer.shut = must_not_be_overtaken(&read);
                let ahead = Ahead::new(&peer.flow, bytes);
                self.arrivals[peer.owner].push(Arrival::Request(id, encoding, read, ahead));
            }
        }
        !peer.shut
    }

    fn flush(&mut self) {
        let (peers, arrivals) = (&mut self.peers, &mut self.arrivals);
        self.sockets.flush(&mut self.turns, |id, left, fate| {
            let Some(peer) = peers.get(&id) else { return };
            peer.flow.set_queued(left);
            if let Some(fate) = fate {
                arrivals[peer.owner].push(Arrival::Became(id, fate));
            }
            if fate == Some(Fate::Ended) {
                peers.remove(&id);
            }
        });
    }

    /// Gives the workers what has come for them; whether there was anything.
    fn deliver(&mut self) -> bool {
        let mut any = false;
        for (owner, arrivals) in self.arrivals.iter_mut().enumerate() {
            if !arrivals.is_empty() {
                lock(&self.hub.desks[owner].arrivals).append(arrivals);
                self.process.wake(owner);
                any = true;
            }
        }
        any
    }
}

/// Whether what a connection sends later may mean something else once this has taken effect. All that is known to
/// change nothing goes on at once; whatever else there is or will be waits.
pub(crate) fn must_not_be_overtaken(read: &Requested) -> bool {
    match read {
        Err(_) => false,
        Ok(decoded) => !matches!(
            decoded.request,
            Request::Transact { .. }
                | Request::Subscribe(_)
                | Request::Unsubscribe { .. }
                | Request::Read { .. }
                | Request::Explain { .. }
                | Request::Status
                | Request::Ping
        ),
    }
}
