//! Requests, from a message to what goes to the sequencer, to Python, or straight back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use dataflow_net::connection::ConnectionId;
use dataflow_protocol::dictionary::sweep::Pin;
use dataflow_protocol::dictionary::{self, Content};
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::RelationId;
use dataflow_protocol::order::{By, Ranking};
use dataflow_protocol::request::{
    self, Change, Decoded, Filter, QueryLimits, Request, Schema, Setting, Subscribe, Wait,
};
use serde::Serialize;

use crate::access::refusals::Reason;
use crate::access::token_needed;
use crate::clock;
use crate::command::{Command, Letter, Part, Ticket, Transaction, tuned};
use crate::connections::{Caller, Connections};
use crate::events::{Answer, Event};
use crate::keys::{Key, digest};
use crate::member::{Member, Own, OwnTransaction, Pending, learn};
use crate::reads::Read;
use crate::sockets::Requested;
use crate::subscriptions::Subscription;

/// Longest name of a module or key that is accepted, in bytes.
pub(crate) const MAX_NAME: usize = 1 << 10;

/// What the server calls itself.
pub(crate) const SERVER: &str = concat!("dataflow-serve ", env!("CARGO_PKG_VERSION"));

#[derive(Serialize)]
struct Hello<'a> {
    version: u64,
    server: &'static str,
    worker: usize,
    workers: usize,
    process: usize,
    processes: usize,
    time: u64,
    history: &'a str,
}

impl Member {
    /// Acts on what a client sent; it may turn out to be a request for a later turn.
    pub(crate) fn requested(
        &mut self,
        id: ConnectionId,
        encoding: Encoding,
        requested: Requested,
        net: &mut Connections,
    ) {
        match requested {
            Ok(mut decoded) => {
                self.announce(&mut decoded.contents);
                self.request(id, encoding, decoded, net);
            }
            Err(mut rejected) => {
                self.announce(&mut rejected.contents);
                let caller = Caller { connection: id, id: rejected.id, encoding };
                net.error(&caller, &rejected.error);
                if net.grant(id).is_none() {
                    self.process.gate.turn_away(Reason::NoToken);
                    net.expel(id);
                }
            }
        }
    }

    /// What a client brought goes out with this turn's element; a process that is alone has told itself.
    pub(crate) fn announce(&mut self, contents: &mut Vec<Content>) {
        if self.process.config.processes == 1 {
            learn(contents, |content| dictionary::announced(content).map(drop));
        } else {
            self.element.contents.append(contents);
        }
    }

    /// Acts on a request, or holds it for a later turn.
    pub(crate) fn request(
        &mut self,
        id: ConnectionId,
        encoding: Encoding,
        decoded: Decoded,
        net: &mut Connections,
    ) {
        if let Some(decoded) = self.take(id, encoding, decoded, net) {
            let at_once = matches!(decoded.request, Request::Transact { .. }) && !self.overloaded;
            net.hold(id, encoding, decoded, at_once);
        }
    }

    /// Acts on a request, or gives it back: it must be the connection's first in a later turn.
    fn take(
        &mut self,
        connection: ConnectionId,
        encoding: Encoding,
        decoded: Decoded,
        net: &mut Connections,
    ) -> Option<Decoded> {
        let now = match decoded.request {
            Request::Transact { .. } => self.may_transact(connection, net),
            // What the connection asked for earlier may need what is to go.
            Request::Unregister { .. } => {
                net.session(connection).is_none_or(|session| session.unanswered <= 1)
            }
            _ => true,
        };
        if !now {
            return Some(decoded);
        }
        let caller = Caller { connection, id: decoded.id, encoding };
        match decoded.request {
            Request::Hello { token, .. } => self.greet(&caller, token.as_deref(), net),
            Request::Ping => net.ok(&caller, &serde_json::json!({ "time": self.applied })),
            Request::Register { program, name, limits } => {
                self.register(caller, program, name, limits, net);
            }
            Request::Cancel { name } => {
                self.control(
                    caller,
                    net,
                    |caller| Pending::Cancel { caller },
                    |ticket| Command::Cancel { ticket, name },
                );
            }
            Request::Unregister { name } => {
                self.control(
                    caller,
                    net,
                    |caller| Pending::Unregister { caller },
                    |ticket| Command::Unregister { ticket, name },
                );
            }
            Request::Transact { changes, key, wait } => {
                self.transact(caller, changes, key.as_deref(), wait, decoded.pin, net)
            }
            Request::Subscribe(subscribe) => self.subscribe(caller, subscribe, net),
            Request::Unsubscribe { sub } => self.unsubscribe(caller, sub, net),
            Request::Read { relation, filter, order, limit } => {
                self.read(caller, relation, filter, order, limit, net);
            }
            Request::Explain { relation, analyze } => self.explain(caller, &relation, analyze, net),
            Request::Status => {
                let ticket = self.ticket();
                self.send(Command::Status { ticket });
                self.pending
                    .insert(ticket, Pending::Status { caller, reports: Vec::new(), sources: Vec::new() });
            }
            Request::Attach { name, source } => self.attach(caller, name, source, net),
            Request::Detach { name } => self.detach(caller, name),
            Request::Advance { now } => {
                self.control(
                    caller,
                    net,
                    |caller| Pending::Advance { caller },
                    |ticket| Command::Advance { ticket, now },
                );
            }
            Request::Tune { settings } => self.tune(caller, settings, net),
            Request::Shutdown => {
                let ticket = self.ticket();
                self.send(Command::Shutdown { ticket: Some(ticket) });
                self.pending.insert(ticket, Pending::Shutdown { caller });
            }
        }
        None
    }

