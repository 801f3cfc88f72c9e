//! Limits of queries, and how one ends that passes them.
//!
//! Every worker watches the modules whose dataflows have something to do: iterations, lag and failures by itself, rows
//! and bytes as the sum of all workers' shares, which the others report to the worker that registered the module. Who
//! notices something sends [`Command::Interrupt`]; where several do, the first in the order counts, and the others find
//! the module gone. Clients come by the same way with `cancel`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use dataflow_engine::{Failure, Figures};
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::{Time, WorkerIndex};
use dataflow_protocol::request::QueryLimits;
use serde::{Deserialize, Serialize};

use crate::command::{Command, Letter, Ticket};
use crate::config::Tunables;
use crate::connections::Connections;
use crate::member::{Done, Member, Pending};

/// How often a worker looks at most.
const INTERVAL: Duration = Duration::from_millis(20);

/// A share is reported when it has changed by this part of what would be the worker's even share of the limit.
const REPORTED_PART: u64 = 16;

/// Interrupted modules that `status` still names.
const REMEMBERED: usize = 16;

/// Why a module is ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// A client wanted it.
    Cancelled,
    /// A recursion has gone on for more iterations than this.
    Iterations(u64),
    /// It holds more rows than the second number: the first.
    Rows(u64, u64),
    /// It holds more bytes than the second number: the first.
    Bytes(u64, u64),
    /// It is more milliseconds behind than the second number: the first.
    Lag(u64, u64),
    /// An operator of it failed.
    Failed(String),
    /// It found more rows of a relation than this on one worker, which has no places for more.
    Full(u64),
}

/// Why, and how far the module was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    /// Why.
    pub why: Why,
    /// The relation that was being worked out, as far as that is known.
    pub relation: Option<String>,
    /// The iteration of its recursion; 0 outside of one.
    pub iteration: u64,
}

impl Interruption {
    /// What subscribers of `gone` are told, which is `module` itself or depends on it.
    fn error(&self, module: &str, gone: &str) -> ErrorBody {
        let place = match (&self.relation, self.iteration) {
            (Some(relation), 0) => format!(", at relation {relation:?}"),
            (Some(relation), iteration) => format!(", at iteration {iteration} of relation {relation:?}"),
            (None, _) => String::new(),
        };
        let limit = |name: &str| {
            Some(format!(
                "Register it with a higher limit in `limits`, or `tune` {name}, if it should go on."
            ))
        };
        let (why, hint) = match &self.why {
            Why::Cancelled => ("it was cancelled".to_owned(), None),
            Why::Iterations(most) => {
                (format!("it took more than {most} iterations"), limit("query_iterations"))
            }
            Why::Rows(rows, most) => (format!("it held {rows} rows of at most {most}"), limit("query_rows")),
            Why::Bytes(bytes, most) => {
                (format!("it held {bytes} bytes of at most {most}"), limit("query_bytes"))
            }
            Why::Lag(millis, most) => {
                (format!("it was {millis} ms behind, at most {most} are allowed"), limit("query_lag_millis"))
            }
            Why::Full(most) => {
                let hint = "On more workers each has fewer of them.".to_owned();
                (format!("it found more than {most} rows of a relation on one worker"), Some(hint))
            }
            Why::Failed(what) => {
                let hint = "This is the server's fault; its log says more.".to_owned();
                (format!("it failed: {what}"), Some(hint))
            }
        };
        let message = if gone == module {
            format!("module {module:?} was ended: {why}{place}")
        } else {
            format!("module {gone:?} was ended with module {module:?}, on which it depends: {why}{place}")
        };
        ErrorBody::new(ErrorCode::Interrupted, message).with_retry(false).with_hint(hint)
    }
}

/// What a worker knows of a module that it watches.
struct Watched {
    since: Time,
    digest: String,
    /// The worker that registered it, and adds up the shares.
    keeper: WorkerIndex,
    limits: QueryLimits,
    /// The last time at which it had something to do, if that is done.
    settled: Option<Time>,
    /// A time it has not finished, and since when; it is behind by that long at least.
    behind: Option<(Time, Instant)>,
    /// What was last reported to the keeper.
    reported: (u64, u64),
    /// At the keeper: rows and bytes of every worker.
    shares: Vec<(u64, u64)>,
    /// Its end is under way.
    ending: bool,
}

/// All modules that a worker watches.
#[derive(Default)]
pub(crate) struct Watch {
    modules: BTreeMap<String, Watched>,
    /// Those that haven't finished their first computation.
    computing: BTreeSet<String>,
    looked: Option<Instant>,
    /// Those interrupted last: time, name, and what was said.
    ended: VecDeque<(Time, String, String)>,
}

impl Watch {
    /// Modules interrupted last, the latest at the end.
    pub(crate) fn ended(&self) -> impl Iterator<Item = &(Time, String, String)> {
        self.ended.iter()
    }

