//! Carrying out what the sequencer released: the same on every worker, in the same order.
//!
//! At one time all transactions come first, those of worker 0, then those of worker 1 and so on; then the commands,
//! in the same order: they answer as of the time, after its transactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use dataflow_engine::{EngineError, ModuleInfo, Registered};
use dataflow_protocol::dictionary;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::plan::Plan;
use dataflow_protocol::request::{QueryLimits, Wait};
use dataflow_protocol::shape::{Described, described};
use dataflow_protocol::value::Column;
use serde::Serialize;

use crate::catalog::RelationReply;
use crate::command::{Command, Element, Letter, Part, Report, Share, Ticket, Transaction, tuned};
use crate::connections::Connections;
use crate::events::{ColumnView, Event, ModuleView, RelationView};
use crate::keys::Verdict;
use crate::member::{Done, Member, Own, OwnTransaction, Pending, Visible, learn};
use crate::metrics::Phase;
use crate::subscriptions::unregistered;

/// What became of a transaction, as every worker finds out for itself.
enum Fate {
    Effective,
    Repeated(Time),
    Conflict,
    Gone,
}

#[derive(Serialize)]
pub(crate) struct Transacted {
    pub(crate) time: Time,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deduplicated: bool,
}

#[derive(Serialize)]
struct Subscribed<'a> {
    sub: u64,
    columns: &'a [Column],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    types: BTreeMap<String, Described>,
    time: Time,
    history: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    resync: bool,
}

impl Member {
    /// Applies the next time that has passed everywhere, if there is one; whether another one is ready.
    pub(crate) fn apply(&mut self, net: &mut Connections) -> bool {
        let Some((time, elements)) = self.sequencer.next() else { return false };
        for (origin, element) in &elements {
            learn(&element.contents, |content| dictionary::announced(content).map(drop));
            for transaction in &element.transactions {
                self.transaction(time, *origin, transaction, net);
            }
        }
        for command in elements.iter().flat_map(|(_, element)| &element.commands) {
            // A worker's first word in a generation, at its first time: before whatever anybody registers in it.
            if let Command::Quarantine { digests } = command {
                self.quarantined.extend(digests.iter().cloned());
            }
        }
        for (origin, element) in &elements {
            for command in &element.commands {
                self.command(time, *origin, command, net);
            }
        }
        self.engine.advance(time);
        self.applied = time;
        self.timeline.applied(time, Instant::now());
        self.count(time, &elements);
        self.sequencer.ready()
    }

    fn count(&mut self, time: Time, elements: &[(WorkerIndex, Arc<Element>)]) {
        let applied = elements.iter().map(|(_, e)| e.transactions.len() + e.commands.len()).sum::<usize>();
        self.metrics.commands.inc_by(applied as u64);
        while let Some((sent, at)) = self.sent.front().filter(|(sent, _)| *sent <= time) {
            debug_assert!(*sent == time, "an own element was not released in its turn");
            self.metrics.sequencing_seconds.observe(Instant::now().duration_since(*at).as_secs_f64());
            self.sent.pop_front();
        }
    }

    fn transaction(&mut self, time: Time, origin: WorkerIndex, header: &Transaction, net: &mut Connections) {
        let fate = if header.relations.iter().any(|relation| !self.catalog.contains(*relation)) {
            Fate::Gone
        } else {
            match header.key.map(|key| self.keys.admit(key, time)) {
                None | Some(Verdict::Fresh) => Fate::Effective,
                Some(Verdict::Repeated(first)) => Fate::Repeated(first),
                Some(Verdict::Conflict) => Fate::Conflict,
            }
        };
        if matches!(fate, Fate::Effective) {
            self.subscriptions.transacted(time);
            header.relations.iter().for_each(|relation| self.engine.touch(*relation, time));
        }
        if origin == self.index()
            && let Some(own) = self.transactions.pop_front()
        {
            match own {
                Own::Client(own) => self.settle(time, own, &fate, net),
                Own::Fed(fed) => self.settle_fed(time, fed, matches!(fate, Fate::Effective)),
            }
        }
    }

