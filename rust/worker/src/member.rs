//! A worker as a member of a formed cluster: its dataflows, and the requests it owns.
//!
//! What the client's side of the loop knows is split over three files: `requests` takes them in, `apply` carries out
//! what the sequencer released, `emit` gives results to those who wait for them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataflow_engine::{Analysis, Engine, RelationInfo, Stats};
use dataflow_protocol::dictionary::sweep::{self, Pin};
use dataflow_protocol::dictionary::{self, Collision, Content};
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::request::{Change, QueryLimits, Wait};
use dataflow_protocol::shape::described;
use timely::worker::Worker;

use crate::catalog::{Catalog, RelationReply};
use crate::command::{Command, Element, Letter, Report, Share, Ticket};
use crate::config::Tunables;
use crate::connections::{Caller, Connections};
use crate::feeding::{Fed, Feeds};
use crate::forget::Sweeping;
use crate::keys::KeyTable;
use crate::limits::{Cancelled, Watch};
use crate::mail::Mail;
use crate::metrics::{ClientFigures, NAMED_CLIENTS, Published, RelationFigures, WorkerMetrics};
use crate::process::Process;
use crate::reads::Read;
use crate::sequencer::Sequencer;
use crate::sources::Attachment;
use crate::subscriptions::Subscriptions;
use crate::timeline::Timeline;

/// Stepping beyond this is worth a line in the log: nothing else happens on the worker meanwhile.
const LONG: Duration = Duration::from_secs(1);

/// How often figures that must be looked up are left for `/metrics`.
const PUBLISHING: Duration = Duration::from_secs(1);

/// A transaction that this worker owns, on its way through the sequencer.
pub(crate) enum Own {
    /// A client's.
    Client(OwnTransaction),
    /// An external source's.
    Fed(Fed),
}

/// A transaction of a client of this worker.
pub(crate) struct OwnTransaction {
    pub(crate) caller: Caller,
    pub(crate) changes: Vec<Change>,
    pub(crate) wait: Wait,
    pub(crate) bytes: usize,
    pub(crate) pin: Pin,
}

/// A transaction that is answered when its effect is visible.
pub(crate) struct Visible {
    pub(crate) caller: Caller,
    pub(crate) time: Time,
    pub(crate) deduplicated: bool,
    pub(crate) relations: Vec<RelationId>,
}

/// What a worker said of itself, and of its share of every module.
pub(crate) type Reported = (WorkerIndex, Report, Vec<Share>);

/// What a client of this worker waits for.
pub(crate) enum Pending {
    /// A plan, or the plan's place in the order.
    Register {
        caller: Caller,
        program: String,
        name: Option<String>,
        limits: Option<QueryLimits>,
        attempts: u64,
    },
    /// The place in the order of a removal.
    Unregister { caller: Caller },
    /// The other workers' acknowledgements; this one has applied it.
    Acknowledged { caller: Caller, done: Done },
    /// Reports of all workers.
    Status { caller: Caller, reports: Vec<Reported>, sources: Vec<String> },
    /// The place in the order of the end of a module.
    Cancel { caller: Caller },
    /// New tunables' place in the order.
    Tune { caller: Caller },
    /// The place in the order of the end of a subscription.
    Unsubscribe { caller: Caller },
    /// The contents of a relation.
    Read(Read),
    /// Python's description of a plan.
    Explain { caller: Caller },
    /// What the workers say of its operators; then Python's description. Workers' shares are in their order, none
    /// where one hasn't said anything yet.
    Analyze { caller: Caller, relation: String, plan: String, shares: Vec<Option<Analysis>> },
    /// Python's verdict on a source, then its place in the order; without a caller, one from the configuration.
    Attach { caller: Option<Caller>, name: String, source: String },
    /// The end of a source.
    Detach { caller: Caller },
    /// The same, in the process that runs it: another worker's request, under that worker's ticket.
    Detaching { origin: WorkerIndex, ticket: Ticket },
    /// A shutdown is answered when it takes effect.
    Shutdown { caller: Caller },
    /// The place in the order of what the clock is to show.
    Advance { caller: Caller },
}

/// What an acknowledged request is answered with.
pub(crate) enum Done {
    Registered { name: String, relations: Vec<RelationReply>, time: Time },
    Unregistered { time: Time },
    Cancelled(Cancelled),
    Tuned(Tunables),
}