    /// A module is there, with limits of its own; one that was there may get others.
    pub(crate) fn add(
        &mut self,
        name: &str,
        since: Time,
        digest: &str,
        keeper: WorkerIndex,
        limits: Option<QueryLimits>,
        workers: usize,
    ) {
        let watched = self.modules.entry(name.to_owned()).or_insert_with(|| {
            self.computing.insert(name.to_owned());
            Watched {
                since,
                digest: digest.to_owned(),
                keeper,
                limits: QueryLimits::default(),
                settled: None,
                behind: None,
                reported: (0, 0),
                shares: vec![(0, 0); workers],
                ending: false,
            }
        });
        if let Some(limits) = limits {
            watched.limits = limits;
            watched.settled = None;
        }
    }

    /// A module is gone; its digest.
    pub(crate) fn remove(&mut self, name: &str) -> Option<String> {
        self.computing.remove(name);
        self.modules.remove(name).map(|watched| watched.digest)
    }
}

/// A module's limits where it has some, else everybody's; 0 is none.
fn in_force(own: &QueryLimits, tunables: &Tunables) -> Tunables {
    let mut all = tunables.clone();
    all.query_iterations = own.iterations.unwrap_or(all.query_iterations);
    all.query_rows = own.rows.unwrap_or(all.query_rows);
    all.query_bytes = own.bytes.unwrap_or(all.query_bytes);
    all.query_lag_millis = own.lag_millis.unwrap_or(all.query_lag_millis);
    all
}

fn over(value: u64, limit: u64) -> bool {
    limit != 0 && value > limit
}

impl Member {
    /// Looks, every so often, at the modules that have something to do.
    pub(crate) fn watch(&mut self) {
        let now = Instant::now();
        if self.watch.looked.is_some_and(|looked| now.duration_since(looked) < INTERVAL) {
            return;
        }
        self.watch.looked = Some(now);
        self.metrics.longest(self.longest_step, self.engine.longest_work());
        let (me, peers) = (self.index(), self.peers());
        let mut element = Vec::new();
        for (name, watched) in &mut self.watch.modules {
            let (Some(touched), Some(finished)) =
                (self.engine.module_touched(name), self.engine.module_finished(name))
            else {
                continue;
            };
            if watched.ending || watched.settled == Some(touched) {
                continue;
            }
            let done = finished >= touched;
            watched.settled = done.then_some(touched);
            watched.behind = match watched.behind {
                _ if done => None,
                Some((time, at)) if finished < time => Some((time, at)),
                _ => Some((self.applied, now)),
            };
            let Some(figures) = self.engine.figures(name) else { continue };
            let limits = in_force(&watched.limits, &self.tunables);
            let share = (figures.rows, figures.bytes);
            if watched.keeper == me {
                watched.shares[me.0] = share;
            } else if due(watched.reported, share, &limits, peers) {
                watched.reported = share;
                self.mail.send(watched.keeper, Letter::Share(name.clone(), watched.since, share.0, share.1));
            }
            if let Some(why) = watched.passed(&figures, &limits, now) {
                watched.ending = true;
                let relation = figures.relation.filter(|_| figures.iteration > 0);
                let relation = relation.or_else(|| self.engine.unfinished(name));
                let why = Interruption { why, relation, iteration: figures.iteration };
                element.push(Command::Interrupt { module: name.clone(), since: watched.since, why });
            }
        }
        element.into_iter().for_each(|command| self.send(command));
    }

    /// Notes, each turn, which programs have been computed for the first time: from then on they aren't suspected.
    pub(crate) fn note_computed(&mut self) {
        let Watch { modules, computing, .. } = &mut self.watch;
        computing.retain(|name| {
            let Some(watched) = modules.get(name) else { return false };
            let computed =
                self.engine.module_finished(name).is_some_and(|finished| finished >= watched.since);
            if computed {
                self.process.quarantine.computed(&watched.digest);
            }
            !computed
        });
    }

    /// Another worker's share of a module that this one keeps.
    pub(crate) fn shared(&mut self, from: WorkerIndex, module: &str, since: Time, rows: u64, bytes: u64) {
        if let Some(watched) = self.watch.modules.get_mut(module).filter(|watched| watched.since == since) {
            watched.shares[from.0] = (rows, bytes);
            watched.settled = None;
        }
    }

    /// Ends a module, and what depends on it, on this worker; those that were ended. Subscribers are told why.
    pub(crate) fn interrupt_module(
        &mut self,
        time: Time,
        module: &str,
        since: Time,
        why: &Interruption,
        net: &mut Connections,
    ) -> Vec<String> {
        let gone = self.engine.interrupt(&mut self.worker, module, since);
        for info in &gone {
            let error = why.error(module, &info.name);
            self.module_gone(info.name.clone(), info.relations.clone(), Some(&error), net);
            if self.index().0 == 0 {
                tracing::warn!(time, "{}", error.message);
            }
            if self.watch.ended.len() == REMEMBERED {
                self.watch.ended.pop_front();
            }
            self.watch.ended.push_back((time, info.name.clone(), error.message));
        }
        gone.into_iter().map(|info| info.name.clone()).collect()
    }