    /// Introduces a transaction of this worker's, if it has an effect, and answers it.
    fn settle(&mut self, time: Time, own: OwnTransaction, fate: &Fate, net: &mut Connections) {
        // Until its rows have been introduced.
        let OwnTransaction { caller, changes, wait, bytes, pin: _pin } = own;
        if let Some(session) = net.session(caller.connection) {
            session.waiting_bytes = session.waiting_bytes.saturating_sub(bytes);
        }
        net.schedule(caller.connection);
        let (time, deduplicated) = match fate {
            Fate::Effective => (time, false),
            Fate::Repeated(first) => (*first, true),
            Fate::Conflict => {
                let message = "the key was used for another transaction";
                let hint =
                    "Use a new key for each transaction, and the same one only to repeat it.".to_owned();
                return net.error(&caller, &ErrorBody::new(ErrorCode::Conflict, message).with_hint(hint));
            }
            Fate::Gone => {
                let gone = changes.iter().find(|change| !self.catalog.contains(change.relation.id));
                let name = gone.map_or("", |change| &change.relation.name);
                return net.error(&caller, &unregistered(name));
            }
        };
        let mut relations = Vec::new();
        for change in changes {
            if wait == Wait::Visible {
                relations.extend(self.engine.dependents(change.relation.id));
            }
            if !deduplicated {
                self.metrics.rows.inc_by((change.insert.len() + change.delete.len()) as u64);
                self.engine.introduce(change.relation.id, time, &change.delete, &change.insert);
            }
        }
        match wait {
            Wait::Sequenced => net.ok(&caller, &Transacted { time, deduplicated }),
            Wait::Visible => self.visible.push(Visible { caller, time, deduplicated, relations }),
        }
    }

    fn command(&mut self, time: Time, origin: WorkerIndex, command: &Command, net: &mut Connections) {
        let own = origin == self.index();
        match command {
            Command::Register { ticket, plan, limits, now } => {
                if !self.engine.has_clock() {
                    self.tick(time, *now);
                }
                self.install(time, origin, *ticket, plan, *limits, net);
            }
            Command::Unregister { ticket, name } => self.uninstall(time, origin, *ticket, name, net),
            Command::Subscribe { ticket, relation, ranking } => {
                let target = match ranking {
                    _ if !self.catalog.contains(*relation) => None,
                    Some(ranking) => self.engine.rank(&mut self.worker, time, *relation, ranking),
                    None => Some(*relation),
                };
                if let Some(target) = target {
                    self.engine.interest(target, origin, time);
                }
                if own {
                    self.rankings_proposed -= usize::from(ranking.is_some());
                    self.subscribed(time, *ticket, target, net);
                }
            }
            Command::Unsubscribe { ticket, relation, ranking } => {
                let target = match ranking {
                    Some(ranking) => self.engine.ranked(*relation, ranking),
                    None => Some(*relation),
                };
                if let Some(target) = target {
                    self.engine.disinterest(target, origin);
                }
                if let Some(ranking) = ranking {
                    self.engine.unrank(&mut self.worker, *relation, ranking);
                }
                if own && let Some(Pending::Unsubscribe { caller }) = self.pending.remove(ticket) {
                    net.ok(&caller, &serde_json::json!({ "time": time }));
                }
            }
            Command::Contents { ticket, relation, part } => {
                let known = self.catalog.contains(*relation);
                if known {
                    self.part(time, origin, *ticket, *relation, part);
                }
                if own {
                    self.contents_begin(time, *ticket, known, net);
                }
            }
            Command::Cancel { ticket, name } => self.cancelled(time, origin, *ticket, name, net),
            Command::Interrupt { module, since, why } => {
                self.interrupt_module(time, module, *since, why, net);
            }
            // Has had its effect before all others of the time.
            Command::Quarantine { .. } => {}
            Command::Status { ticket } => {
                let (report, shares) = (self.report(net), self.shares());
                let sources = if self.local == 0 { self.process.sources() } else { Vec::new() };
                self.mail.send(origin, Letter::Report(*ticket, report, shares, sources));
            }
            Command::Analyze { ticket, relation } => {
                self.mail.send(origin, Letter::Analysis(*ticket, self.engine.analysis(*relation)));
            }
            Command::Attach { ticket, name } => self.attached(time, origin, *ticket, name, net),
            Command::Detach { ticket, name } => self.detached(origin, *ticket, name, net),
            Command::Tick { now } => self.tick(time, Some(*now)),
            Command::Advance { ticket, now } => self.advanced(time, *ticket, *now, own, net),
            Command::Sweep(step) => self.sweep(time, step),
            Command::Tune { ticket, values } => self.tuned(origin, *ticket, values),
            Command::Shutdown { .. } => self.stopping = true,
        }
    }

