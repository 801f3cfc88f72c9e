//! Giving results to those who wait for them.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use dataflow_engine::EmitBudget;
use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::request::Op;
use serde::Serialize;

use crate::catalog::RelationReply;
use crate::clock;
use crate::command::{Command, Letter, Report, Share, Ticket};
use crate::config::Tunables;
use crate::connections::{Caller, Connections};
use crate::member::{Member, Pending, Reported};

#[derive(Serialize)]
struct Status<'a> {
    workers: Vec<WorkerStatus<'a>>,
    clients: u64,
    relations: Vec<RelationStatus>,
    sources: Vec<serde_json::Value>,
    modules: Vec<ModuleStatus<'a>>,
    interrupted: Vec<Ended<'a>>,
    time: Time,
    /// What the clock shows.
    now: Option<String>,
    history: &'a str,
    server: &'static str,
    tunables: &'a Tunables,
    counters: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct WorkerStatus<'a> {
    worker: usize,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Serialize)]
struct RelationStatus {
    #[serde(flatten)]
    relation: RelationReply,
    module: String,
    finished: Option<Time>,
}

/// A module on all workers together.
#[derive(Default, Serialize)]
struct ModuleStatus<'a> {
    name: &'a str,
    rows: u64,
    bytes: u64,
    iteration: u64,
    computing: bool,
}

impl<'a> ModuleStatus<'a> {
    fn all(reports: &'a [(WorkerIndex, Report, Vec<Share>)]) -> Vec<Self> {
        let mut all: BTreeMap<&str, ModuleStatus<'a>> = BTreeMap::new();
        for share in reports.iter().flat_map(|(.., shares)| shares) {
            let status = all.entry(&share.module).or_default();
            status.name = &share.module;
            status.rows += share.figures.rows;
            status.bytes += share.figures.bytes;
            status.iteration = status.iteration.max(share.figures.iteration);
            status.computing |= share.computing;
        }
        all.into_values().collect()
    }
}

/// A module that was ended before its time.
#[derive(Serialize)]
struct Ended<'a> {
    time: Time,
    module: &'a str,
    message: &'a str,
}

impl Member {
    /// Takes finished results from the engine and the mail, and gives them to clients; whether more is at hand.
    pub(crate) fn emit(&mut self, net: &mut Connections, max_message_bytes: usize) -> bool {
        let budget = EmitBudget {
            rows: self.tunables.emit_rows as usize,
            slice_rows: self.tunables.slice_rows as usize,
        };
        let more = self.engine.work(&budget);
        let now = Instant::now();
        for step in self.engine.take_steps() {
            self.metrics.step_latency_seconds.observe(self.timeline.age(step.time, now).as_secs_f64());
            for ticket in self.subscriptions.step(step, net, &self.tunables) {
                self.restart(ticket, net);
            }
        }
        for slice in self.engine.take_slices() {
            if self.fed_slice(&slice) {
                continue;
            }
            let ticket = Ticket(slice.token);
            let Some(Pending::Read(read)) = self.pending.get_mut(&ticket) else {
                self.subscriptions.slice(ticket, slice.changes, slice.end);
                continue;
            };
            if read.add(&slice.changes, slice.end, max_message_bytes)
                && let Some(Pending::Read(read)) = self.pending.remove(&ticket)
            {
                read.finish(net, max_message_bytes);
            }
        }
        self.note_computed();
        self.watch();
        self.subscriptions.catch_up(net, &self.tunables);
        for (relation, ranking) in self.subscriptions.take_given_up() {
            let ticket = self.ticket();
            self.send(Command::Unsubscribe { ticket, relation, ranking });
        }
        self.show(net);
        self.subscriptions.progress(&self.engine, net, &self.tunables);
        self.metrics.subscriptions.set(self.subscriptions.len() as i64);
        let sweeping = self.sweep_on();
        self.letters(net) || more || sweeping
    }

    /// Too much has changed while a snapshot came: another one, of a later time.
    fn restart(&mut self, old: Ticket, net: &mut Connections) {
        let ticket = self.ticket();
        if let Some(subscription) = self.subscriptions.restart(old, ticket, self.peers(), net) {
            let (relation, part) = (subscription.relation.id, subscription.part());
            self.send(Command::Contents { ticket, relation, part });
        }
    }

