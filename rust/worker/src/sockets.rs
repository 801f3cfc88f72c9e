//! The sockets of connections: bytes to requests, messages to bytes.
//!
//! The same code runs on a worker's own thread, for the worker's connections, and on the threads of `--io-threads`
//! (see [`crate::io`]), for connections of all workers. It knows no sessions: who drives it says which connections to
//! look at, and is told which have ended and which have room again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataflow_net::connection::{Connection, ConnectionId, Incoming, Kind, Message, Readiness};
use dataflow_net::error::{Close, Violation};
use dataflow_net::http::{HttpRequest, HttpResponse, TurnedAway};
use dataflow_net::poller::Mailbox;
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::request::{self, Decoded, Rejected};
use dataflow_protocol::response::push::Tail;

use crate::access::refusals::Reason;
use crate::access::{Gate, View};
use crate::catalog::Catalog;
use crate::dispatch::{Dispatch, Payload};
use crate::flow::Flow;
use crate::metrics::WorkerMetrics;
use crate::process::Process;
use crate::turns::Turns;

/// How often connections are looked at for deadlines that have passed.
const SWEEP: Duration = Duration::from_millis(250);

/// A request, or why it is refused.
pub(crate) type Requested = Result<Decoded, Box<Rejected>>;

/// What a connection had next.
pub(crate) enum Arrived {
    /// A message of the protocol, its encoding and size.
    Request(Encoding, Requested, usize),
    /// A plain HTTP request.
    Http(HttpRequest),
}

/// What became of a connection while its messages were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is over and has been dropped.
    Ended,
    /// It has the room that somebody waited for.
    Relieved,
}

#[derive(Debug)]
struct Line {
    connection: Connection,
    flow: Arc<Flow>,
    /// Requests handed out and not answered.
    unanswered: usize,
    closing: bool,
    /// Somebody waits for the outbox to have fewer bytes than these.
    awaited: Option<usize>,
}

impl Line {
    fn new(mut connection: Connection, gate: &Gate) -> Self {
        let upgrade = connection.take_upgrade();
        let grant = gate.first_grant(upgrade.as_deref(), connection.peer().address);
        let plain_http = connection.kind() == Some(Kind::Http);
        connection.expect_greeting(grant.is_none() && !plain_http);
        let flow = Arc::new(Flow::new(&connection.peer(), grant));
        Line { connection, flow, unanswered: 0, closing: false, awaited: None }
    }
}

/// Connections, by number.
pub(crate) struct Sockets {
    mailbox: Mailbox,
    gate: Arc<Gate>,
    lines: HashMap<ConnectionId, Line>,
    /// Connections with something to write, or that may be over.
    writes: Vec<ConnectionId>,
    swept: Instant,
    pub(crate) now: Instant,
    /// Of each worker of the process, the owner of a connection being one of them.
    metrics: Vec<WorkerMetrics>,
    opened: Vec<Connection>,
    ready: Vec<(ConnectionId, Readiness)>,
}

impl Sockets {
    pub(crate) fn new(mailbox: Mailbox, process: &Process) -> Self {
        let now = Instant::now();
        Sockets {
            mailbox,
            gate: Arc::clone(&process.gate),
            lines: HashMap::new(),
            writes: Vec::new(),
            swept: now,
            now,
            metrics: (0..process.config.threads).map(|local| process.metrics.worker(local)).collect(),
            opened: Vec::new(),
            ready: Vec::new(),
        }
    }

    /// Must be called first, on the thread that drives the sockets.
    pub(crate) fn attach(&self) {
        self.mailbox.attach();
    }

