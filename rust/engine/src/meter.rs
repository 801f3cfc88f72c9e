//! What the operators of a program share, and report while they work: rows they hold, the iteration a recursion has
//! come to, and that one of them has failed.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use differential_dataflow::trace::TraceReader;

use crate::Figures;
use crate::budget::Budget;
use crate::container::EngineTime;
use crate::expr::eval::Dropped;
use crate::faults::Fault;
use crate::trace::{Agent, View};

/// Rows and bytes that something holds at the moment.
pub(crate) type Held = Rc<Cell<(usize, usize)>>;

/// Asks something what it holds.
type Holding = Box<dyn Fn() -> Option<(usize, usize)>>;

/// Handed to every operator of a program. Clones are the same meter.
#[derive(Clone, Default)]
pub(crate) struct Meter(Rc<Inner>);

#[derive(Default)]
struct Inner {
    budget: Budget,
    dropped: Dropped,
    fault: Option<Fault>,
    /// Ways to ask what is held; `None` once it is gone.
    holdings: RefCell<Vec<Holding>>,
    /// The recursive relation that moved last, and its iteration.
    iteration: Cell<u32>,
    iterating: RefCell<Option<Rc<str>>>,
    failure: RefCell<Option<String>>,
}

impl Meter {
    /// Of a program on a worker with this budget and count of dropped rows.
    pub(crate) fn new(budget: Budget, dropped: Dropped, fault: Option<Fault>) -> Meter {
        Meter(Rc::new(Inner { budget, dropped, fault, ..Inner::default() }))
    }

    /// How long operators go on within a step.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Rows whose derivation failed.
    pub(crate) fn dropped(&self) -> &Dropped {
        &self.0.dropped
    }

    /// What shall go wrong in the program, for tests.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.fault
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
        self.0.holdings.borrow_mut().push(Box::new(ask));
    }

    /// Counts what waits to be arranged.
    pub(crate) fn hold_waiting(&self, held: &Held) {
        let held = Rc::downgrade(held);
        let ask = move || held.upgrade().map(|held| held.get());
        self.0.holdings.borrow_mut().push(Box::new(ask));
    }

    /// All workers have got so far with a recursive relation; 0 is between two times.
    pub(crate) fn iterated(&self, relation: &Rc<str>, iteration: u32) {
        self.0.iteration.set(iteration);
        if !self.0.iterating.borrow().as_ref().is_some_and(|iterating| Rc::ptr_eq(iterating, relation)) {
            *self.0.iterating.borrow_mut() = Some(Rc::clone(relation));
        }
    }

    /// This worker's figures.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        self.0.holdings.borrow_mut().retain(|ask| {
            let held = ask();
            let (rows, bytes) = held.unwrap_or_default();
            figures.rows += rows as u64;
            figures.bytes += bytes as u64;
            held.is_some()
        });
        figures.iteration = u64::from(self.0.iteration.get());
        figures.relation = self.0.iterating.borrow().as_deref().map(str::to_owned);
        figures.failure.clone_from(&self.0.failure.borrow());
        figures
    }

    /// Whether an operator has failed.
    pub(crate) fn failed(&self) -> bool {
        self.0.failure.borrow().is_some()
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
                *self.0.failure.borrow_mut() = Some(format!("{operator} panicked: {text}"));
                None
            }
        }
    }
}
