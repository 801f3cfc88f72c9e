//! The subscriptions of a worker's clients, and how a step reaches them.
//!
//! A step of a relation comes to this worker once, however many of its clients want it, and is encoded once for each
//! encoding and filter among them. A subscription starts at the time c of its place in the order: steps up to c are
//! not for it, later ones are held back until the contents as of c have been sent. Who reads too slowly to take more
//! gets consecutive steps merged, up to a limit, and is then told `busy`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use dataflow_engine::{Changes, Engine, Step};
use dataflow_net::connection::ConnectionId;
use dataflow_protocol::dictionary::sweep::{self, Pin};
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::order::Ranking;
use dataflow_protocol::request::{Filter, Schema, Slow, Subscribe};
use dataflow_protocol::response::push::{self, Tail};
use dataflow_protocol::value::Word;

use crate::backlog::Backlog;
use crate::command::{Part, Ticket};
use crate::config::Tunables;
use crate::connections::{Caller, Connections};
use crate::dispatch::{Parcel, Rows};

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
    /// Only the first rows in an order, which are a relation of their own.
    pub(crate) ranking: Option<Ranking>,
    /// The relation whose steps are its own, once that is known.
    target: RelationId,
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
    /// Steps that were merged with others.
    coalesced: u64,
    slow: Slow,
    /// Rows that may wait once it is live, where the client wants fewer than the server allows.
    limit: Option<u64>,
    backlog: Backlog,
}

/// All subscriptions of a worker's clients.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    all: HashMap<Ticket, Subscription>,
    by_relation: HashMap<RelationId, Vec<Ticket>>,
    /// Those with something to send that are to be looked at. Who waits for room comes back when there is some.
    due: HashSet<Ticket>,
    /// See [`Self::take_given_up`].
    given_up: Vec<(RelationId, Option<Ranking>)>,
    /// Times of transactions, in order, that some subscriber may have to hear of.
    transactions: VecDeque<Time>,
}

impl Subscription {
    /// As a client asked for it; `workers` is how many parts its snapshot has.
    pub(crate) fn new(caller: Caller, sub: u64, subscribe: Subscribe, workers: usize) -> Self {
        let Subscribe { relation, snapshot, progress, filter, ranking, since, slow, backlog } = subscribe;
        Subscription {
            caller,
            target: relation.id,
            relation,
            filter,
            ranking,
            // No history is kept: who was here before starts again from the contents.
            snapshot: snapshot || since.is_some(),
            resync: since.is_some(),
            sub,
            progress,
            stage: Stage::Sequencing,
            arrived: Arrived::nothing(workers),
            from: 0,
            reached: 0,
            told: 0,
            coalesced: 0,
            slow,
            limit: backlog,
            backlog: Backlog::new(slow),
        }
    }

    pub(crate) fn sub(&self) -> u64 {
        self.sub
    }

    /// What its snapshot is made of.
    pub(crate) fn part(&self) -> Part {
        match &self.ranking {
            Some(ranking) => Part::Kept(ranking.clone()),
            None => Part::Rows(self.filter.clone()),
        }
    }

    fn connection(&self) -> ConnectionId {
        self.caller.connection
    }

    /// Sends rows that are its own.
    fn send_rows(&self, net: &mut Connections, step: push::Step, changes: Changes, tunables: &Tunables) {
        let parcel = Parcel {
            encoding: self.caller.encoding,
            relation: Arc::clone(&self.relation),
            step,
            rows: Rows::Own(Arc::new(changes)),
            filter: Filter::new(),
            batch_bytes: tunables.batch_bytes as usize,
            _pin: Pin::new(),
        };
        net.push_rows(parcel, vec![(self.connection(), self.sub)]);
    }

    fn send(&self, net: &mut Connections, tail: Tail) {
        net.push(self.connection(), self.sub, tail);
    }
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Steps merged for clients' subscriptions, by connection, those without any aside.
    pub(crate) fn coalesced(&self) -> HashMap<ConnectionId, u64> {
        let mut steps = HashMap::new();
        for subscription in self.all.values().filter(|subscription| subscription.coalesced > 0) {
            *steps.entry(subscription.connection()).or_default() += subscription.coalesced;
        }
        steps
    }

    /// Takes note of a subscription that is on its way to the sequencer.
    pub(crate) fn add(&mut self, ticket: Ticket, subscription: Subscription) {
        self.all.insert(ticket, subscription);
    }

    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Subscription> {
        self.all.get_mut(&ticket)
    }

