//! The connections that a worker owns: what their requests have under way, and whose turn it is.
//!
//! Their sockets are the worker's own ([`Sockets`]) or, with `--io-threads`, those of other threads ([`crate::io`]).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataflow_net::connection::{ConnectionId, Message};
use dataflow_net::error::Close;
use dataflow_net::http::{HttpRequest, HttpResponse, Peer};
use dataflow_net::poller::Mailbox;
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::ErrorBody;
use dataflow_protocol::request::{Decoded, RequestId};
use dataflow_protocol::response::{push::Tail, reply};
use serde::Serialize;

use crate::access::{Gate, Grant};
use crate::catalog::Catalog;
use crate::command::Ticket;
use crate::dispatch::{Dispatch, Parcel, Payload};
use crate::flow::{Ahead, Flow};
use crate::io::{Arrival, Hub, must_not_be_overtaken};
use crate::metrics::WorkerMetrics;
use crate::process::Process;
use crate::sockets::{Arrived, Fate, Requested, Sockets, decoded};
use crate::turns::Turns;

/// How often it is looked whether the rules of access have changed.
const RENEWING: Duration = Duration::from_millis(250);

/// Where a reply goes.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) connection: ConnectionId,
    pub(crate) id: RequestId,
    pub(crate) encoding: Encoding,
}

/// What a connection's requests have under way.
pub(crate) struct Session {
    flow: Arc<Flow>,
    /// It isn't let in, or not any more.
    expelled: bool,
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
    /// With I/O threads, what has been decoded and not taken.
    inbox: VecDeque<Waiting>,
    /// The thread that has the socket doesn't read it until it is told to.
    shut: bool,
}

/// Something that an I/O thread has decoded.
enum Waiting {
    Request(Encoding, Requested, Ahead),
    Http(HttpRequest),
}

/// What a look at a connection gave.
pub(crate) enum Next {
    /// A request, or why it is refused.
    Request(Encoding, Requested),
    /// A plain HTTP request.
    Http(HttpRequest),
    /// A request held back earlier.
    Held(Encoding, Decoded),
    /// Nothing for now.
    Nothing,
}

/// Where the sockets are.
enum Side {
    /// With this worker.
    Here(Sockets),
    /// With other threads.
    There(Remote),
}

/// The way to other threads.
struct Remote {
    mailbox: Mailbox,
    process: Arc<Process>,
    hub: Arc<Hub>,
    local: usize,
    /// For each thread what it hasn't been given yet.
    batches: Vec<Vec<Dispatch>>,
    /// Whether something has been taken that the thread had to wait for.
    taken: Vec<bool>,
    /// How often each thread has yet to close all connections: what it tells of until then is of those.
    closing: Vec<usize>,
    arrivals: Vec<Arrival>,
}

/// All of a worker's connections.
pub(crate) struct Connections {
    side: Side,
    sessions: HashMap<ConnectionId, Session>,
    /// Connections with something to read or inside.
    turns: Turns,
    /// Connections whose next request waits for something other than the next turn; looked at when there is a turn.
    blocked: Vec<ConnectionId>,
    /// Subscriptions of connections that have ended.
    orphans: Vec<Ticket>,
    /// Connections with the room that was waited for.
    relieved: Vec<ConnectionId>,
    pub(crate) now: Instant,
    inbox_bytes: usize,
    transaction_rows: usize,
    pub(crate) metrics: WorkerMetrics,
    gate: Arc<Gate>,
    /// Of the rules that all grants are up to date with.
    rules_version: u64,
    renewed: Instant,
}

impl Connections {
    /// Connections whose sockets are the calling worker's own.
    pub(crate) fn here(mailbox: Mailbox, process: &Process, local: usize) -> Self {
        Self::new(Side::Here(Sockets::new(mailbox, process)), process, local)
    }