    /// Carries out a client's `cancel`.
    pub(crate) fn cancelled(
        &mut self,
        time: Time,
        origin: WorkerIndex,
        ticket: Ticket,
        name: &str,
        net: &mut Connections,
    ) {
        let found = self.engine.modules().into_iter().find(|module| module.name == name);
        let Some(found) = found else {
            if origin == self.index()
                && let Some(Pending::Cancel { caller }) = self.pending.remove(&ticket)
            {
                net.refuse(&caller, ticket, &ErrorBody::not_found(format!("no module {name:?}")));
            }
            return;
        };
        let figures = self.engine.figures(name).unwrap_or_default();
        let relation = figures.relation.filter(|_| figures.iteration > 0);
        let why = Interruption { why: Why::Cancelled, relation, iteration: figures.iteration };
        let modules = self.interrupt_module(time, name, found.since, &why, net);
        let Interruption { relation, iteration, .. } = why;
        let done = Done::Cancelled(Cancelled { name: name.to_owned(), modules, relation, iteration, time });
        self.acknowledge(origin, ticket, done);
    }
}

/// The answer to a `cancel`.
#[derive(Serialize)]
pub(crate) struct Cancelled {
    name: String,
    /// What was ended, what depends on another before it.
    modules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relation: Option<String>,
    iteration: u64,
    time: Time,
}

impl Watched {
    /// The first limit that the module has passed.
    fn passed(&self, figures: &Figures, limits: &Tunables, now: Instant) -> Option<Why> {
        match &figures.failure {
            Some(Failure::Panicked(what)) => return Some(Why::Failed(what.clone())),
            Some(Failure::Full(most)) => return Some(Why::Full(*most)),
            None => {}
        }
        if over(figures.iteration, limits.query_iterations) {
            return Some(Why::Iterations(limits.query_iterations));
        }
        let (rows, bytes) =
            self.shares.iter().fold((0, 0), |(rows, bytes), share| (rows + share.0, bytes + share.1));
        if over(rows, limits.query_rows) {
            return Some(Why::Rows(rows, limits.query_rows));
        }
        if over(bytes, limits.query_bytes) {
            return Some(Why::Bytes(bytes, limits.query_bytes));
        }
        let behind = self.behind.map_or(0, |(_, at)| now.duration_since(at).as_millis() as u64);
        over(behind, limits.query_lag_millis).then_some(Why::Lag(behind, limits.query_lag_millis))
    }
}

/// Whether a share has changed by so much that its keeper has to know.
fn due(reported: (u64, u64), share: (u64, u64), limits: &Tunables, peers: usize) -> bool {
    let far = |from: u64, to: u64, limit: u64| {
        limit != 0 && from.abs_diff(to) > limit / (REPORTED_PART * peers as u64)
    };
    far(reported.0, share.0, limits.query_rows) || far(reported.1, share.1, limits.query_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_limits_replace_everybodys_one_by_one() {
        let own = QueryLimits { iterations: Some(7), lag_millis: Some(0), ..QueryLimits::default() };
        let all = in_force(&own, &Tunables { query_rows: 11, ..Tunables::default() });
        assert_eq!((all.query_iterations, all.query_rows, all.query_lag_millis), (7, 11, 0));
        assert!(over(8, all.query_iterations) && !over(7, all.query_iterations));
        assert!(!over(u64::MAX, all.query_lag_millis), "0 is no limit");
    }

    #[test]
    fn shares_are_reported_before_they_could_add_up_to_a_limit() {
        let limits = Tunables { query_rows: 320, query_bytes: 0, ..Tunables::default() };
        assert!(!due((0, 0), (10, 1 << 40), &limits, 2));
        assert!(due((0, 0), (11, 0), &limits, 2));
        assert!(due((100, 0), (11, 0), &limits, 2), "also when they shrink");
    }

    #[test]
    fn interruption_says_what_where_and_at_which_iteration() {
        let why =
            Interruption { why: Why::Iterations(1000), relation: Some("n".to_owned()), iteration: 1001 };
        let error = why.error("m", "m");
        assert_eq!(error.code, ErrorCode::Interrupted);
        assert_eq!(
            error.message,
            r#"module "m" was ended: it took more than 1000 iterations, at iteration 1001 of relation "n""#
        );
        let why = Interruption { why: Why::Full(1 << 32), relation: Some("n".to_owned()), iteration: 3 };
        assert_eq!(
            why.error("m", "m").message,
            r#"module "m" was ended: it found more than 4294967296 rows of a relation on one worker, at iteration 3 of relation "n""#
        );
        let why = Interruption { why: Why::Iterations(1000), relation: None, iteration: 0 };
        assert!(why.error("m", "reader").message.starts_with(
            r#"module "reader" was ended with module "m", on which it depends: it took more than"#
        ));
    }
}
