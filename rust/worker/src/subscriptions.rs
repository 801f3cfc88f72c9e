//! The subscriptions of a worker's clients, and how a step reaches them.
//!
//! A step of a relation comes to this worker once, however many of its clients want it, and is encoded once for each
//! encoding and filter among them. A subscription starts at the time c of its place in the order: steps up to c are
//! not for it, later ones are held back until the contents as of c have been sent. Who reads too slowly to take more
//! gets consecutive steps merged, up to a limit, and is then told `busy`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use dataflow_engine::{Changes, Engine, Step};
use dataflow_net::connection::ConnectionId;
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::request::{Filter, Schema};
use dataflow_protocol::response::push::{self, Tail};

use crate::backlog::{Backlog, filtered};
use crate::command::Ticket;
use crate::config::Tunables;
use crate::connections::{Caller, Connections};

/// Slices of a snapshot that may wait for their reader, as words; beyond, the subscription ends with `busy`.
const SNAPSHOT_BYTES: usize = 256 << 20;

/// Where a subscription is in its life.
#[derive(Debug)]
enum Stage {
    /// Its place in the order isn't known yet.
    Sequencing,
    /// Its snapshot must start again, and that isn't in the order yet: until then nothing is for it.
    Restarting,
    /// Its contents are on their way.
    Snapshot,
    /// Steps go out as they come.
    Live,
}

/// What came of a snapshot and waits to be sent. It may come before the owner has applied the command that asks for
/// it, since every worker sends its part when it applies it.
#[derive(Debug)]
struct Arrived {
    /// Workers that haven't sent all of their part.
    missing: usize,
    slices: VecDeque<Changes>,
    bytes: usize,
}

impl Arrived {
    fn nothing(workers: usize) -> Self {
        Arrived { missing: workers, slices: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, changes: Changes, end: bool) {
        self.missing -= usize::from(end && self.missing > 0);
        if !changes.rows.is_empty() {
            self.bytes += Self::bytes(&changes);
            self.slices.push_back(changes);
        }
    }

    /// The next slice, and whether it is the last one, which may be empty. One is held back until it is known whether
    /// it is the last: most snapshots are small, and so a single message.
    fn pop(&mut self, width: usize) -> Option<(Changes, bool)> {
        let last = self.missing == 0 && self.slices.len() <= 1;
        if self.missing > 0 && self.slices.len() < 2 {
            return None;
        }
        let changes = self.slices.pop_front().unwrap_or_else(|| Changes::new(width));
        self.bytes -= Self::bytes(&changes).min(self.bytes);
        Some((changes, last))
    }

    fn bytes(changes: &Changes) -> usize {
        changes.rows.bytes() + changes.diffs.len() * size_of::<i64>()
    }
}

/// A client's subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) caller: Caller,
    pub(crate) relation: Arc<Schema>,
    pub(crate) filter: Filter,
    pub(crate) snapshot: bool,
    pub(crate) resync: bool,
    sub: u64,
    progress: bool,
    stage: Stage,
    arrived: Arrived,
    /// Steps up to this time aren't for it.
    from: Time,
    /// The last time of which everything has been sent.
    reached: Time,
    /// The last time that was reported as progress.
    told: Time,
    backlog: Backlog,
}

/// All subscriptions of a worker's clients.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    all: HashMap<Ticket, Subscription>,
    by_relation: HashMap<RelationId, Vec<Ticket>>,
    /// Those with something to send as soon as their client takes it.
    behind: HashSet<Ticket>,
    /// See [`Self::take_given_up`].
    given_up: Vec<RelationId>,
    /// Times of transactions, in order, that some subscriber may have to hear of.
    transactions: VecDeque<Time>,
}

impl Subscription {
    pub(crate) fn new(
        caller: Caller,
        sub: u64,
        relation: Arc<Schema>,
        filter: Filter,
        snapshot: bool,
        workers: usize,
    ) -> Self {
        Subscription {
            caller,
            relation,
            filter,
            snapshot,
            resync: false,
            sub,
            progress: false,
            stage: Stage::Sequencing,
            arrived: Arrived::nothing(workers),
            from: 0,
            reached: 0,
            told: 0,
            backlog: Backlog::default(),
        }
    }