    /// Lets a client in, or sends it away.
    fn greet(&self, caller: &Caller, token: Option<&str>, net: &mut Connections) {
        let Some(address) = net.peer(caller.connection).map(|peer| peer.address.ip()) else { return };
        let refused = match token {
            Some(token) => match self.process.gate.judge(token, address, net.now) {
                Ok(grant) => {
                    net.admit(caller.connection, grant);
                    None
                }
                Err(refusal) => Some(refusal.body()),
            },
            None if net.grant(caller.connection).is_none() => {
                self.process.gate.turn_away(Reason::NoToken);
                Some(token_needed())
            }
            None => None,
        };
        if let Some(error) = refused {
            net.error(caller, &error);
            return net.expel(caller.connection);
        }
        let hello = Hello {
            version: request::VERSION,
            server: SERVER,
            worker: self.index().0,
            workers: self.peers(),
            process: self.process.config.process,
            processes: self.process.config.processes,
            time: self.applied,
            history: &self.history,
        };
        net.ok(caller, &hello);
    }

    /// A transaction may go out unless an earlier request of the connection has asked for something as of the time
    /// it would get, or that time has enough rows, or the dataflows are too far behind.
    fn may_transact(&self, id: ConnectionId, net: &mut Connections) -> bool {
        let asked = net.session(id).and_then(|session| session.asked_as_of);
        let room = self.element_rows < self.tunables.max_rows_per_time;
        asked != Some(self.sequencer.counter()) && room && !self.overloaded
    }

    /// The connection asks for something as of the time that this turn's element will get.
    fn as_of(&self, id: ConnectionId, net: &mut Connections) {
        if let Some(session) = net.session(id) {
            session.asked_as_of = Some(self.sequencer.counter());
        }
    }

    /// Sends a command that the connection waits for before its next request is read.
    fn control(
        &mut self,
        caller: Caller,
        net: &mut Connections,
        pending: impl FnOnce(Caller) -> Pending,
        command: impl FnOnce(Ticket) -> Command,
    ) {
        let ticket = self.ticket();
        net.suspend(caller.connection, ticket);
        self.send(command(ticket));
        self.pending.insert(ticket, pending(caller));
    }