    /// Takes new connections, each of which `opened` is told of with its owner, and what the poller saw of the others;
    /// whether there was anything.
    pub(crate) fn accept(
        &mut self,
        turns: &mut Turns,
        mut opened: impl FnMut(ConnectionId, usize, &Arc<Flow>),
    ) -> bool {
        self.now = Instant::now();
        self.mailbox.take_opened(&mut self.opened);
        self.mailbox.take_ready(&mut self.ready);
        let any = !self.opened.is_empty() || !self.ready.is_empty();
        for connection in std::mem::take(&mut self.opened) {
            let id = connection.id();
            tracing::debug!(connection = id.0, kind = ?connection.kind(), peer = %connection.peer().address, "opened");
            self.metrics[connection.owner()].connections.inc();
            let line = Line::new(connection, &self.gate);
            opened(id, line.connection.owner(), &line.flow);
            self.lines.insert(id, line);
            turns.schedule(id);
        }
        for (id, readiness) in std::mem::take(&mut self.ready) {
            if let Some(line) = self.lines.get_mut(&id) {
                line.connection.ready(readiness);
                if readiness.writable {
                    self.writes.push(id);
                }
                turns.schedule(id);
            }
        }
        self.sweep();
        any
    }

    fn sweep(&mut self) {
        if self.now.duration_since(self.swept) < SWEEP {
            return;
        }
        self.swept = self.now;
        for (id, line) in &mut self.lines {
            if line.connection.deadline().is_some_and(|deadline| deadline <= self.now) {
                if let Some(violation) = line.connection.expire(self.now) {
                    if violation == Violation::SlowHandshake {
                        self.gate.turn_away(Reason::Transport(TurnedAway::SlowHandshake));
                    }
                    line.connection.close(violation.close(), self.now);
                }
                self.writes.push(*id);
            }
        }
    }

    /// What a connection has next, reading at most what is left of `budget`. A message is given to `decode` as soon as
    /// it is here.
    pub(crate) fn next(
        &mut self,
        id: ConnectionId,
        budget: &mut usize,
        decode: impl FnOnce(&Message, &Flow) -> Requested,
        turns: &mut Turns,
    ) -> Option<Arrived> {
        let line = self.lines.get_mut(&id).filter(|line| !line.closing)?;
        loop {
            match line.connection.next(self.now) {
                Some(Ok(Incoming::Http(request))) => {
                    line.unanswered += 1;
                    return Some(Arrived::Http(request));
                }
                Some(Ok(Incoming::Message(message))) => {
                    line.unanswered += 1;
                    let requested = decode(&message, &line.flow);
                    return Some(Arrived::Request(message.encoding, requested, message.bytes.len()));
                }
                Some(Err(violation)) => {
                    line.closing = true;
                    line.connection.close(violation.close(), self.now);
                    self.writes.push(id);
                    return None;
                }
                None => {}
            }
            if *budget == 0 || !line.connection.wants_read() {
                break;
            }
            let count = line.connection.read(*budget, self.now);
            *budget -= count.min(*budget);
            self.metrics[line.connection.owner()].read_bytes.inc_by(count as u64);
            if count == 0 && !line.connection.input_ended() {
                break;
            }
        }
        // A connection that writes by itself, as an echo does, has something to flush after reading.
        self.writes.push(id);
        if line.connection.wants_read() {
            turns.schedule(id);
        }
        None
    }

    /// Does what the owner wants done; nobody is told of connections that are gone.
    pub(crate) fn carry_out(&mut self, dispatch: Dispatch, turns: &mut Turns) {
        match dispatch {
            Dispatch::Reply(id, encoding, Payload::Bytes(bytes)) => self.reply(id, encoding, bytes),
            Dispatch::Reply(id, encoding, Payload::Later(_, encode)) => self.reply(id, encoding, encode()),
            Dispatch::Respond(id, response) => self.respond(id, response, turns),
            Dispatch::Push(id, sub, tail) => self.push(id, sub, std::slice::from_ref(&tail)),
            Dispatch::Parcel(parcel, to) => {
                let tails = parcel.encode();
                if let Some(line) = to.first().and_then(|(id, _)| self.lines.get(id)) {
                    self.metrics[line.connection.owner()].encoded_steps.inc();
                }
                to.into_iter().for_each(|(id, sub)| self.push(id, sub, &tails));
            }
            Dispatch::AwaitRoom(id, below) => self.await_room(id, below),
            Dispatch::LimitStall(id) => self.limit_stall(id),
            Dispatch::Admit(id) => {
                self.lines.get_mut(&id).into_iter().for_each(|line| line.connection.expect_greeting(false));
            }
            Dispatch::Expel(id) => self.expel(id),
            Dispatch::CloseAll(owner, reason) => self.close_all(owner, reason),
            Dispatch::Resume(id) => turns.schedule(id),
        }
    }

