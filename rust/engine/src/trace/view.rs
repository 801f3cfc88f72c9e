//! Batches as an operator sees them, and the traces they come from.
//!
//! A dataflow reads arrangements of its own, and ones that another dataflow maintains: those as of the time it was
//! built (earlier times read as that time, so that it starts from one consistent state), and inside a recursion at
//! iteration 0. [`View`] and [`Reader`] are one type for all of these, so that operators are compiled once for each
//! kind of time.

use std::rc::Rc;

use differential_dataflow::operators::arrange::TraceAgent;
use differential_dataflow::trace::implementations::spine_fueled::Spine;
use differential_dataflow::trace::{Description, Span, TraceReader};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::{RowBatch, Trie};
use super::registry;
use crate::container::{Diff, EngineTime};

/// A spine of row batches.
pub(crate) type RowSpine<T> = Spine<View<T>>;
/// A handle on one.
pub(crate) type Agent<T> = TraceAgent<RowSpine<T>>;

/// A batch, seen from the dataflow that reads it.
#[derive(Clone, Debug)]
pub(crate) enum View<T: EngineTime> {
    /// Of the dataflow and scope themselves.
    Local(Rc<RowBatch<T>>),
    /// Of the cluster's times, as of `since`.
    AsOf {
        /// The batch.
        batch: Rc<RowBatch<u64>>,
        /// Times before this one read as it.
        since: u64,
    },
}

impl<T: EngineTime> From<RowBatch<T>> for View<T> {
    fn from(batch: RowBatch<T>) -> Self {
        let batch = Rc::new(batch);
        registry::built(Rc::clone(&batch) as Rc<dyn registry::Words>);
        View::Local(batch)
    }
}

impl<T: EngineTime> View<T> {
    /// A batch made of two that were views.
    pub(super) fn merged(batch: RowBatch<T>) -> Self {
        let batch = Rc::new(batch);
        registry::merged(&(Rc::clone(&batch) as Rc<dyn registry::Words>));
        View::Local(batch)
    }

    #[inline]
    pub(crate) fn trie(&self) -> &Trie {
        match self {
            View::Local(batch) => batch.trie(),
            View::AsOf { batch, .. } => batch.trie(),
        }
    }

    #[inline]
    pub(crate) fn time(&self, update: usize) -> T {
        match self {
            View::Local(batch) => batch.time(update),
            View::AsOf { batch, since } => T::from_outer(batch.time(update).max(*since)),
        }
    }

    #[inline]
    pub(crate) fn diff(&self, update: usize) -> Diff {
        match self {
            View::Local(batch) => batch.diff(update),
            View::AsOf { batch, .. } => batch.diff(update),
        }
    }

    /// Number of updates.
    pub(crate) fn len(&self) -> usize {
        match self {
            View::Local(batch) => batch.len(),
            View::AsOf { batch, .. } => batch.len(),
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            View::Local(batch) => batch.heap_bytes(),
            View::AsOf { batch, .. } => batch.heap_bytes(),
        }
    }

    /// The batch of a spine, which holds only its own.
    pub(super) fn local(&self) -> &RowBatch<T> {
        match self {
            View::Local(batch) => batch,
            View::AsOf { .. } => unreachable!("a spine is only given batches of its own times"),
        }
    }

    /// Sum of the differences of value `val` at times `t` for which `until(t)`.
    #[inline]
    pub(crate) fn count(&self, val: usize, until: impl Fn(&T) -> bool) -> Diff {
        let updates = self.trie().updates(val);
        updates.filter(|&update| until(&self.time(update))).map(|update| self.diff(update)).sum()
    }
}

impl View<u64> {
    /// The one time that all updates of this view, of a span up to `upper`, are known to have.
    pub(crate) fn only_time(&self, upper: &Antichain<u64>) -> Option<u64> {
        match self {
            View::Local(batch) => batch.only_time(),
            View::AsOf { since, .. } if upper.iter().all(|&upper| upper <= since.saturating_add(1)) => {
                Some(*since)
            }
            View::AsOf { batch, since } => batch.only_time().map(|time| time.max(*since)),
        }
    }

    /// The contents as of `time` that this batch has a share in, as another dataflow reads them that doesn't see what comes
    /// later; `None` without any.
    pub(crate) fn frozen(&self, time: u64) -> Option<View<u64>> {
        let batch = self.local();
        let later = match batch.only_time() {
            Some(only) => only > time,
            None => (0..batch.len()).any(|update| batch.time(update) > time),
        };
        let batch = if later { View::from(batch.through(&time)) } else { self.clone() };
        (batch.len() > 0).then(|| batch.as_of(time))
    }

    /// The same batch as of `since`, for a dataflow of time `T`.
    pub(crate) fn as_of<T: EngineTime>(&self, since: u64) -> View<T> {
        match self {
            View::Local(batch) => View::AsOf { batch: Rc::clone(batch), since },
            View::AsOf { batch, since: earlier } => {
                View::AsOf { batch: Rc::clone(batch), since: since.max(*earlier) }
            }
        }
    }
}

/// The trace behind an arrangement, seen from the dataflow that reads it.
pub(crate) enum Reader<T: EngineTime> {
    /// Of the dataflow and scope themselves.
    Local(Agent<T>),
    /// Of the cluster's times, as of a time.
    AsOf(AsOf<T>),
}

