//! How long operators go on within one step of a worker.
//!
//! A step schedules every active operator once. Those that can pause share the step's time: each gets an equal slice,
//! judged by how many of them didn't get through in the step before. An operator looks at the clock only after a
//! quantum of work, which it may always do: however short the time, everybody gets on.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Pieces of work (candidate pairs, rows, keys passed over) between two looks at the clock.
const QUANTUM: usize = 1 << 10;

/// The time of a step for those who say nothing of it.
const DEFAULT_STEP: Duration = Duration::from_millis(2);

/// The least slice: below, coming and going would cost more than the work.
const LEAST_SLICE: Duration = Duration::from_micros(50);

/// A worker's time, shared by its operators. Clones are the same budget.
#[derive(Clone)]
pub(crate) struct Budget(Rc<Inner>);

struct Inner {
    /// Counts steps: who sees another number begins anew.
    step: Cell<u64>,
    /// What each operator gets in this step.
    slice: Cell<Duration>,
    /// Operators that have used up their slice in this step.
    hungry: Cell<u32>,
    /// How often operators have paused.
    pauses: Cell<u64>,
    /// The longest uninterrupted work of each kind.
    longest: [Cell<Duration>; Kind::ALL.len()],
}

/// Kinds of work that an operator does without a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pairs of rows; pauses.
    Join,
    /// Rows one by one; pauses.
    Rows,
    /// Sorting what arrives to be arranged.
    Sort,
    /// Making a batch of it.
    Seal,
    /// Each row once.
    Distinct,
    /// Groups of rows.
    Aggregate,
}

impl Kind {
    const ALL: [Kind; 6] = [Kind::Join, Kind::Rows, Kind::Sort, Kind::Seal, Kind::Distinct, Kind::Aggregate];

    fn name(self) -> &'static str {
        match self {
            Kind::Join => "join",
            Kind::Rows => "rows",
            Kind::Sort => "sort",
            Kind::Seal => "seal",
            Kind::Distinct => "distinct",
            Kind::Aggregate => "aggregate",
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Budget(Rc::new(Inner {
            step: Cell::new(0),
            slice: Cell::new(DEFAULT_STEP),
            hungry: Cell::new(0),
            pauses: Cell::new(0),
            longest: Default::default(),
        }))
    }
}

impl Budget {
    /// A step begins, in which operators that can pause shall take `time` together. With no time at all, each does
    /// a single piece of work, which is for tests.
    pub(crate) fn begin(&self, time: Duration) {
        let hungry = self.0.hungry.take().max(1);
        self.0.step.set(self.0.step.get() + 1);
        self.0.slice.set(if time.is_zero() { time } else { (time / hungry).max(LEAST_SLICE) });
    }

    /// How often operators have paused since the beginning.
    pub(crate) fn pauses(&self) -> u64 {
        self.0.pauses.get()
    }

    /// An operator pauses though it has time left.
    pub(crate) fn paused(&self) {
        self.0.pauses.set(self.0.pauses.get() + 1);
    }

    /// A piece of work that has no pause in it took so long.
    pub(crate) fn took(&self, kind: Kind, time: Duration) {
        let longest = &self.0.longest[kind as usize];
        longest.set(longest.get().max(time));
    }

    /// The longest piece of work so far, by kind.
    pub(crate) fn longest(&self) -> [(&'static str, Duration); Kind::ALL.len()] {
        Kind::ALL.map(|kind| (kind.name(), self.0.longest[kind as usize].get()))
    }

    /// An operator's share of every step.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), step: u64::MAX, until: None }
    }
}

/// One operator's share of the steps' time.
pub(crate) struct Share {
    budget: Budget,
    /// The step that `until` is of.
    step: u64,
    /// When the slice is used up; `None` once it is.
    until: Option<Instant>,
}

impl Share {
    /// Pieces of work to be done before the next question.
    pub(crate) fn quantum(&self) -> usize {
        if self.budget.0.slice.get().is_zero() { 1 } else { QUANTUM }
    }

    /// Whether the operator is to pause, having done a quantum of work since it asked last or began.
    pub(crate) fn spent(&mut self) -> bool {
        let inner = &self.budget.0;
        if self.step != inner.step.get() {
            self.step = inner.step.get();
            self.until = Some(Instant::now() + inner.slice.get());
            if !inner.slice.get().is_zero() {
                return false;
            }
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.until = None;
            inner.hungry.set(inner.hungry.get() + 1);
            inner.pauses.set(inner.pauses.get() + 1);
        }
        self.until.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_time_every_question_is_answered_with_a_pause() {
        let budget = Budget::default();
        budget.begin(Duration::ZERO);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.spent() && first.spent() && second.spent());
        assert_eq!(budget.pauses(), 2);
    }

    #[test]
    fn the_longest_work_is_remembered_by_kind() {
        let budget = Budget::default();
        budget.took(Kind::Seal, Duration::from_micros(7));
        budget.took(Kind::Seal, Duration::from_micros(3));
        let longest = budget.longest();
        for (name, time) in longest {
            assert_eq!(time.as_micros(), if name == "seal" { 7 } else { 0 }, "{name}");
        }
    }

    #[test]
    fn a_step_is_divided_among_those_that_did_not_get_through_the_last_one() {
        let budget = Budget::default();
        budget.begin(Duration::ZERO);
        let mut shares: Vec<Share> = (0..4).map(|_| budget.share()).collect();
        assert!(shares.iter_mut().all(Share::spent));
        budget.begin(Duration::from_secs(4000));
        assert_eq!(budget.0.slice.get(), Duration::from_secs(1000));
        assert!(!shares.iter_mut().any(Share::spent));
        budget.begin(Duration::from_secs(4000));
        assert_eq!(budget.0.slice.get(), Duration::from_secs(4000));
    }
}
