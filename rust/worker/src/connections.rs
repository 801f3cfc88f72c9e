//! The connections that a worker owns, and whose turn it is to be read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataflow_net::connection::{Connection, ConnectionId, Incoming, Kind, Readiness};
use dataflow_net::error::Close;
use dataflow_net::http::{HttpResponse, Peer};
use dataflow_net::poller::Mailbox;
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::ErrorBody;
use dataflow_protocol::request::{Decoded, RequestId};
use dataflow_protocol::response::{push::Tail, reply};
use serde::Serialize;

use crate::access::{Gate, Grant};
use crate::command::Ticket;
use crate::metrics::WorkerMetrics;

/// How often connections are looked at for deadlines that have passed.
const SWEEP: Duration = Duration::from_millis(250);

/// Where a reply goes.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) connection: ConnectionId,
    pub(crate) id: RequestId,
    pub(crate) encoding: Encoding,
}

/// A connection and what its requests have under way.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    /// What the client may do; `None` until it has given a token, where one is needed.
    pub(crate) grant: Option<Arc<Grant>>,
    /// A request that was read but may not take effect yet.
    pub(crate) held: Option<(Encoding, Decoded)>,
    /// The counter under which it last asked for something as of a time: a transaction must get a later one.
    pub(crate) asked_as_of: Option<u64>,
    /// A request that changes the catalog is on its way: nothing else is read until it has.
    pub(crate) control: Option<Ticket>,
    /// Bytes of transactions that wait for their place in the order.
    pub(crate) waiting_bytes: usize,
    /// Requests without a reply.
    pub(crate) unanswered: usize,
    /// Subscriptions by the number that the client knows.
    pub(crate) subs: BTreeMap<u64, Ticket>,
    pub(crate) next_sub: u64,
    queued: bool,
    closing: bool,
}

/// What a look at a connection gave.
pub(crate) enum Next {
    /// Something to act on.
    Incoming(Incoming),
    /// A request held back earlier.
    Held(Encoding, Decoded),
    /// Nothing for now.
    Nothing,
}

/// All of a worker's connections.
pub(crate) struct Connections {
    mailbox: Mailbox,
    sessions: HashMap<ConnectionId, Session>,
    /// Connections with something to read or inside; each at most once.
    turns: VecDeque<ConnectionId>,
    /// Connections whose next request waits for something other than the next turn; looked at when there is a turn.
    blocked: Vec<ConnectionId>,
    /// Connections with something to write.
    writes: Vec<ConnectionId>,
    /// Subscriptions of connections that have ended.
    orphans: Vec<Ticket>,
    swept: Instant,
    pub(crate) now: Instant,
    pub(crate) inbox_bytes: usize,
    metrics: WorkerMetrics,
    gate: Arc<Gate>,
    /// Of the rules that all grants are up to date with.
    rules_version: u64,
    opened: Vec<Connection>,
    ready: Vec<(ConnectionId, Readiness)>,
}

impl Connections {
    pub(crate) fn new(mailbox: Mailbox, metrics: WorkerMetrics, gate: Arc<Gate>) -> Self {
        let now = Instant::now();
        Connections {
            mailbox,
            sessions: HashMap::new(),
            turns: VecDeque::new(),
            blocked: Vec::new(),
            writes: Vec::new(),
            orphans: Vec::new(),
            swept: now,
            now,
            inbox_bytes: usize::MAX,
            metrics,
            rules_version: gate.version(),
            gate,
            opened: Vec::new(),
            ready: Vec::new(),
        }
    }

    /// Must be called first, on the worker's thread.
    pub(crate) fn attach(&self) {
        self.mailbox.attach();
    }