    fn reply(&mut self, id: ConnectionId, encoding: Encoding, bytes: Vec<u8>) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.unanswered = line.unanswered.saturating_sub(1);
            line.connection.queue(encoding, &[], Bytes::from(bytes));
            self.metrics[line.connection.owner()].messages.inc();
            self.writes.push(id);
        }
    }

    fn respond(&mut self, id: ConnectionId, response: HttpResponse, turns: &mut Turns) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.unanswered = line.unanswered.saturating_sub(1);
            line.connection.respond(response);
            self.writes.push(id);
            turns.schedule(id);
        }
    }

    /// Queues a message of a subscription.
    fn push(&mut self, id: ConnectionId, sub: u64, tails: &[Tail]) {
        if let Some(line) = self.lines.get_mut(&id) {
            for tail in tails {
                line.connection.queue(tail.encoding(), &tail.head(sub), tail.bytes().clone());
            }
            self.metrics[line.connection.owner()].messages.inc_by(tails.len() as u64);
            self.writes.push(id);
        }
    }

    /// Bytes that a connection's client hasn't taken yet.
    pub(crate) fn outbox_bytes(&self, id: ConnectionId) -> usize {
        self.lines.get(&id).map_or(0, |line| line.connection.outbox_bytes())
    }

    /// [`Fate::Relieved`] is said of the connection when its client has taken all but fewer bytes than these.
    fn await_room(&mut self, id: ConnectionId, below: usize) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.awaited = Some(below);
            self.writes.push(id);
        }
    }

    /// From now on a client that takes nothing is cut off after a while.
    fn limit_stall(&mut self, id: ConnectionId) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.connection.limit_stall(self.now);
        }
    }

    /// Writes what sockets take, and drops connections that are over. `told` hears what became of which connection,
    /// and what is left in the outbox of every other one that was looked at.
    pub(crate) fn flush(
        &mut self,
        turns: &mut Turns,
        mut told: impl FnMut(ConnectionId, usize, Option<Fate>),
    ) {
        let mut writes = std::mem::take(&mut self.writes);
        writes.sort_unstable();
        writes.dedup();
        for id in writes {
            let Some(line) = self.lines.get_mut(&id) else { continue };
            let before = line.connection.outbox_bytes();
            line.connection.flush(self.now);
            let left = line.connection.outbox_bytes();
            let owner = &self.metrics[line.connection.owner()];
            owner.written_bytes.inc_by(before.saturating_sub(left) as u64);
            let idle = line.unanswered == 0 && left == 0;
            if line.connection.input_ended() && idle && !line.closing && !turns.waits(id) {
                line.closing = true;
                line.connection.close(Close::Normal, self.now);
                line.connection.flush(self.now);
            }
            if line.connection.is_finished() {
                tracing::debug!(connection = id.0, "closed");
                owner.connections.dec();
                self.lines.remove(&id);
                told(id, 0, Some(Fate::Ended));
                continue;
            }
            let relieved = line.awaited.is_some_and(|below| left < below);
            if relieved {
                line.awaited = None;
            }
            told(id, left, relieved.then_some(Fate::Relieved));
            if line.connection.wants_read() {
                turns.schedule(id);
            }
        }
    }

    fn expel(&mut self, id: ConnectionId) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.closing = true;
            line.connection.close(Close::Policy, self.now);
            self.writes.push(id);
        }
    }

    /// Begins to close an owner's connections.
    fn close_all(&mut self, owner: usize, reason: Close) {
        for (id, line) in &mut self.lines {
            if line.connection.owner() == owner {
                line.closing = true;
                line.connection.close(reason, self.now);
                self.writes.push(*id);
            }
        }
    }
}

/// Decodes a request against a catalog, as far as the client may see it; a transaction may have so many `rows`.
pub(crate) fn decoded(message: &Message, catalog: &Catalog, flow: &Flow, rows: usize) -> Requested {
    let grant = flow.grant();
    request::decode(&message.bytes, message.encoding, &View { catalog, grant: grant.as_deref(), rows })
}