/// The part of a worker that exists once the cluster is formed.
pub(crate) struct Member {
    // Dropped in this order: what was made of the worker before the worker.
    pub(crate) engine: Engine,
    pub(crate) sequencer: Sequencer<Element>,
    pub(crate) mail: Mail<Letter>,
    pub(crate) worker: Worker,
    pub(crate) process: Arc<Process>,
    pub(crate) local: usize,
    pub(crate) history: String,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) tunables: Tunables,
    pub(crate) catalog: Catalog,
    pub(crate) keys: KeyTable,
    /// What this turn has to tell all workers.
    pub(crate) element: Element,
    /// Elements under way: when each was sent.
    pub(crate) sent: VecDeque<(Time, Instant)>,
    pub(crate) transactions: VecDeque<Own>,
    pub(crate) feeds: Feeds,
    /// Sources that are attached. Equal on all workers.
    pub(crate) sources: BTreeMap<String, Attachment>,
    pub(crate) visible: Vec<Visible>,
    pub(crate) pending: HashMap<Ticket, Pending>,
    /// Digests of the catalog with which workers have acknowledged.
    acknowledgements: HashMap<Ticket, Vec<u64>>,
    pub(crate) subscriptions: Subscriptions,
    /// The last tick that this worker has sent.
    pub(crate) ticked: Option<i64>,
    /// Subscriptions to first rows that are on their way through the order.
    pub(crate) rankings_proposed: usize,
    pub(crate) watch: Watch,
    pub(crate) sweeping: Sweeping,
    /// The longest step of the dataflows so far.
    pub(crate) longest_step: Duration,
    /// Rows of the transactions that go out with this turn.
    pub(crate) element_rows: u64,
    /// Digests of programs that aren't to be built; changes only by commands.
    pub(crate) quarantined: BTreeSet<String>,
    /// The dataflows are too far behind for more transactions; judged once a turn.
    pub(crate) overloaded: bool,
    /// The last time applied.
    pub(crate) applied: Time,
    pub(crate) timeline: Timeline,
    published: Option<Instant>,
    /// The cluster was told to stop.
    pub(crate) stopping: bool,
    shutdown_sent: bool,
    /// Of the last request given one. It goes on from generation to generation, so that an answer that comes late is
    /// nobody's.
    pub(crate) tickets: u64,
}

impl Member {
    /// Builds the standing dataflows, in the same order on every worker.
    pub(crate) fn new(
        mut worker: Worker,
        process: Arc<Process>,
        local: usize,
        history: u64,
        tickets: u64,
    ) -> Self {
        sweep::join();
        let own_process = process.config.process;
        let threads = process.config.threads;
        let shared = Arc::clone(&process);
        let sequencer = Sequencer::new(&mut worker, move |origin, element: &Element| {
            shared.suffer();
            if origin.0 / threads != own_process {
                learn(&element.contents, |content| dictionary::intern(content).map(drop));
            }
        });
        let mail = Mail::new(&mut worker);
        let mut engine = Engine::new(&mut worker);
        if process.config.enable_faults {
            engine.enable_faults();
        }
        let tunables = process.config.tunables.clone();
        // Nothing is built before all members are there.
        process.quarantine.generation_begins();
        let digests = if local == 0 { process.quarantine.all() } else { Vec::new() };
        let mut element = Element::default();
        if !digests.is_empty() {
            element.commands.push(Command::Quarantine { digests });
        }
        let metrics = process.metrics.worker(local);
        metrics.in_force(&tunables);
        Member {
            keys: KeyTable::new(tunables.key_retain as usize),
            metrics,
            history: format!("{history:016x}"),
            catalog: Catalog::default(),
            element,
            sent: VecDeque::new(),
            transactions: VecDeque::new(),
            feeds: Feeds::default(),
            sources: BTreeMap::new(),
            visible: Vec::new(),
            pending: HashMap::new(),
            acknowledgements: HashMap::new(),
            subscriptions: Subscriptions::default(),
            ticked: None,
            rankings_proposed: 0,
            watch: Watch::default(),
            sweeping: Sweeping::default(),
            longest_step: Duration::ZERO,
            element_rows: 0,
            quarantined: BTreeSet::new(),
            overloaded: false,
            applied: 0,
            timeline: Timeline::default(),
            published: None,
            stopping: false,
            shutdown_sent: false,
            tickets,
            engine,
            sequencer,
            mail,
            worker,
            process,
            local,
            tunables,
        }
    }

    pub(crate) fn index(&self) -> WorkerIndex {
        WorkerIndex(self.worker.index())
    }

    pub(crate) fn peers(&self) -> usize {
        self.worker.peers()
    }