    pub(crate) fn with_progress(mut self, progress: bool) -> Self {
        self.progress = progress;
        self
    }

    pub(crate) fn sub(&self) -> u64 {
        self.sub
    }

    fn connection(&self) -> ConnectionId {
        self.caller.connection
    }

    fn encode(&self, step: push::Step, changes: &Changes, tunables: &Tunables) -> Vec<Tail> {
        let (columns, bytes) = (&self.relation.columns, tunables.batch_bytes as usize);
        push::changes(self.caller.encoding, columns, step, &changes.rows, &changes.diffs, bytes)
    }

    fn send(&self, net: &mut Connections, tails: &[Tail]) {
        tails.iter().for_each(|tail| net.push(self.connection(), self.sub, tail));
    }
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes note of a subscription that is on its way to the sequencer.
    pub(crate) fn add(&mut self, ticket: Ticket, subscription: Subscription) {
        self.all.insert(ticket, subscription);
    }

    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Subscription> {
        self.all.get_mut(&ticket)
    }

    /// Its place in the order is `time`: steps after it are for the subscription, contents as of it come from all
    /// workers if it wants a snapshot. Also the way a snapshot starts again, at a later time.
    pub(crate) fn begin(&mut self, ticket: Ticket, time: Time) {
        let Some(subscription) = self.all.get_mut(&ticket) else { return };
        if matches!(subscription.stage, Stage::Sequencing) {
            self.by_relation.entry(subscription.relation.id).or_default().push(ticket);
        }
        subscription.from = time;
        subscription.reached = time;
        subscription.told = time;
        subscription.stage = if subscription.snapshot { Stage::Snapshot } else { Stage::Live };
        if subscription.snapshot {
            self.behind.insert(ticket);
        }
    }

    /// A snapshot that must start again has got its place in the order.
    pub(crate) fn begin_again(&mut self, ticket: Ticket, time: Time) {
        if self.all.get(&ticket).is_some_and(|subscription| matches!(subscription.stage, Stage::Restarting)) {
            self.begin(ticket, time);
        }
    }

    /// Gives a subscription whose snapshot must start again its new ticket: slices under the old one are late.
    pub(crate) fn restart(
        &mut self,
        old: Ticket,
        new: Ticket,
        workers: usize,
        net: &mut Connections,
    ) -> Option<&Subscription> {
        let mut subscription = self.all.remove(&old)?;
        subscription.stage = Stage::Restarting;
        subscription.arrived = Arrived::nothing(workers);
        subscription.resync = true;
        subscription.backlog = Backlog::default();
        self.behind.remove(&old);
        let tickets = self.by_relation.entry(subscription.relation.id).or_default();
        tickets.iter_mut().filter(|ticket| **ticket == old).for_each(|ticket| *ticket = new);
        if let Some(session) = net.session(subscription.connection()) {
            session.subs.insert(subscription.sub, new);
        }
        Some(self.all.entry(new).or_insert(subscription))
    }