    /// Its place in the order is `time`: steps of `target` after it are for the subscription, contents as of it come from all
    /// workers if it wants a snapshot. Also the way a snapshot starts again, at a later time.
    pub(crate) fn begin(&mut self, ticket: Ticket, time: Time, target: RelationId) {
        let Some(subscription) = self.all.get_mut(&ticket) else { return };
        if matches!(subscription.stage, Stage::Sequencing) {
            self.by_relation.entry(target).or_default().push(ticket);
            subscription.target = target;
        }
        subscription.from = time;
        subscription.reached = time;
        subscription.told = time;
        subscription.stage = if subscription.snapshot { Stage::Snapshot } else { Stage::Live };
        if subscription.snapshot {
            self.due.insert(ticket);
        }
    }

    /// A snapshot that must start again has got its place in the order.
    pub(crate) fn begin_again(&mut self, ticket: Ticket, time: Time) {
        let restarting = |s: &&Subscription| matches!(s.stage, Stage::Restarting);
        if let Some(target) = self.all.get(&ticket).filter(restarting).map(|s| s.target) {
            self.begin(ticket, time, target);
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
        subscription.backlog = Backlog::new(subscription.slow);
        self.due.remove(&old);
        let tickets = self.by_relation.entry(subscription.target).or_default();
        tickets.iter_mut().filter(|ticket| **ticket == old).for_each(|ticket| *ticket = new);
        if let Some(session) = net.session(subscription.connection()) {
            session.subs.insert(subscription.sub, new);
        }
        Some(self.all.entry(new).or_insert(subscription))
    }

    /// Forgets a subscription.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Subscription> {
        let subscription = self.all.remove(&ticket)?;
        self.due.remove(&ticket);
        if let Some(tickets) = self.by_relation.get_mut(&subscription.target) {
            tickets.retain(|other| *other != ticket);
            if tickets.is_empty() {
                self.by_relation.remove(&subscription.target);
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
        subscription.send(net, push::ended(subscription.caller.encoding, error));
        Some(subscription)
    }

    /// Ends all subscriptions of a relation that is gone; it was unregistered, unless `why` says otherwise.
    pub(crate) fn end_relation(
        &mut self,
        relation: RelationId,
        why: Option<&ErrorBody>,
        net: &mut Connections,
    ) {
        let mut tickets = self.by_relation.remove(&relation).unwrap_or_default();
        for of in self.by_relation.values() {
            let first = of.first().and_then(|ticket| self.all.get(ticket));
            if first.is_some_and(|subscription| subscription.relation.id == relation) {
                tickets.extend(of);
            }
        }
        for ticket in tickets {
            let name = self.all.get(&ticket).map_or_else(String::new, |s| s.relation.name.clone());
            self.end(ticket, net, &why.cloned().unwrap_or_else(|| unregistered(&name)));
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
            self.due.insert(ticket);
        }
    }

    /// A finished step of a relation. Returns the subscriptions whose snapshot must start again.
    pub(crate) fn step(&mut self, step: Step, net: &mut Connections, tunables: &Tunables) -> Vec<Ticket> {
        let step = Arc::new(step);
        let mut shared = Shared::default();
        let (mut restart, mut busy) = (Vec::new(), Vec::new());
        for ticket in self.by_relation.get(&step.relation).into_iter().flatten() {
            let Some(subscription) = self.all.get_mut(ticket) else { continue };
            if step.time <= subscription.from || matches!(subscription.stage, Stage::Restarting) {
                continue;
            }
            let live = matches!(subscription.stage, Stage::Live);
            let room = net.outbox_bytes(subscription.connection()) < tunables.outbox_bytes as usize;
            if live && room && subscription.backlog.is_empty() {
                shared.add(&step, subscription, tunables);
                subscription.reached = step.time;
                continue;
            }
            if subscription.hold(&step, net, tunables) {
                self.due.insert(*ticket);
            } else if live || subscription.slow == Slow::End {
                busy.push(*ticket);
            } else {
                restart.push(*ticket);
            }
        }
        shared.send(net);
        busy.into_iter().for_each(|ticket| self.busy(ticket, net));
        restart
    }

    /// Ends the subscription of a client that reads too slowly.
    fn busy(&mut self, ticket: Ticket, net: &mut Connections) {
        let Some(subscription) = self.all.get(&ticket) else { return };
        let message = format!("the subscriber of {:?} reads too slowly", subscription.relation.name);
        let error = ErrorBody::new(ErrorCode::Busy, message).with_time(subscription.reached);
        let (connection, relation) = (subscription.connection(), subscription.relation.id);
        let wish = (relation, subscription.ranking.clone());
        tracing::info!(
            connection = connection.0,
            relation = relation.0,
            "ended the subscription of a slow reader"
        );
        self.end(ticket, net, &error);
        net.metrics.dropped_subscriptions.inc();
        self.given_up.push(wish);
        net.limit_stall(connection);
    }

    /// All there are.
    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.all.keys().copied().collect()
    }

    /// Marks the words of rows that wait for the reader, if it is still there (ADR 0008); how many.
    pub(crate) fn mark(&self, ticket: Ticket) -> usize {
        let Some(subscription) = self.all.get(&ticket) else { return 0 };
        let slices = subscription.arrived.slices.iter().map(|slice| slice.rows.words());
        let sliced: usize = slices.inspect(|words| sweep::mark(words)).map(<[Word]>::len).sum();
        sliced + subscription.backlog.mark()
    }

    /// Relations of subscriptions that were ended here: the other workers are to be told, once for each.
    pub(crate) fn take_given_up(&mut self) -> Vec<(RelationId, Option<Ranking>)> {
        std::mem::take(&mut self.given_up)
    }

    /// Sends what waits for clients that can take it.
    pub(crate) fn catch_up(&mut self, net: &mut Connections, tunables: &Tunables) {
        for connection in net.take_relieved() {
            if let Some(session) = net.session(connection) {
                self.due.extend(session.subs.values());
            }
        }
        for ticket in std::mem::take(&mut self.due) {
            let Some(subscription) = self.all.get_mut(&ticket) else { continue };
            if !subscription.send_behind(net, tunables) {
                net.await_room(subscription.connection(), tunables.outbox_bytes as usize);
                if subscription.arrived.bytes > tunables.snapshot_bytes as usize {
                    self.busy(ticket, net);
                }
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
    /// Keeps a step for later; `false` if more waits than may.
    fn hold(&mut self, step: &Arc<Step>, net: &mut Connections, tunables: &Tunables) -> bool {
        if !self.backlog.is_empty() && self.slow == Slow::Coalesce {
            self.coalesced += 1;
            net.metrics.coalesced_steps.inc();
        }
        // What comes during a snapshot isn't the client's fault.
        let wanted = self.limit.filter(|_| matches!(self.stage, Stage::Live)).unwrap_or(u64::MAX);
        let limit = wanted.min(tunables.backlog_rows) as usize;
        self.backlog.push(Arc::clone(step), &self.filter, limit)
    }

    /// Sends `progress` unless the client has too much to read already: a later one says it as well.
    fn report(&mut self, time: Time, net: &mut Connections, tunables: &Tunables) {
        if net.outbox_bytes(self.connection()) < tunables.outbox_bytes as usize {
            self.send(net, push::progress(self.caller.encoding, time));
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
            self.send_rows(net, step, changes, tunables);
            self.resync = false;
            if last {
                self.stage = Stage::Live;
                if self.progress {
                    self.send(net, push::progress(self.caller.encoding, self.from));
                }
            }
        }
        if !matches!(self.stage, Stage::Live) {
            return self.backlog.is_empty();
        }
        while room(net, self.connection()) {
            let Some((time, changes)) = self.backlog.take(width, &self.filter) else { return true };
            if !changes.rows.is_empty() {
                self.send_rows(net, push::Step { time, ..push::Step::default() }, changes, tunables);
            }
            self.reached = time;
        }
        self.backlog.is_empty()
    }
}

/// Who gets a step, by what they want of it: each is encoded once.
#[derive(Default)]
struct Shared {
    parcels: Vec<(Parcel, Vec<(ConnectionId, u64)>)>,
}

impl Shared {
    fn add(&mut self, step: &Arc<Step>, to: &Subscription, tunables: &Tunables) {
        let address = (to.connection(), to.sub);
        let wanted = |(parcel, _): &&mut (Parcel, Vec<_>)| {
            parcel.encoding == to.caller.encoding && parcel.filter == to.filter
        };
        if let Some((_, addresses)) = self.parcels.iter_mut().find(wanted) {
            return addresses.push(address);
        }
        let parcel = Parcel {
            encoding: to.caller.encoding,
            relation: Arc::clone(&to.relation),
            step: push::Step { time: step.time, ..push::Step::default() },
            rows: Rows::Step(Arc::clone(step)),
            filter: to.filter.clone(),
            batch_bytes: tunables.batch_bytes as usize,
            _pin: Pin::new(),
        };
        self.parcels.push((parcel, vec![address]));
    }

    fn send(self, net: &mut Connections) {
        self.parcels.into_iter().for_each(|(parcel, to)| net.push_rows(parcel, to));
    }
}

/// What those who still want something of a relation that is gone are told.
pub(crate) fn unregistered(relation: &str) -> ErrorBody {
    ErrorBody::not_found(format!("relation {relation:?} was unregistered"))
}