    /// Builds a program. All workers come to the same result; the owner replies when all have it.
    fn install(
        &mut self,
        time: Time,
        origin: WorkerIndex,
        ticket: Ticket,
        plan: &str,
        limits: Option<QueryLimits>,
        net: &mut Connections,
    ) {
        let result = serde_json::from_str::<Plan>(plan)
            .map_err(|error| EngineError::Invalid(format!("the plan is malformed: {error}")))
            .and_then(|plan| Ok((self.build(time, &plan)?, plan)));
        match result {
            Ok((registered, plan)) => {
                let workers = self.peers();
                self.watch.add(&registered.name, time, &plan.digest, origin, limits, workers);
                self.catalog_grew(time, &plan, &registered);
                net.publish(&self.catalog);
                let relations = registered.relations.iter().map(|r| RelationReply::new(r)).collect();
                self.tell_log(time, "registered", &registered.name);
                let done = Done::Registered { name: registered.name, relations, time };
                self.acknowledge(origin, ticket, done);
            }
            Err(error) if origin == self.index() => self.not_installed(ticket, &error, net),
            Err(_) => {}
        }
    }

    /// A change of the catalog, once a process.
    fn tell_log(&self, time: Time, what: &'static str, module: &str) {
        if self.local == 0 {
            tracing::info!(time, module, "{what}");
        }
    }

    /// Builds a program that isn't quarantined. Should the worker panic meanwhile, or until the program has been
    /// computed, the program is suspected.
    fn build(&mut self, time: Time, plan: &Plan) -> Result<Registered, EngineError> {
        if self.quarantined.contains(&plan.digest) {
            return Err(EngineError::Conflict(format!(
                "module {:?} is quarantined: the cluster fell each time it was computed",
                plan.name
            )));
        }
        self.process.quarantine.begin(&plan.digest);
        let registered = self.engine.register(&mut self.worker, time, plan);
        if !registered.as_ref().is_ok_and(|registered| registered.fresh) {
            self.process.quarantine.computed(&plan.digest);
        }
        registered
    }

    fn catalog_grew(&mut self, time: Time, plan: &Plan, registered: &Registered) {
        if !registered.fresh {
            return;
        }
        let version = self.catalog.add(&registered.relations);
        if self.local == 0 {
            let relations = registered.relations.iter().map(|relation| RelationView {
                id: relation.id,
                name: &relation.name,
                columns: relation.columns.iter().map(ColumnView::new).collect(),
                input: &relation.input,
                output: relation.output,
            });
            let view = ModuleView {
                name: &registered.name,
                digest: &plan.digest,
                time,
                types: &plan.types,
                relations: relations.collect(),
            };
            match serde_json::to_string(&view) {
                Ok(module) => self.process.tell(Event::Registered { version, module }),
                Err(error) => tracing::error!(%error, "a module could not be told to the planner"),
            }
        }
    }