    /// Connections whose sockets are with the threads of `hub`.
    pub(crate) fn there(mailbox: Mailbox, process: &Arc<Process>, hub: Arc<Hub>, local: usize) -> Self {
        let remote = Remote {
            mailbox,
            process: Arc::clone(process),
            local,
            batches: (0..hub.threads()).map(|_| Vec::new()).collect(),
            taken: vec![false; hub.threads()],
            closing: vec![0; hub.threads()],
            arrivals: Vec::new(),
            hub,
        };
        Self::new(Side::There(remote), process, local)
    }

    fn new(side: Side, process: &Process, local: usize) -> Self {
        let (gate, now) = (Arc::clone(&process.gate), Instant::now());
        Connections {
            side,
            sessions: HashMap::new(),
            turns: Turns::default(),
            blocked: Vec::new(),
            orphans: Vec::new(),
            relieved: Vec::new(),
            now,
            inbox_bytes: usize::MAX,
            transaction_rows: usize::MAX,
            metrics: process.metrics.worker(local),
            rules_version: gate.version(),
            gate,
            renewed: now,
        }
    }

    /// Must be called first, on the worker's thread.
    pub(crate) fn attach(&self) {
        match &self.side {
            Side::Here(sockets) => sockets.attach(),
            Side::There(remote) => remote.mailbox.attach(),
        }
    }

    /// How many bytes of a connection's transactions may wait before it isn't read further, and how many rows each may
    /// have.
    pub(crate) fn limit(&mut self, inbox_bytes: usize, transaction_rows: usize) {
        if (self.inbox_bytes, self.transaction_rows) != (inbox_bytes, transaction_rows) {
            (self.inbox_bytes, self.transaction_rows) = (inbox_bytes, transaction_rows);
            if let Side::There(remote) = &self.side {
                remote.hub.limit(remote.local, inbox_bytes, transaction_rows);
            }
        }
    }

    /// From now on requests are decoded against this catalog, wherever that is done.
    pub(crate) fn publish(&self, catalog: &Catalog) {
        if let Side::There(remote) = &self.side {
            remote.hub.publish(remote.local, Arc::new(catalog.clone()));
        }
    }

    /// Takes new connections and what has come of the others; whether there was anything.
    pub(crate) fn accept(&mut self) -> bool {
        self.now = Instant::now();
        self.renew_grants();
        match &mut self.side {
            Side::Here(sockets) => {
                let sessions = &mut self.sessions;
                sockets.accept(&mut self.turns, |id, _, flow| {
                    sessions.insert(id, Session::new(flow));
                })
            }
            Side::There(remote) => {
                remote.hub.take_arrivals(remote.local, &mut remote.arrivals);
                let arrivals = std::mem::take(&mut remote.arrivals);
                let any = !arrivals.is_empty();
                arrivals.into_iter().for_each(|arrival| self.arrived(arrival));
                any
            }
        }
    }

    /// Judges all connections anew if the rules have changed.
    fn renew_grants(&mut self) {
        if self.now.duration_since(self.renewed) < RENEWING {
            return;
        }
        self.renewed = self.now;
        let version = self.gate.version();
        if version == std::mem::replace(&mut self.rules_version, version) {
            return;
        }
        let mut gone = Vec::new();
        for (id, session) in &self.sessions {
            if let Some(grant) = session.flow.grant() {
                let renewed = self.gate.renewed(&grant);
                gone.extend(renewed.is_none().then_some(*id));
                session.flow.set_grant(renewed);
            }
        }
        gone.into_iter().for_each(|id| self.expel(id));
    }

    /// What the client of a connection may do; `None` until it has given a token, where one is needed.
    pub(crate) fn grant(&self, id: ConnectionId) -> Option<Arc<Grant>> {
        self.sessions.get(&id)?.flow.grant()
    }

    /// From now on the client may do this.
    pub(crate) fn admit(&mut self, id: ConnectionId, grant: Arc<Grant>) {
        if let Some(session) = self.sessions.get(&id) {
            session.flow.set_grant(Some(grant));
            self.dispatch(id, 0, Dispatch::Admit(id));
        }
    }

