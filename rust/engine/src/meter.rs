//! What the operators of a program share, and report while they work: rows they hold, what they have done, the iteration
//! a recursion has come to, and that one of them has failed.
//!
//! Every operator belongs to a [`Part`] of the plan, and counts for it. It counts containers and stretches of work, never
//! single rows, so that nothing has to be turned on to be asked for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use differential_dataflow::trace::TraceReader;

use crate::analysis::{OperatorFigures, Part};
use crate::budget::{Budget, Kind};
use crate::container::EngineTime;
use crate::expr::eval::Dropped;
use crate::faults::Fault;
use crate::limits::{Failure, Figures};
use crate::trace::{Agent, View};

/// Rows and bytes that something holds at the moment.
pub(crate) type Held = Rc<Cell<(usize, usize)>>;

/// Asks something what it holds; `None` once it is gone.
type Holding = Box<dyn Fn() -> Option<(usize, usize)>>;

/// Handed to every operator of a program. Clones are the same meter.
#[derive(Clone, Default)]
pub(crate) struct Meter {
    program: Rc<Program>,
    /// Of the part that the operator belongs to.
    tally: Rc<Tally>,
    /// Whether what the operator emits is what the part gives.
    gives: bool,
}

/// What the operators of a part have done.
#[derive(Default)]
struct Tally {
    holdings: RefCell<Vec<Holding>>,
    changes: Cell<u64>,
    runs: Cell<u64>,
    nanos: Cell<u64>,
}

/// Work that is being timed, until this is dropped.
pub(crate) struct Timed<'a> {
    meter: &'a Meter,
    kind: Kind,
    started: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let (elapsed, tally) = (self.started.elapsed(), &self.meter.tally);
        self.meter.budget().took(self.kind, elapsed);
        tally.runs.set(tally.runs.get() + 1);
        tally.nanos.set(tally.nanos.get() + elapsed.as_nanos() as u64);
    }
}

impl Tally {
    /// Rows and bytes held.
    fn held(&self) -> (u64, u64) {
        let mut sum = (0, 0);
        self.holdings.borrow_mut().retain(|ask| {
            let held = ask();
            let (rows, bytes) = held.unwrap_or_default();
            sum = (sum.0 + rows as u64, sum.1 + bytes as u64);
            held.is_some()
        });
        sum
    }
}

#[derive(Default)]
struct Program {
    budget: Budget,
    dropped: Dropped,
    fault: Option<Fault>,
    tallies: RefCell<BTreeMap<Part, Rc<Tally>>>,
    /// The recursive relation that moved last, and its iteration.
    iteration: Cell<u32>,
    iterating: RefCell<Option<Rc<str>>>,
    failure: RefCell<Option<Failure>>,
}

impl Meter {
    /// Of a program on a worker with this budget and count of dropped rows.
    pub(crate) fn new(budget: Budget, dropped: Dropped, fault: Option<Fault>) -> Meter {
        let program = Program { budget, dropped, fault, ..Program::default() };
        Meter { program: Rc::new(program), ..Meter::default() }.aside(Part::Other)
    }

    /// For the operators of a part, among them the one that gives its rows.
    pub(crate) fn of(&self, part: Part) -> Meter {
        Meter { gives: true, ..self.aside(part) }
    }

    /// For operators of a part that prepare something: what they emit isn't what the part gives.
    pub(crate) fn aside(&self, part: Part) -> Meter {
        let tally = Rc::clone(self.program.tallies.borrow_mut().entry(part).or_default());
        Meter { program: Rc::clone(&self.program), tally, gives: false }
    }

    /// The same part's, for an operator that only prepares.
    pub(crate) fn preparing(&self) -> Meter {
        Meter { gives: false, ..self.clone() }
    }