    /// A plan made against a catalog that has changed since is made anew, a few times.
    fn not_installed(&mut self, ticket: Ticket, error: &EngineError, net: &mut Connections) {
        let Some(Pending::Register { caller, program, name, limits, attempts }) =
            self.pending.remove(&ticket)
        else {
            return;
        };
        if matches!(error, EngineError::Stale(_)) && attempts < self.tunables.replans {
            return self.plan(ticket, caller, program, name, limits, attempts + 1, net);
        }
        net.refuse(&caller, ticket, &body(error));
    }

    fn uninstall(
        &mut self,
        time: Time,
        origin: WorkerIndex,
        ticket: Ticket,
        name: &str,
        net: &mut Connections,
    ) {
        let module = self.engine.relation(name).map_or_else(|| name.to_owned(), |found| found.module.clone());
        let module = if self.engine.figures(name).is_some() { name.to_owned() } else { module };
        match self.engine.unregister(&mut self.worker, time, name) {
            Ok(relations) => {
                self.tell_log(time, "unregistered", name);
                self.module_gone(module, relations, None, net);
                self.acknowledge(origin, ticket, Done::Unregistered { time });
            }
            Err(error) if origin == self.index() => {
                if let Some(Pending::Unregister { caller }) = self.pending.remove(&ticket) {
                    net.refuse(&caller, ticket, &body(&error));
                }
            }
            Err(_) => {}
        }
    }

    /// A module has left the engine: takes it out of the catalog, and tells who has to know. `why`, if it was ended before its
    /// time.
    pub(crate) fn module_gone(
        &mut self,
        module: String,
        relations: Vec<RelationId>,
        why: Option<&ErrorBody>,
        net: &mut Connections,
    ) {
        let version = self.catalog.remove(&relations);
        net.publish(&self.catalog);
        relations.iter().for_each(|relation| self.end_relation(*relation, why, net));
        if let Some(digest) = self.watch.remove(&module) {
            self.process.quarantine.computed(&digest);
        }
        if self.local == 0 {
            self.process.tell(Event::Unregistered { version, modules: vec![module], relations });
        }
    }

    /// A relation is gone: ends what clients and sources of this worker still wanted of it.
    pub(crate) fn end_relation(
        &mut self,
        relation: RelationId,
        why: Option<&ErrorBody>,
        net: &mut Connections,
    ) {
        self.subscriptions.end_relation(relation, why, net);
        self.feeds.end_relation(relation);
        self.pending.retain(|_, pending| match pending {
            Pending::Read(read) if read.relation.id == relation => {
                let error = why.cloned().unwrap_or_else(|| unregistered(&read.relation.name));
                net.error(&read.caller, &error);
                false
            }
            _ => true,
        });
    }

    /// Tells the owner that this worker has applied its command; the owner itself keeps what it will reply.
    pub(crate) fn acknowledge(&mut self, origin: WorkerIndex, ticket: Ticket, done: Done) {
        if origin == self.index() {
            let caller = match self.pending.remove(&ticket) {
                Some(
                    Pending::Register { caller, .. }
                    | Pending::Unregister { caller }
                    | Pending::Cancel { caller }
                    | Pending::Tune { caller },
                ) => caller,
                _ => return,
            };
            self.pending.insert(ticket, Pending::Acknowledged { caller, done });
        }
        let digest = self.engine.digest();
        self.mail.send(origin, Letter::Done(ticket, digest));
    }

    /// Has this worker's share of a part of a relation sent to the worker that asked.
    fn part(&mut self, time: Time, origin: WorkerIndex, ticket: Ticket, relation: RelationId, part: &Part) {
        let (relation, filter, ranking) = match part {
            Part::Rows(filter) => (relation, filter.clone(), None),
            Part::First(ranking) => (relation, ranking.filter.clone(), Some(ranking)),
            // Nobody waits for what nobody keeps any more.
            Part::Kept(ranking) => match self.engine.ranked(relation, ranking) {
                Some(kept) => (kept, Vec::new(), None),
                None => return,
            },
        };
        self.engine.snapshot(relation, time, origin, ticket.0, filter, ranking);
    }