    /// Forgets a subscription.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Subscription> {
        let subscription = self.all.remove(&ticket)?;
        self.behind.remove(&ticket);
        if let Some(tickets) = self.by_relation.get_mut(&subscription.relation.id) {
            tickets.retain(|other| *other != ticket);
            if tickets.is_empty() {
                self.by_relation.remove(&subscription.relation.id);
            }
        }
        Some(subscription)
    }

    /// Ends a subscription from the server's side.
    pub(crate) fn end(
        &mut self,
        ticket: Ticket,
        net: &mut Connections,
        error: &ErrorBody,
    ) -> Option<Subscription> {
        let subscription = self.remove(ticket)?;
        if let Some(session) = net.session(subscription.connection()) {
            session.subs.remove(&subscription.sub);
        }
        subscription.send(net, &[push::ended(subscription.caller.encoding, error)]);
        Some(subscription)
    }

    /// Ends all subscriptions of a relation that is gone.
    pub(crate) fn end_relation(&mut self, relation: RelationId, net: &mut Connections) {
        for ticket in self.by_relation.remove(&relation).unwrap_or_default() {
            let name = self.all.get(&ticket).map_or_else(String::new, |s| s.relation.name.clone());
            let error = ErrorBody::not_found(format!("relation {name:?} was unregistered"));
            self.end(ticket, net, &error);
        }
    }

    /// Ends all subscriptions.
    pub(crate) fn end_all(&mut self, net: &mut Connections, error: &ErrorBody) {
        for ticket in self.all.keys().copied().collect::<Vec<_>>() {
            self.end(ticket, net, error);
        }
    }

    /// Part of the contents for a subscription that is waiting for them.
    pub(crate) fn slice(&mut self, ticket: Ticket, changes: Changes, end: bool) {
        let Some(subscription) = self.all.get_mut(&ticket) else { return };
        subscription.arrived.push(changes, end);
        if matches!(subscription.stage, Stage::Snapshot) {
            self.behind.insert(ticket);
        }
    }

    /// A finished step of a relation. Returns the subscriptions whose snapshot must start again.
    pub(crate) fn step(&mut self, step: Step, net: &mut Connections, tunables: &Tunables) -> Vec<Ticket> {
        let step = Rc::new(step);
        let mut shared = Shared::default();
        let mut restart = Vec::new();
        for ticket in self.by_relation.get(&step.relation).cloned().unwrap_or_default() {
            let Some(subscription) = self.all.get_mut(&ticket) else { continue };
            if step.time <= subscription.from || matches!(subscription.stage, Stage::Restarting) {
                continue;
            }
            let live = matches!(subscription.stage, Stage::Live) && subscription.backlog.is_empty();
            if live && net.outbox_bytes(subscription.connection()) < tunables.outbox_bytes as usize {
                shared.send(&step, subscription, net, tunables);
                subscription.reached = step.time;
                continue;
            }
            let limit = tunables.backlog_rows as usize;
            if !subscription.backlog.push(Rc::clone(&step), &subscription.filter, limit) {
                if matches!(subscription.stage, Stage::Live) {
                    self.busy(ticket, net);
                } else {
                    restart.push(ticket);
                }
                continue;
            }
            self.behind.insert(ticket);
        }
        restart
    }

    /// Ends the subscription of a client that reads too slowly.
    fn busy(&mut self, ticket: Ticket, net: &mut Connections) {
        let Some(subscription) = self.all.get(&ticket) else { return };
        let message = format!("the subscriber of {:?} reads too slowly", subscription.relation.name);
        let error = ErrorBody::new(ErrorCode::Busy, message).with_time(subscription.reached);
        let (connection, relation) = (subscription.connection(), subscription.relation.id);
        self.end(ticket, net, &error);
        self.given_up.push(relation);
        net.limit_stall(connection);
    }

    /// Relations of subscriptions that were ended here: the other workers are to be told, once for each.
    pub(crate) fn take_given_up(&mut self) -> Vec<RelationId> {
        std::mem::take(&mut self.given_up)
    }

    /// Whether something waits that its client could take now: no event will come for it.
    pub(crate) fn may_catch_up(&self, net: &Connections, tunables: &Tunables) -> bool {
        let connections =
            self.behind.iter().filter_map(|ticket| self.all.get(ticket)).map(Subscription::connection);
        connections.into_iter().any(|id| net.outbox_bytes(id) < tunables.outbox_bytes as usize)
    }

    /// Sends what waits for clients that can take it again.
    pub(crate) fn catch_up(&mut self, net: &mut Connections, tunables: &Tunables) {
        for ticket in self.behind.iter().copied().collect::<Vec<_>>() {
            let Some(subscription) = self.all.get_mut(&ticket) else { continue };
            if subscription.send_behind(net, tunables) {
                self.behind.remove(&ticket);
            } else if subscription.arrived.bytes > SNAPSHOT_BYTES {
                self.busy(ticket, net);
            }
        }
    }

    /// Takes note of a time that was given to a transaction.
    pub(crate) fn transacted(&mut self, time: Time) {
        if self.transactions.back() != Some(&time) {
            self.transactions.push_back(time);
        }
    }

    /// Tells those who asked how far their relations have got.
    pub(crate) fn progress(&mut self, engine: &Engine, net: &mut Connections, tunables: &Tunables) {
        let Some(&last) = self.transactions.back() else { return };
        let mut slowest = last;
        for (relation, tickets) in &self.by_relation {
            let finished = engine.finished(*relation).unwrap_or_default();
            slowest = slowest.min(finished);
            let until = self.transactions.partition_point(|time| *time <= finished);
            let Some(time) = until.checked_sub(1).map(|index| self.transactions[index]) else { continue };
            for ticket in tickets {
                let Some(subscription) = self.all.get_mut(ticket) else { continue };
                let ready = matches!(subscription.stage, Stage::Live) && subscription.backlog.is_empty();
                if ready && subscription.progress && time > subscription.told {
                    subscription.report(time, net, tunables);
                }
            }
        }
        // The last time is kept for those who come up with it later; earlier ones once all have passed them.
        let passed = self.transactions.partition_point(|time| *time <= slowest);
        self.transactions.drain(..passed.min(self.transactions.len() - 1));
    }
}