    /// Takes new connections and what the poller saw of the others; whether there was anything.
    pub(crate) fn accept(&mut self) -> bool {
        self.now = Instant::now();
        self.mailbox.take_opened(&mut self.opened);
        self.mailbox.take_ready(&mut self.ready);
        let any = !self.opened.is_empty() || !self.ready.is_empty();
        for connection in std::mem::take(&mut self.opened) {
            let id = connection.id();
            self.sessions.insert(id, Session::new(connection, &self.gate));
            self.schedule(id);
        }
        for (id, readiness) in std::mem::take(&mut self.ready) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.connection.ready(readiness);
                if readiness.writable {
                    self.writes.push(id);
                }
                self.schedule(id);
            }
        }
        self.sweep();
        self.metrics.connections.set(self.sessions.len() as i64);
        any
    }

    fn sweep(&mut self) {
        if self.now.duration_since(self.swept) < SWEEP {
            return;
        }
        self.swept = self.now;
        self.renew_grants();
        for (id, session) in &mut self.sessions {
            if session.connection.deadline().is_some_and(|deadline| deadline <= self.now) {
                if let Some(violation) = session.connection.expire(self.now) {
                    session.connection.close(violation.close(), self.now);
                }
                self.writes.push(*id);
            }
        }
    }

    /// Judges all connections anew if the rules have changed.
    fn renew_grants(&mut self) {
        let version = self.gate.version();
        if version == std::mem::replace(&mut self.rules_version, version) {
            return;
        }
        let mut gone = Vec::new();
        for (id, session) in &mut self.sessions {
            if let Some(grant) = &session.grant {
                session.grant = self.gate.renewed(grant);
                gone.extend(session.grant.is_none().then_some(*id));
            }
        }
        gone.into_iter().for_each(|id| self.expel(id));
    }

    /// What the client of a connection may do; `None` until it has given a token, where one is needed.
    pub(crate) fn grant(&self, id: ConnectionId) -> Option<Arc<Grant>> {
        self.sessions.get(&id)?.grant.as_ref().map(Arc::clone)
    }

    /// From now on the client may do this.
    pub(crate) fn admit(&mut self, id: ConnectionId, grant: Arc<Grant>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.grant = Some(grant);
            session.connection.expect_greeting(false);
        }
    }

    /// Where a connection comes from.
    pub(crate) fn peer(&self, id: ConnectionId) -> Option<Peer<'_>> {
        self.sessions.get(&id).map(|session| session.connection.peer())
    }

    /// Closes a connection whose client isn't let in; what it was told goes out before.
    pub(crate) fn expel(&mut self, id: ConnectionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.closing = true;
            session.connection.close(Close::Policy, self.now);
            self.writes.push(id);
        }
    }

    /// Connections whose turn it is, in order; each is asked once a turn.
    pub(crate) fn turn(&mut self) -> VecDeque<ConnectionId> {
        for id in std::mem::take(&mut self.blocked) {
            self.schedule(id);
        }
        let turn = std::mem::take(&mut self.turns);
        for id in &turn {
            if let Some(session) = self.sessions.get_mut(id) {
                session.queued = false;
            }
        }
        turn
    }

    /// Puts a connection in the queue for being read.
    pub(crate) fn schedule(&mut self, id: ConnectionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let may_go_on = session.control.is_none() && session.waiting_bytes <= self.inbox_bytes;
            if may_go_on && !session.queued && !session.closing {
                session.queued = true;
                self.turns.push_back(id);
            }
        }
    }

    /// Whether a connection waits for being read.
    pub(crate) fn waiting(&self) -> bool {
        !self.turns.is_empty()
    }

    pub(crate) fn session(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// What a connection has next, reading at most what is left of `budget`.
    pub(crate) fn next(&mut self, id: ConnectionId, budget: &mut usize) -> Next {
        let Some(session) = self.sessions.get_mut(&id) else { return Next::Nothing };
        if session.control.is_some() || session.closing || session.waiting_bytes > self.inbox_bytes {
            return Next::Nothing;
        }
        if let Some((encoding, held)) = session.held.take() {
            return Next::Held(encoding, held);
        }
        loop {
            match session.connection.next(self.now) {
                Some(Ok(incoming)) => {
                    session.unanswered += 1;
                    return Next::Incoming(incoming);
                }
                Some(Err(violation)) => {
                    session.closing = true;
                    session.connection.close(violation.close(), self.now);
                    self.writes.push(id);
                    return Next::Nothing;
                }
                None => {}
            }
            if *budget == 0 || !session.connection.wants_read() {
                break;
            }
            let count = session.connection.read(*budget, self.now);
            *budget -= count.min(*budget);
            self.metrics.read_bytes.inc_by(count as u64);
            if count == 0 && !session.connection.input_ended() {
                break;
            }
        }
        // A connection that writes by itself, as an echo does, has something to flush after reading.
        self.writes.push(id);
        if session.connection.wants_read() {
            self.schedule(id);
        }
        Next::Nothing
    }

    /// Keeps a request that may not take effect yet; it is the connection's next. Whether to have another turn for it
    /// at once, or when something else has happened.
    pub(crate) fn hold(&mut self, id: ConnectionId, encoding: Encoding, request: Decoded, at_once: bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.held = Some((encoding, request));
        }
        if at_once { self.schedule(id) } else { self.blocked.push(id) }
    }

    /// The connection isn't read until [`Self::resume`].
    pub(crate) fn suspend(&mut self, id: ConnectionId, ticket: Ticket) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.control = Some(ticket);
        }
    }

    /// The request that the connection was suspended for has been applied or has failed.
    pub(crate) fn resume(&mut self, id: ConnectionId, ticket: Ticket) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| session.control == Some(ticket)) {
            session.control = None;
            self.schedule(id);
        }
    }

    /// Answers with `{"ok": body}`.
    pub(crate) fn ok(&mut self, caller: &Caller, body: &(impl Serialize + ?Sized)) {
        self.reply(caller, reply::ok(caller.encoding, &caller.id, body));
    }

    /// Answers with `{"error": …}`.
    pub(crate) fn error(&mut self, caller: &Caller, error: &ErrorBody) {
        self.reply(caller, reply::error(caller.encoding, &caller.id, error));
    }

    /// Answers with an encoded reply; nobody is told if the connection is gone.
    pub(crate) fn reply(&mut self, caller: &Caller, bytes: Vec<u8>) {
        if let Some(session) = self.sessions.get_mut(&caller.connection) {
            session.unanswered = session.unanswered.saturating_sub(1);
            session.connection.queue(caller.encoding, &[], Bytes::from(bytes));
            self.writes.push(caller.connection);
            self.metrics.messages.inc();
            if session.held.is_some() {
                self.schedule(caller.connection);
            }
        }
    }

    /// Answers a plain HTTP request.
    pub(crate) fn respond(&mut self, id: ConnectionId, response: HttpResponse) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.unanswered = session.unanswered.saturating_sub(1);
            session.connection.respond(response);
            self.writes.push(id);
        }
        self.schedule(id);
    }

    /// Pushes a message of a subscription.
    pub(crate) fn push(&mut self, id: ConnectionId, sub: u64, tail: &Tail) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.connection.queue(tail.encoding(), &tail.head(sub), tail.bytes().clone());
            self.writes.push(id);
            self.metrics.messages.inc();
        }
    }

    /// Bytes that a connection's client hasn't taken yet.
    pub(crate) fn outbox_bytes(&self, id: ConnectionId) -> usize {
        self.sessions.get(&id).map_or(0, |session| session.connection.outbox_bytes())
    }

    /// From now on a client that takes nothing is cut off after a while.
    pub(crate) fn limit_stall(&mut self, id: ConnectionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.connection.limit_stall(self.now);
        }
    }

    /// Writes what sockets take and drops connections that are over; whether some could go on at once.
    pub(crate) fn flush(&mut self) -> bool {
        let mut writes = std::mem::take(&mut self.writes);
        writes.sort_unstable();
        writes.dedup();
        for id in writes {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.connection.flush(self.now);
            let idle =
                session.unanswered == 0 && session.held.is_none() && session.connection.outbox_bytes() == 0;
            if session.connection.input_ended() && idle && !session.closing && !session.queued {
                session.closing = true;
                session.connection.close(Close::Normal, self.now);
                session.connection.flush(self.now);
            }
            if session.connection.is_finished() {
                if let Some(session) = self.sessions.remove(&id) {
                    self.orphans.extend(session.subs.into_values());
                }
            } else if session.connection.wants_read() {
                self.schedule(id);
            }
        }
        self.waiting()
    }

    /// Subscriptions whose connections have ended since the last call.
    pub(crate) fn take_orphans(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.orphans)
    }

    /// Begins to close all connections.
    pub(crate) fn close_all(&mut self, reason: Close) {
        for (id, session) in &mut self.sessions {
            session.closing = true;
            session.connection.close(reason, self.now);
            self.writes.push(*id);
        }
    }
}

impl Session {
    fn new(mut connection: Connection, gate: &Gate) -> Self {
        let grant = gate.first_grant(connection.take_upgrade().as_deref(), connection.peer().address);
        let plain_http = connection.kind() == Some(Kind::Http);
        connection.expect_greeting(grant.is_none() && !plain_http);
        Session {
            connection,
            grant,
            held: None,
            asked_as_of: None,
            control: None,
            waiting_bytes: 0,
            unanswered: 0,
            subs: BTreeMap::new(),
            next_sub: 1,
            queued: false,
            closing: false,
        }
    }
}