    fn subscribed(&mut self, time: Time, ticket: Ticket, target: Option<RelationId>, net: &mut Connections) {
        let Some(subscription) = self.subscriptions.get_mut(ticket) else { return };
        let caller = subscription.caller.clone();
        let sub = subscription.sub();
        let Some(target) = target else {
            let name = subscription.relation.name.clone();
            self.subscriptions.remove(ticket);
            if let Some(session) = net.session(caller.connection) {
                session.subs.remove(&sub);
            }
            return net.error(&caller, &unregistered(&name));
        };
        let columns = subscription.relation.columns.as_slice();
        let resync = subscription.resync;
        let types = described(columns);
        net.ok(&caller, &Subscribed { sub, columns, types, time, history: &self.history, resync });
        self.subscriptions.begin(ticket, time, target);
    }

    /// The contents are on their way: those of a read, or of a subscription's snapshot that starts again.
    fn contents_begin(&mut self, time: Time, ticket: Ticket, known: bool, net: &mut Connections) {
        match self.pending.get_mut(&ticket) {
            Some(Pending::Read(read)) if known => read.begin(time),
            Some(Pending::Read(read)) => {
                net.error(&read.caller, &unregistered(&read.relation.name));
                self.pending.remove(&ticket);
            }
            _ if known => self.subscriptions.begin_again(ticket, time),
            _ => self.fed_gone(ticket),
        }
    }

    fn report(&self, net: &Connections) -> Report {
        let held = self.engine.stats();
        Report {
            process: self.process.config.process,
            clients: net.len() as u64,
            subscriptions: self.subscriptions.len() as u64,
            turns: self.metrics.turns.get(),
            commands: self.metrics.commands.get(),
            rows: self.metrics.rows.get(),
            dropped_rows: self.engine.dropped_rows(),
            window_rows: self.engine.window_rows(),
            parked_millis: (self.metrics.seconds(Phase::Park) * 1e3) as u64,
            dataflows: self.worker.installed_dataflows().len() as u64,
            traces: held.arrangements as u64,
            updates: held.updates as u64,
            trace_bytes: held.bytes as u64,
        }
    }

    /// This worker's shares of all modules.
    fn shares(&self) -> Vec<Share> {
        let share = |module: Arc<ModuleInfo>| {
            let touched = self.engine.module_touched(&module.name);
            Some(Share {
                figures: self.engine.figures(&module.name)?,
                computing: self.engine.module_finished(&module.name) < touched,
                module: module.name.clone(),
            })
        };
        self.engine.modules().into_iter().filter_map(share).collect()
    }

    fn tuned(&mut self, origin: WorkerIndex, ticket: Ticket, values: &[(String, u64)]) {
        // Checked at the owner; bounds don't depend on anything that could have changed since.
        if let Ok(tunables) = tuned(&self.tunables, values) {
            self.keys.set_retain(tunables.key_retain as usize);
            self.metrics.in_force(&tunables);
            self.tunables = tunables;
            if self.local == 0 {
                tracing::info!(?values, "tuned");
            }
        }
        self.acknowledge(origin, ticket, Done::Tuned(self.tunables.clone()));
    }
}

/// What a client is told of an engine's refusal.
fn body(error: &EngineError) -> ErrorBody {
    let code = match error {
        EngineError::Invalid(_) => ErrorCode::Incorrect,
        EngineError::Conflict(_) | EngineError::Stale(_) => ErrorCode::Conflict,
        EngineError::NotFound(_) => ErrorCode::NotFound,
    };
    ErrorBody::new(code, error.to_string())
}