    /// Answers transactions whose effects are visible.
    fn show(&mut self, net: &mut Connections) {
        if self.visible.is_empty() {
            return;
        }
        let mut finished: HashMap<RelationId, Time> = HashMap::new();
        for visible in std::mem::take(&mut self.visible) {
            // A relation that is gone has nothing to show any more.
            let all = visible.relations.iter().all(|relation| {
                let until = finished
                    .entry(*relation)
                    .or_insert_with(|| self.engine.finished(*relation).unwrap_or(Time::MAX));
                *until >= visible.time
            });
            if all {
                let body =
                    crate::apply::Transacted { time: visible.time, deduplicated: visible.deduplicated };
                net.ok(&visible.caller, &body);
            } else {
                self.visible.push(visible);
            }
        }
    }

    fn letters(&mut self, net: &mut Connections) -> bool {
        let mut any = false;
        while let Some((from, letter)) = self.mail.receive() {
            any = true;
            match letter {
                Letter::Done(ticket, digest) => self.acknowledged(ticket, digest, net),
                Letter::Detached(ticket, time, left) => self.detach_done(ticket, time, &left, net),
                Letter::Report(ticket, report, shares, sources) => {
                    self.reported(ticket, (from, report, shares), sources, net);
                }
                Letter::Analysis(ticket, analysis) => self.analyzed(ticket, from, analysis, net),
                Letter::Share(module, since, rows, bytes) => {
                    self.shared(from, &module, since, rows, bytes);
                }
            }
        }
        any
    }

    fn reported(&mut self, ticket: Ticket, report: Reported, of_sources: Vec<String>, net: &mut Connections) {
        let peers = self.peers();
        let Some(Pending::Status { reports, sources, .. }) = self.pending.get_mut(&ticket) else { return };
        reports.push(report);
        sources.extend(of_sources);
        if reports.len() < peers {
            return;
        }
        if let Some(Pending::Status { caller, mut reports, sources }) = self.pending.remove(&ticket) {
            reports.sort_by_key(|(worker, ..)| *worker);
            self.status(&caller, &reports, &sources, net);
        }
    }

    fn status(&self, caller: &Caller, reports: &[Reported], sources: &[String], net: &mut Connections) {
        let sum =
            |figure: fn(&Report) -> u64| reports.iter().map(|(_, report, _)| figure(report)).sum::<u64>();
        let relation = |info: &std::sync::Arc<dataflow_engine::RelationInfo>| RelationStatus {
            relation: RelationReply::new(info),
            module: info.module.clone(),
            finished: self.engine.finished(info.id),
        };
        let grant = net.grant(caller.connection);
        let shown = |name: &str| grant.as_ref().is_some_and(|grant| grant.reaches(name));
        let all = grant.as_ref().is_some_and(|grant| grant.for_everything(Op::Status).is_ok());
        let status = Status {
            workers: reports
                .iter()
                .map(|(worker, report, _)| WorkerStatus { worker: worker.0, report })
                .collect(),
            clients: sum(|report| report.clients),
            sources: sources
                .iter()
                .filter_map(|source| serde_json::from_str(source).ok())
                .filter(|source| of_shown(source, shown))
                .collect(),
            relations: self
                .engine
                .relations()
                .iter()
                .filter(|info| shown(&info.name))
                .map(relation)
                .collect(),
            modules: if all { ModuleStatus::all(reports) } else { Vec::new() },
            interrupted: self
                .watch
                .ended()
                .filter(|_| all)
                .map(|(time, module, message)| Ended { time: *time, module, message })
                .collect(),
            time: self.applied,
            now: self.engine.now().map(clock::spelled),
            history: &self.history,
            server: crate::requests::SERVER,
            tunables: &self.tunables,
            counters: BTreeMap::from([
                ("rows", sum(|report| report.rows)),
                ("dropped_rows", sum(|report| report.dropped_rows)),
                ("window_rows", sum(|report| report.window_rows)),
                ("subscriptions", sum(|report| report.subscriptions)),
                ("turns", sum(|report| report.turns)),
                ("parked_millis", sum(|report| report.parked_millis)),
                ("dataflows", sum(|report| report.dataflows)),
                ("traces", sum(|report| report.traces)),
                ("updates", sum(|report| report.updates)),
                ("trace_bytes", sum(|report| report.trace_bytes)),
            ]),
        };
        net.ok(caller, &status);
    }
}

/// Whether everything that a source says of itself is about relations that may be shown.
fn of_shown(source: &serde_json::Value, shown: impl Fn(&str) -> bool) -> bool {
    let relations = source.get("relations").and_then(serde_json::Value::as_array);
    relations.is_some_and(|names| names.iter().all(|name| name.as_str().is_some_and(&shown)))
}