/// A trace of the cluster's times, as of `since`, for a dataflow of time `T`.
pub(crate) struct AsOf<T: EngineTime> {
    agent: Agent<u64>,
    since: u64,
    outer: Antichain<u64>,
    lifted: Antichain<T>,
}

impl<T: EngineTime> Reader<T> {
    pub(crate) fn as_of(agent: Agent<u64>, since: u64) -> Self {
        Reader::AsOf(AsOf { agent, since, outer: Antichain::new(), lifted: Antichain::new() })
    }
}

impl Reader<u64> {
    /// The same trace inside a recursion.
    pub(crate) fn enter<T: EngineTime>(self) -> Reader<T> {
        match self {
            Reader::Local(agent) => Reader::as_of(agent, 0),
            Reader::AsOf(trace) => Reader::as_of(trace.agent, trace.since),
        }
    }
}

impl<T: EngineTime> Clone for Reader<T> {
    fn clone(&self) -> Self {
        match self {
            Reader::Local(agent) => Reader::Local(agent.clone()),
            Reader::AsOf(trace) => Reader::as_of(trace.agent.clone(), trace.since),
        }
    }
}

impl<T: EngineTime> AsOf<T> {
    fn lower(&mut self, frontier: AntichainRef<T>) -> AntichainRef<'_, u64> {
        self.outer.clear();
        self.outer.extend(frontier.iter().map(|time| time.outer()));
        self.outer.borrow()
    }

    fn lift(&mut self, pick: impl FnOnce(&mut Agent<u64>) -> Antichain<u64>) -> AntichainRef<'_, T> {
        let frontier = pick(&mut self.agent);
        self.lifted.clear();
        self.lifted.extend(frontier.iter().map(|&time| T::from_outer(time)));
        self.lifted.borrow()
    }
}

/// What an operator makes of the interval from `lower` to `upper`, as its own arrangement keeps it.
pub(crate) fn span<T: EngineTime>(
    lower: &Antichain<T>,
    upper: &Antichain<T>,
    batch: RowBatch<T>,
) -> Span<T, View<T>> {
    let desc = Description::new(lower.clone(), upper.clone(), Antichain::from_elem(T::minimum()));
    Span::new(desc, (batch.len() > 0).then(|| View::from(batch)))
}

/// A span as the reader of [`View::as_of`] sees it.
pub(crate) fn span_as_of<T: EngineTime>(span: &Span<u64, View<u64>>, since: u64) -> Span<T, View<T>> {
    let lift = |frontier: &Antichain<u64>| frontier.iter().map(|&time| T::from_outer(time)).collect();
    let (lower, upper): (Antichain<T>, Antichain<T>) = (lift(span.lower()), lift(span.upper()));
    let desc = Description::new(lower, upper, lift(span.desc.since()));
    Span::new(desc, span.inner.as_ref().map(|batch| batch.as_of(since)))
}

impl<T: EngineTime> TraceReader for Reader<T> {
    type Time = T;
    type Batch = View<T>;

    fn spans_through(&mut self, upper: AntichainRef<T>) -> Option<Vec<Span<T, View<T>>>> {
        match self {
            Reader::Local(agent) => agent.spans_through(upper),
            Reader::AsOf(trace) => {
                let since = trace.since;
                let upper = trace.lower(upper).to_owned();
                let spans = trace.agent.spans_through(upper.borrow())?;
                Some(spans.iter().map(|span| span_as_of(span, since)).collect())
            }
        }
    }

    fn set_logical_compaction(&mut self, frontier: AntichainRef<T>) {
        match self {
            Reader::Local(agent) => agent.set_logical_compaction(frontier),
            Reader::AsOf(trace) => {
                let frontier = trace.lower(frontier).to_owned();
                trace.agent.set_logical_compaction(frontier.borrow());
            }
        }
    }

    fn get_logical_compaction(&mut self) -> AntichainRef<'_, T> {
        match self {
            Reader::Local(agent) => agent.get_logical_compaction(),
            Reader::AsOf(trace) => trace.lift(|agent| agent.get_logical_compaction().to_owned()),
        }
    }

    fn set_physical_compaction(&mut self, frontier: AntichainRef<T>) {
        match self {
            Reader::Local(agent) => agent.set_physical_compaction(frontier),
            Reader::AsOf(trace) => {
                let frontier = trace.lower(frontier).to_owned();
                trace.agent.set_physical_compaction(frontier.borrow());
            }
        }
    }

    fn get_physical_compaction(&mut self) -> AntichainRef<'_, T> {
        match self {
            Reader::Local(agent) => agent.get_physical_compaction(),
            Reader::AsOf(trace) => trace.lift(|agent| agent.get_physical_compaction().to_owned()),
        }
    }

    fn map_spans<F: FnMut(&Span<T, View<T>>)>(&self, mut logic: F) {
        match self {
            Reader::Local(agent) => agent.map_spans(logic),
            Reader::AsOf(trace) => trace.agent.map_spans(|span| logic(&span_as_of(span, trace.since))),
        }
    }
}

/// All batches of a trace, whatever their times.
pub(crate) fn views<T: EngineTime>(agent: &Agent<T>) -> Vec<View<T>> {
    let mut views = Vec::new();
    agent.map_spans(|span| views.extend(span.inner.clone()));
    views
}