    /// Where a connection comes from.
    pub(crate) fn peer(&self, id: ConnectionId) -> Option<Peer<'_>> {
        self.sessions.get(&id).map(|session| session.flow.peer())
    }

    /// Closes a connection whose client isn't let in; what it was told goes out before, what it has sent is forgotten.
    pub(crate) fn expel(&mut self, id: ConnectionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.expelled = true;
            session.inbox.clear();
            self.dispatch(id, 0, Dispatch::Expel(id));
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        let (id, waiting) = match arrival {
            Arrival::Opened(id, flow) => {
                let expelled = self.is_closing(id);
                self.sessions.insert(id, Session { expelled, ..Session::new(&flow) });
                return;
            }
            Arrival::Became(id, fate) => return self.became(id, fate),
            Arrival::AllClosed(thread) => {
                if let Side::There(remote) = &mut self.side {
                    remote.closing[thread] = remote.closing[thread].saturating_sub(1);
                }
                return;
            }
            Arrival::Request(id, encoding, read, ahead) => (id, Waiting::Request(encoding, read, ahead)),
            Arrival::Http(id, request) => (id, Waiting::Http(request)),
        };
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.expelled) {
            session.inbox.push_back(waiting);
            self.schedule(id);
        }
    }

    /// Whether the connection is one of those that its thread has yet to close.
    fn is_closing(&self, id: ConnectionId) -> bool {
        matches!(&self.side, Side::There(remote) if remote.closing[remote.hub.thread_of(id)] > 0)
    }

    fn became(&mut self, id: ConnectionId, fate: Fate) {
        match fate {
            Fate::Relieved => self.relieved.push(id),
            Fate::Ended => {
                if let Some(session) = self.sessions.remove(&id) {
                    self.orphans.extend(session.subs.into_values());
                }
            }
        }
    }

    /// Connections whose turn it is, in order; each is asked once a turn.
    pub(crate) fn turn(&mut self) -> VecDeque<ConnectionId> {
        for id in std::mem::take(&mut self.blocked) {
            self.schedule(id);
        }
        self.turns.take()
    }

    /// Puts a connection in the queue for being read, unless it must wait for something else.
    pub(crate) fn schedule(&mut self, id: ConnectionId) {
        if self.sessions.get(&id).is_some_and(|session| session.may_go_on(self.inbox_bytes)) {
            self.turns.schedule(id);
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

    /// What a connection has next, reading at most what is left of `budget`. Where that is done here, it is decoded
    /// against `catalog`.
    pub(crate) fn next(&mut self, id: ConnectionId, budget: &mut usize, catalog: &Catalog) -> Next {
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.may_go_on(self.inbox_bytes)) else {
            return Next::Nothing;
        };
        if let Some((encoding, held)) = session.held.take() {
            return Next::Held(encoding, held);
        }
        let rows = self.transaction_rows;
        let decode = |message: &Message, flow: &Flow| decoded(message, catalog, flow, rows);
        let next = match &mut self.side {
            Side::Here(sockets) => match sockets.next(id, budget, decode, &mut self.turns) {
                None => return Next::Nothing,
                Some(Arrived::Http(request)) => Next::Http(request),
                Some(Arrived::Request(encoding, read, _)) => Next::Request(encoding, read),
            },
            Side::There(remote) => {
                let Some(waiting) = session.inbox.pop_front() else { return Next::Nothing };
                remote.taken[remote.hub.thread_of(id)] = true;
                match waiting {
                    Waiting::Http(request) => Next::Http(request),
                    Waiting::Request(encoding, read, ahead) => {
                        *budget -= ahead.bytes().min(*budget);
                        session.shut = must_not_be_overtaken(&read);
                        Next::Request(encoding, read)
                    }
                }
            }
        };
        session.unanswered += 1;
        next
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
            self.go_on(id);
        }
    }

    /// A request of the connection has been looked at; whether to ask it for the next one.
    pub(crate) fn go_on(&mut self, id: ConnectionId) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        if session.held.is_some() {
            return false;
        }
        if session.control.is_none() && session.shut {
            session.shut = false;
            self.dispatch(id, 0, Dispatch::Resume(id));
        }
        true
    }

    /// Answers with `{"ok": body}`.
    pub(crate) fn ok(&mut self, caller: &Caller, body: &(impl Serialize + ?Sized)) {
        self.reply(caller, Payload::Bytes(reply::ok(caller.encoding, &caller.id, body)));
    }

    /// Answers with `{"error": …}`.
    pub(crate) fn error(&mut self, caller: &Caller, error: &ErrorBody) {
        self.reply(caller, Payload::Bytes(reply::error(caller.encoding, &caller.id, error)));
    }

    /// Answers a request that held up its connection with an error, and goes on with the next one.
    pub(crate) fn refuse(&mut self, caller: &Caller, ticket: Ticket, error: &ErrorBody) {
        self.error(caller, error);
        self.resume(caller.connection, ticket);
    }

    /// Answers with an encoded reply; nobody is told if the connection is gone.
    pub(crate) fn reply(&mut self, caller: &Caller, payload: Payload) {
        let id = caller.connection;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.unanswered = session.unanswered.saturating_sub(1);
            let held = session.held.is_some();
            self.dispatch(id, payload.weight(), Dispatch::Reply(id, caller.encoding, payload));
            if held {
                self.schedule(id);
            }
        }
    }

    /// Answers a plain HTTP request.
    pub(crate) fn respond(&mut self, id: ConnectionId, response: HttpResponse) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.unanswered = session.unanswered.saturating_sub(1);
            self.dispatch(id, 0, Dispatch::Respond(id, response));
        }
    }

    /// Pushes a message of a subscription.
    pub(crate) fn push(&mut self, id: ConnectionId, sub: u64, tail: Tail) {
        self.dispatch(id, tail.bytes().len(), Dispatch::Push(id, sub, tail));
    }

    /// Pushes rows to subscriptions, encoded once, or once for each thread that has some of their sockets.
    pub(crate) fn push_rows(&mut self, parcel: Parcel, to: Vec<(ConnectionId, u64)>) {
        match &mut self.side {
            Side::Here(sockets) => sockets.carry_out(Dispatch::Parcel(parcel, to), &mut self.turns),
            Side::There(remote) => {
                let weight = parcel.weight();
                let mut parts = vec![Vec::new(); remote.batches.len()];
                for (id, sub) in to {
                    if let Some(session) = self.sessions.get(&id) {
                        session.flow.sent(weight);
                        parts[remote.hub.thread_of(id)].push((id, sub));
                    }
                }
                for (batch, part) in remote.batches.iter_mut().zip(parts) {
                    if !part.is_empty() {
                        batch.push(Dispatch::Parcel(parcel.clone(), part));
                    }
                }
            }
        }
    }

    fn dispatch(&mut self, id: ConnectionId, weight: usize, dispatch: Dispatch) {
        match &mut self.side {
            Side::Here(sockets) => sockets.carry_out(dispatch, &mut self.turns),
            Side::There(remote) => {
                if let Some(session) = self.sessions.get(&id) {
                    session.flow.sent(weight);
                    remote.batches[remote.hub.thread_of(id)].push(dispatch);
                }
            }
        }
    }

    /// Bytes that a connection's client hasn't taken yet.
    pub(crate) fn outbox_bytes(&self, id: ConnectionId) -> usize {
        match &self.side {
            Side::Here(sockets) => sockets.outbox_bytes(id),
            Side::There(_) => self.sessions.get(&id).map_or(0, |session| session.flow.outbox_bytes()),
        }
    }

    /// The connections with the most bytes that aren't taken, at most `count` of them, those without any aside.
    pub(crate) fn longest_queues(&self, count: usize) -> Vec<(ConnectionId, usize)> {
        let queued = |id: &ConnectionId| (*id, self.outbox_bytes(*id));
        let mut queues: Vec<_> = self.sessions.keys().map(queued).filter(|(_, bytes)| *bytes > 0).collect();
        queues.sort_unstable_by_key(|&(id, bytes)| (std::cmp::Reverse(bytes), id));
        queues.truncate(count);
        queues
    }

    /// [`Self::take_relieved`] has the connection when its client has taken all but fewer bytes than these.
    pub(crate) fn await_room(&mut self, id: ConnectionId, below: usize) {
        self.dispatch(id, 0, Dispatch::AwaitRoom(id, below));
    }

    /// Whether some connection has the room that was waited for.
    pub(crate) fn any_relieved(&self) -> bool {
        !self.relieved.is_empty()
    }

    /// Connections with the room that was waited for.
    pub(crate) fn take_relieved(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.relieved)
    }

    /// From now on a client that takes nothing is cut off after a while.
    pub(crate) fn limit_stall(&mut self, id: ConnectionId) {
        self.dispatch(id, 0, Dispatch::LimitStall(id));
    }

    /// Writes what sockets take and drops connections that are over, or has it done; whether some could go on at once.
    pub(crate) fn flush(&mut self) -> bool {
        match &mut self.side {
            Side::Here(sockets) => {
                let mut fates = Vec::new();
                sockets.flush(&mut self.turns, |id, _, fate| fates.extend(fate.map(|fate| (id, fate))));
                fates.into_iter().for_each(|(id, fate)| self.became(id, fate));
            }
            Side::There(remote) => remote.deliver(),
        }
        self.waiting()
    }

    /// Subscriptions whose connections have ended since the last call.
    pub(crate) fn take_orphans(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.orphans)
    }

    /// Begins to close all connections. What they had under way and what they have sent is forgotten, and what is
    /// decoded from now on is decoded against an empty catalog: nothing of this generation reaches the next.
    pub(crate) fn close_all(&mut self, local: usize, reason: Close) {
        self.orphans.clear();
        self.blocked.clear();
        self.relieved.clear();
        self.sessions.values_mut().for_each(Session::forget);
        self.publish(&Catalog::default());
        match &mut self.side {
            Side::Here(sockets) => sockets.carry_out(Dispatch::CloseAll(local, reason), &mut self.turns),
            Side::There(remote) => {
                remote.closing.iter_mut().for_each(|closing| *closing += 1);
                remote.batches.iter_mut().for_each(|batch| batch.push(Dispatch::CloseAll(local, reason)));
            }
        }
    }
}

impl Session {
    fn new(flow: &Arc<Flow>) -> Self {
        Session {
            flow: Arc::clone(flow),
            expelled: false,
            held: None,
            asked_as_of: None,
            control: None,
            waiting_bytes: 0,
            unanswered: 0,
            subs: BTreeMap::new(),
            next_sub: 1,
            inbox: VecDeque::new(),
            shut: false,
        }
    }

    /// Nothing that it has asked for matters any more, and nothing more is taken from it.
    fn forget(&mut self) {
        self.expelled = true;
        self.held = None;
        self.control = None;
        self.subs.clear();
        self.inbox.clear();
    }

    fn may_go_on(&self, inbox_bytes: usize) -> bool {
        !self.expelled && self.control.is_none() && self.waiting_bytes <= inbox_bytes
    }
}

impl Remote {
    /// Gives the threads what is for them, and wakes those that have something to do.
    fn deliver(&mut self) {
        for (thread, batch) in self.batches.iter_mut().enumerate() {
            let taken = std::mem::take(&mut self.taken[thread]);
            if !batch.is_empty() {
                self.hub.dispatch(thread, batch);
            } else if !taken {
                continue;
            }
            self.process.wake_io(thread);
        }
    }
}