    fn register(
        &mut self,
        caller: Caller,
        program: String,
        name: Option<String>,
        limits: Option<QueryLimits>,
        net: &mut Connections,
    ) {
        if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_NAME) {
            let message = format!("a module's name must have 1 to {MAX_NAME} bytes");
            return net.error(&caller, &ErrorBody::incorrect(message));
        }
        let ticket = self.ticket();
        net.suspend(caller.connection, ticket);
        self.plan(ticket, caller, program, name, limits, 0, net);
    }

    /// Asks Python for a plan.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of what is pending")]
    pub(crate) fn plan(
        &mut self,
        ticket: Ticket,
        caller: Caller,
        program: String,
        name: Option<String>,
        limits: Option<QueryLimits>,
        attempts: u64,
        net: &mut Connections,
    ) {
        let statistics = self.statistics(&program);
        let event = Event::Register { ticket, program: program.clone(), name: name.clone(), statistics };
        if self.process.ask(event) {
            self.pending.insert(ticket, Pending::Register { caller, program, name, limits, attempts });
        } else {
            let error = ErrorBody::new(ErrorCode::Busy, "too many programs wait to be planned");
            net.refuse(&caller, ticket, &error);
        }
    }

    /// Acts on what Python says.
    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Answer, net: &mut Connections) {
        match (self.pending.remove(&ticket), answer) {
            (Some(Pending::Register { caller, program, name, limits, attempts }), Answer::Plan(plan)) => {
                let now = clock::time_of_day(self.tunables.now_tick_ms);
                self.send(Command::Register { ticket, plan, limits, now });
                self.pending.insert(ticket, Pending::Register { caller, program, name, limits, attempts });
            }
            (Some(Pending::Explain { caller }), Answer::Explanation(tree)) => {
                match serde_json::from_str::<serde_json::Value>(&tree) {
                    Ok(plan) => net.ok(&caller, &serde_json::json!({ "plan": plan })),
                    Err(error) => {
                        tracing::error!(%error, "the planner's explanation is not JSON");
                        net.error(
                            &caller,
                            &ErrorBody::new(ErrorCode::Fault, "the plan could not be explained"),
                        );
                    }
                }
            }
            (Some(Pending::Attach { caller, name, .. }), Answer::Source(source)) => {
                self.propose(ticket, caller, name, source);
            }
            (Some(Pending::Detaching { origin, ticket }), Answer::Detached { time, left }) => {
                self.mail.send(origin, Letter::Detached(ticket, time, left));
            }
            (None, Answer::Attach { name, source }) => {
                let ticket = self.ticket();
                self.propose(ticket, None, name, source);
            }
            (Some(pending), answer) => {
                let error = match answer {
                    Answer::Rejected(error) => error,
                    _ => ErrorBody::new(ErrorCode::Fault, "the planner gave an answer to another question"),
                };
                if let Some(caller) = pending.caller() {
                    net.error(caller, &error);
                    net.resume(caller.connection, ticket);
                }
            }
            (None, _) => {}
        }
    }

    fn transact(
        &mut self,
        caller: Caller,
        changes: Vec<Change>,
        key: Option<&str>,
        wait: Wait,
        pin: Pin,
        net: &mut Connections,
    ) {
        if key.is_some_and(|key| key.is_empty() || key.len() > MAX_NAME) {
            let message = format!("a transaction's key must have 1 to {MAX_NAME} bytes");
            return net.error(&caller, &ErrorBody::incorrect(message));
        }
        let changes = merged(changes);
        self.element_rows +=
            changes.iter().map(|change| change.insert.len() + change.delete.len()).sum::<usize>() as u64;
        let key = key.map(|key| Key { name: digest(&key), content: content(&changes) });
        let relations = changes.iter().map(|change| change.relation.id).collect();
        self.element.transactions.push(Transaction { relations, key });
        let bytes =
            64 + changes.iter().map(|change| change.insert.bytes() + change.delete.bytes()).sum::<usize>();
        if let Some(session) = net.session(caller.connection) {
            session.waiting_bytes += bytes;
        }
        self.transactions.push_back(Own::Client(OwnTransaction { caller, changes, wait, bytes, pin }));
    }

    fn subscribe(&mut self, caller: Caller, subscribe: Subscribe, net: &mut Connections) {
        let ticket = self.ticket();
        let Some(session) = net.session(caller.connection) else { return };
        let most = self.tunables.connection_subscriptions;
        if session.subs.len() as u64 >= most {
            let message = format!(
                "cannot subscribe to {}: this connection has {most} subscriptions",
                subscribe.relation.name
            );
            let error = ErrorBody::new(ErrorCode::Busy, message)
                .with_hint("Unsubscribe from some, or open another connection.".to_owned());
            return net.error(&caller, &error);
        }
        if let Some(error) =
            subscribe.ranking.as_ref().and_then(|r| self.refuse_ranking(&subscribe.relation, r))
        {
            return net.error(&caller, &error);
        }
        let Some(session) = net.session(caller.connection) else { return };
        let sub = session.next_sub;
        session.next_sub += 1;
        session.subs.insert(sub, ticket);
        self.as_of(caller.connection, net);
        let (relation, ranking) = (subscribe.relation.id, subscribe.ranking.clone());
        let subscription = Subscription::new(caller, sub, subscribe, self.peers());
        self.rankings_proposed += usize::from(ranking.is_some());
        self.send(Command::Subscribe { ticket, relation, ranking });
        if subscription.snapshot {
            self.send(Command::Contents { ticket, relation, part: subscription.part() });
        }
        self.subscriptions.add(ticket, subscription);
    }

    fn read(
        &mut self,
        caller: Caller,
        relation: Arc<Schema>,
        filter: Filter,
        order: Option<Vec<By>>,
        limit: Option<u64>,
        net: &mut Connections,
    ) {
        let part = match (&order, limit) {
            (Some(_), Some(limit)) if limit > self.tunables.ranking_rows => {
                return net.error(&caller, &self.too_many_first(&relation, limit));
            }
            (Some(order), Some(limit)) => Part::First(Ranking { filter, order: order.clone(), limit }),
            _ => Part::Rows(filter),
        };
        let ticket = self.ticket();
        self.as_of(caller.connection, net);
        self.send(Command::Contents { ticket, relation: relation.id, part });
        let read = Read::new(caller, relation, order.as_deref(), limit, self.peers());
        self.pending.insert(ticket, Pending::Read(read));
    }

    /// Why a subscription to first rows can't be had, if it can't. What other workers are about to begin isn't known
    /// here: the cluster may keep a few more than it should.
    fn refuse_ranking(&self, relation: &Schema, ranking: &Ranking) -> Option<ErrorBody> {
        if ranking.limit > self.tunables.ranking_rows {
            return Some(self.too_many_first(relation, ranking.limit));
        }
        let most = self.tunables.rankings;
        let known = self.engine.ranked(relation.id, ranking).is_some();
        let full = (self.engine.rankings() + self.rankings_proposed) as u64 >= most;
        (full && !known).then(|| {
            let name = &relation.name;
            let message =
                format!("cannot subscribe to the first rows of {name}: the cluster keeps {most} such");
            let hint = "Ask as others do (relation, `where`, `order` and `limit`), or have `rankings` tuned.";
            ErrorBody::new(ErrorCode::Busy, message).with_hint(hint.to_owned())
        })
    }

    fn too_many_first(&self, relation: &Schema, limit: u64) -> ErrorBody {
        let (name, most) = (&relation.name, self.tunables.ranking_rows);
        let message = format!("cannot order the first {limit} rows of {name}: {most} are the most");
        let hint = "Ask for fewer, or have `ranking_rows` tuned.".to_owned();
        ErrorBody::new(ErrorCode::TooLarge, message).with_hint(hint)
    }

    fn unsubscribe(&mut self, caller: Caller, sub: u64, net: &mut Connections) {
        let ticket = net.session(caller.connection).and_then(|session| session.subs.remove(&sub));
        let Some(subscription) = ticket.and_then(|ticket| self.subscriptions.remove(ticket)) else {
            return net
                .error(&caller, &ErrorBody::not_found(format!("no subscription {sub} on this connection")));
        };
        let ticket = self.ticket();
        let Subscription { relation, ranking, .. } = subscription;
        self.send(Command::Unsubscribe { ticket, relation: relation.id, ranking });
        self.pending.insert(ticket, Pending::Unsubscribe { caller });
    }

    /// Ends the subscriptions of connections that are gone.
    pub(crate) fn drop_orphans(&mut self, net: &mut Connections) {
        for orphan in net.take_orphans() {
            if let Some(subscription) = self.subscriptions.remove(orphan) {
                let ticket = self.ticket();
                let Subscription { relation, ranking, .. } = subscription;
                self.send(Command::Unsubscribe { ticket, relation: relation.id, ranking });
            }
        }
    }

    fn tune(&mut self, caller: Caller, settings: Vec<(String, Setting)>, net: &mut Connections) {
        let integer = |(name, setting): (String, Setting)| match setting {
            Setting::Integer(value) if value >= 0 => Ok((name, value as u64)),
            _ => Err(format!("tunable {name:?} must be a non-negative integer")),
        };
        let values = settings.into_iter().map(integer).collect::<Result<Vec<_>, _>>();
        match values.and_then(|values| tuned(&self.tunables, &values).map(|_| values)) {
            Ok(values) => {
                self.control(
                    caller,
                    net,
                    |caller| Pending::Tune { caller },
                    |ticket| Command::Tune { ticket, values },
                );
            }
            Err(message) => net.error(&caller, &ErrorBody::incorrect(message)),
        }
    }
}

/// One change a relation: a transaction's deletes come before its inserts wherever they stand.
fn merged(changes: Vec<Change>) -> Vec<Change> {
    let mut merged: Vec<Change> = Vec::with_capacity(changes.len());
    // A client may name very many relations, each many times.
    let mut places: BTreeMap<RelationId, usize> = BTreeMap::new();
    for change in changes {
        match places.entry(change.relation.id) {
            Entry::Occupied(place) => {
                let earlier = &mut merged[*place.get()];
                change.insert.iter().for_each(|row| earlier.insert.push(row));
                change.delete.iter().for_each(|row| earlier.delete.push(row));
            }
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push(change);
            }
        }
    }
    merged
}

/// A digest of what a transaction does, whichever encoding it came in.
fn content(changes: &[Change]) -> u128 {
    let rows = |change: &Change| {
        (
            change.relation.id,
            change.delete.len(),
            change.delete.words().to_vec(),
            change.insert.words().to_vec(),
        )
    };
    digest(&changes.iter().map(rows).collect::<Vec<_>>())
}