    /// A number for a request; [`Process::answer`] finds the worker by it.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets * self.process.config.threads as u64 + self.local as u64)
    }

    /// Adds a command to what goes out with this turn.
    pub(crate) fn send(&mut self, command: Command) {
        self.element.commands.push(command);
    }

    /// What a turn begins with.
    pub(crate) fn refresh(&mut self) {
        self.overloaded = self.is_behind();
        self.metrics.throttled_turns.inc_by(u64::from(self.overloaded));
        if self.process.shutdown_requested() {
            self.propose_shutdown();
        }
        self.tick_if_due();
        self.sweep_if_due();
    }

    /// Sends what the turn has collected, as one element; whether there was anything.
    pub(crate) fn sequence(&mut self) -> bool {
        if self.element.is_empty() {
            return false;
        }
        self.element_rows = 0;
        let time = self.sequencer.push(std::mem::take(&mut self.element));
        self.sent.push_back((time, Instant::now()));
        true
    }

    /// Steps the dataflows, within the turn's budget; whether there is more to do, or a time of the sequence to apply.
    pub(crate) fn step(&mut self) -> bool {
        let Tunables { steps_per_turn, step_micros, operator_micros, .. } = self.tunables;
        let budget = Duration::from_micros(step_micros);
        let started = Instant::now();
        let operators = Duration::from_micros(operator_micros);
        let mut active = false;
        for _ in 0..steps_per_turn {
            self.engine.begin_step(operators);
            let began = started.elapsed();
            self.worker.step();
            self.longest_step = self.longest_step.max(started.elapsed() - began);
            self.metrics.steps.inc();
            active = self.sequencer.catch_up() || self.is_active();
            if !active || self.sequencer.ready() || started.elapsed() >= budget {
                break;
            }
        }
        let took = started.elapsed();
        if took > LONG {
            let worker = self.index().0;
            tracing::warn!(
                worker,
                seconds = took.as_secs_f64(),
                "the dataflows kept the worker busy for long"
            );
        }
        active || self.sequencer.ready()
    }

    /// Steps, or parks if there is nothing to step, for `at_most`.
    pub(crate) fn park(&mut self, at_most: Duration) {
        let at_most = self.until_tick().map_or(at_most, |until| until.min(at_most));
        self.worker.step_or_park(Some(at_most));
        self.sequencer.catch_up();
    }

    /// Whether something waits for the next turn that nothing will wake the worker for.
    pub(crate) fn has_work(&self) -> bool {
        let relieved = self.overloaded && !self.is_behind();
        relieved || !self.element.is_empty() || self.sequencer.ready() || self.is_active()
    }

    /// Whether more has been introduced than the dataflows have finished, by too much.
    fn is_behind(&self) -> bool {
        self.engine.unfinished_bytes() > self.tunables.inflight_bytes as usize
    }

    /// Whether an operator is to be scheduled.
    fn is_active(&self) -> bool {
        self.worker.activations().borrow().empty_for() == Some(Duration::ZERO)
    }

    /// Lets the cluster know, once, that this process was told to stop.
    fn propose_shutdown(&mut self) {
        if !self.shutdown_sent {
            self.shutdown_sent = true;
            self.send(Command::Shutdown { ticket: None });
        }
    }

    /// Leaves figures that aren't counted one by one for whoever asks, now and then.
    pub(crate) fn publish(&mut self, net: &Connections) {
        let now = net.now;
        if self.published.is_some_and(|last| now.duration_since(last) < PUBLISHING) {
            return;
        }
        self.published = Some(now);
        if self.local == 0 {
            self.process.metrics.process.dictionary(dictionary::len(), dictionary::bytes());
        }
        let figures = |(info, stats): (Arc<RelationInfo>, Stats)| RelationFigures {
            relation: info.name.clone(),
            module: info.module.clone(),
            rows: stats.updates as u64,
            bytes: stats.bytes as u64,
            lag_seconds: self
                .engine
                .finished(info.id)
                .map_or(0.0, |finished| self.timeline.lag(finished, now).as_secs_f64()),
        };
        let relations = self.engine.relation_stats().into_iter().map(figures).collect();
        let coalesced = self.subscriptions.coalesced();
        let clients = net.longest_queues(NAMED_CLIENTS).into_iter().map(|(id, bytes)| ClientFigures {
            client: id.0,
            queue_bytes: bytes as u64,
            coalesced_steps: coalesced.get(&id).copied().unwrap_or_default(),
        });
        self.metrics.publish(Published { relations, clients: clients.collect() });
    }

    /// Ends what clients wait for, when the generation is over or the cluster stops.
    pub(crate) fn interrupt(&mut self, net: &mut Connections) {
        let error = match self.process.why_fallen() {
            Some(why) => {
                let hint =
                    "The cluster forms anew, without its programs and rows: register, then subscribe again.";
                let message = format!("the cluster has to begin anew: {why}");
                ErrorBody::new(ErrorCode::Interrupted, message).with_hint(Some(hint.into()))
            }
            None => ErrorBody::new(ErrorCode::Interrupted, "the server is shutting down"),
        };
        for (_, pending) in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Shutdown { caller } => net.ok(&caller, &serde_json::json!({})),
                pending => pending.caller().into_iter().for_each(|caller| net.error(caller, &error)),
            }
        }
        let waiting = std::mem::take(&mut self.visible).into_iter().map(|visible| visible.caller);
        let unsent = std::mem::take(&mut self.transactions).into_iter().filter_map(|own| match own {
            Own::Client(own) => Some(own.caller),
            Own::Fed(fed) => {
                fed.abandon(&error);
                None
            }
        });
        for caller in waiting.chain(unsent) {
            net.error(&caller, &error);
        }
        self.subscriptions.end_all(net, &error);
        self.feeds.add(self.process.take_last_feeds(self.local));
        self.feeds.end(&error);
    }

    /// A worker has applied a command of this one's client; its acknowledgement may come before this worker has
    /// applied the command itself.
    pub(crate) fn acknowledged(&mut self, ticket: Ticket, digest: u64, net: &mut Connections) {
        self.acknowledgements.entry(ticket).or_default().push(digest);
        self.conclude(ticket, net);
    }

    /// Replies once all workers have acknowledged: from then on any of them knows what was changed.
    ///
    /// # Panics
    ///
    /// If the workers' catalogs differ: they would build different dataflows from here on.
    pub(crate) fn conclude(&mut self, ticket: Ticket, net: &mut Connections) {
        let all = self.acknowledgements.get(&ticket).is_some_and(|digests| digests.len() == self.peers());
        if !all || !matches!(self.pending.get(&ticket), Some(Pending::Acknowledged { .. })) {
            return;
        }
        let digests = self.acknowledgements.remove(&ticket).unwrap_or_default();
        assert!(
            digests.windows(2).all(|pair| pair[0] == pair[1]),
            "workers disagree on the catalog: {digests:?}"
        );
        if let Some(Pending::Acknowledged { caller, done }) = self.pending.remove(&ticket) {
            match &done {
                Done::Registered { name, relations, time } => {
                    let mut body = serde_json::json!({ "name": name, "relations": relations, "time": time });
                    let types = described(relations.iter().flat_map(RelationReply::columns));
                    if !types.is_empty() {
                        body["types"] = serde_json::json!(types);
                    }
                    net.ok(&caller, &body);
                }
                Done::Unregistered { time } => net.ok(&caller, &serde_json::json!({ "time": time })),
                Done::Cancelled(cancelled) => net.ok(&caller, cancelled),
                Done::Tuned(tunables) => net.ok(&caller, tunables),
            }
            net.resume(caller.connection, ticket);
        }
    }
}