    /// Times a piece of work that has no pause in it.
    pub(crate) fn timed(&self, kind: Kind) -> Timed<'_> {
        Timed { meter: self, kind, started: Instant::now() }
    }

    /// So many updates go on to whoever reads this.
    pub(crate) fn emitted(&self, updates: usize) {
        if self.gives {
            self.tally.changes.set(self.tally.changes.get() + updates as u64);
        }
    }

    /// This worker's share of every part.
    pub(crate) fn operators(&self) -> Vec<OperatorFigures> {
        let figures = |(&part, tally): (&Part, &Rc<Tally>)| {
            let (rows, bytes) = tally.held();
            OperatorFigures {
                part,
                rows,
                bytes,
                changes: tally.changes.get(),
                runs: tally.runs.get(),
                micros: tally.nanos.get() / 1000,
            }
        };
        self.program.tallies.borrow().iter().map(figures).collect()
    }

    /// How long operators go on within a step.
    pub(crate) fn budget(&self) -> &Budget {
        &self.program.budget
    }

    /// Rows whose derivation failed.
    pub(crate) fn dropped(&self) -> &Dropped {
        &self.program.dropped
    }

    /// What shall go wrong in the program, for tests.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.program.fault
    }

    /// Counts what the arrangement holds, without keeping it from being compacted or dropped.
    pub(crate) fn hold<T: EngineTime>(&self, agent: &Agent<T>) {
        let trace = Rc::downgrade(&agent.trace_box_unstable());
        let ask = move || {
            let trace = trace.upgrade()?;
            let (mut rows, mut bytes) = (0, 0);
            trace.borrow().trace().map_spans(|span| {
                rows += span.inner.as_ref().map_or(0, View::len);
                bytes += span.inner.as_ref().map_or(0, View::heap_bytes);
            });
            Some((rows, bytes))
        };
        self.tally.holdings.borrow_mut().push(Box::new(ask));
    }

    /// Counts what waits to be arranged.
    pub(crate) fn hold_waiting(&self, held: &Held) {
        let held = Rc::downgrade(held);
        let ask = move || held.upgrade().map(|held| held.get());
        self.tally.holdings.borrow_mut().push(Box::new(ask));
    }

    /// All workers have got so far with a recursive relation; 0 is between two times.
    pub(crate) fn iterated(&self, relation: &Rc<str>, iteration: u32) {
        self.program.iteration.set(iteration);
        if !self.program.iterating.borrow().as_ref().is_some_and(|iterating| Rc::ptr_eq(iterating, relation))
        {
            *self.program.iterating.borrow_mut() = Some(Rc::clone(relation));
        }
    }

    /// This worker's figures.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for tally in self.program.tallies.borrow().values() {
            let (rows, bytes) = tally.held();
            figures.rows += rows;
            figures.bytes += bytes;
        }
        figures.iteration = u64::from(self.program.iteration.get());
        figures.relation = self.program.iterating.borrow().as_deref().map(str::to_owned);
        figures.failure.clone_from(&self.program.failure.borrow());
        figures
    }

    /// Whether an operator has failed.
    pub(crate) fn failed(&self) -> bool {
        self.program.failure.borrow().is_some()
    }

    /// Runs a part of an operator's work. Evaluation is total; should it panic all the same, that is the end of the
    /// program, not of the cluster. `None` from the first panic on: the operator must then produce nothing, and keep
    /// the time it was working at from finishing until the program is dropped.
    pub(crate) fn guard<R>(&self, operator: &str, work: impl FnOnce() -> R) -> Option<R> {
        if self.failed() {
            return None;
        }
        // What was being written is thrown away by whoever gets `None`.
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => Some(result),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                self.fail(Failure::Panicked(format!("{operator} panicked: {text}")));
                None
            }
        }
    }

    /// An operator gives up. It must produce nothing from then on, and keep the time it was working at from finishing, until
    /// the program is dropped.
    pub(crate) fn fail(&self, failure: Failure) {
        self.program.failure.borrow_mut().get_or_insert(failure);
    }
}