impl Subscription {
    /// Sends `progress` unless the client has too much to read already: a later one says it as well.
    fn report(&mut self, time: Time, net: &mut Connections, tunables: &Tunables) {
        if net.outbox_bytes(self.connection()) < tunables.outbox_bytes as usize {
            self.send(net, &[push::progress(self.caller.encoding, time)]);
            self.told = time;
        }
    }

    /// Sends slices of the snapshot, then steps held back, while the client takes them; whether nothing is left.
    fn send_behind(&mut self, net: &mut Connections, tunables: &Tunables) -> bool {
        let room = |net: &Connections, id| net.outbox_bytes(id) < tunables.outbox_bytes as usize;
        let width = self.relation.columns.len();
        while matches!(self.stage, Stage::Snapshot) {
            if !room(net, self.caller.connection) {
                return false;
            }
            let Some((changes, last)) = self.arrived.pop(width) else { return true };
            let step = push::Step { time: self.from, snapshot: true, resync: self.resync, more: !last };
            let tails = self.encode(step, &changes, tunables);
            self.send(net, &tails);
            self.resync = false;
            if last {
                self.stage = Stage::Live;
                if self.progress {
                    self.send(net, &[push::progress(self.caller.encoding, self.from)]);
                }
            }
        }
        if !matches!(self.stage, Stage::Live) || !room(net, self.connection()) {
            return self.backlog.is_empty();
        }
        if let Some((time, changes)) = self.backlog.take(width, &self.filter) {
            if !changes.rows.is_empty() {
                let tails = self.encode(push::Step { time, ..push::Step::default() }, &changes, tunables);
                self.send(net, &tails);
            }
            self.reached = time;
        }
        true
    }
}

/// A step's messages, encoded once for all subscribers that want the same.
#[derive(Default)]
struct Shared {
    tails: Vec<(Encoding, Filter, Vec<Tail>)>,
}

impl Shared {
    fn send(&mut self, step: &Step, to: &Subscription, net: &mut Connections, tunables: &Tunables) {
        let wanted =
            |entry: &&(Encoding, Filter, Vec<Tail>)| entry.0 == to.caller.encoding && entry.1 == to.filter;
        if let Some((_, _, tails)) = self.tails.iter().find(wanted) {
            return to.send(net, tails);
        }
        let time = push::Step { time: step.time, ..push::Step::default() };
        let tails = if to.filter.is_empty() {
            to.encode(time, &step.changes, tunables)
        } else {
            let part = filtered(&step.changes, &to.filter);
            if part.rows.is_empty() { Vec::new() } else { to.encode(time, &part, tunables) }
        };
        to.send(net, &tails);
        self.tails.push((to.caller.encoding, to.filter.clone(), tails));
    }
}