impl Pending {
    /// Who is told, if it is somebody on a connection of this worker.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        match self {
            Pending::Attach { caller, .. } => caller.as_ref(),
            Pending::Detaching { .. } => None,
            Pending::Register { caller, .. }
            | Pending::Unregister { caller }
            | Pending::Acknowledged { caller, .. }
            | Pending::Status { caller, .. }
            | Pending::Cancel { caller }
            | Pending::Tune { caller }
            | Pending::Unsubscribe { caller }
            | Pending::Explain { caller }
            | Pending::Analyze { caller, .. }
            | Pending::Detach { caller }
            | Pending::Advance { caller }
            | Pending::Shutdown { caller } => Some(caller),
            Pending::Read(read) => Some(&read.caller),
        }
    }
}

/// Takes note of what is announced to all processes: of the contents themselves when an element is received, since rows with their words may come from workers that are ahead; that everybody knows them, so that they needn't
/// travel with rows or be announced again, only once the element is applied.
///
/// # Panics
///
/// If one has the same hash as another content of this process: words would mean different values on different
/// processes. It is a matter of 2^-64 a pair, and ends the generation.
pub(crate) fn learn(contents: &[Content], note: impl Fn(&Content) -> Result<(), Collision>) {
    for content in contents {
        if let Err(collision) = note(content) {
            panic!("an announced {collision}");
        }
    }
}
