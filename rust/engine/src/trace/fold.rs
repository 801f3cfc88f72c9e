//! Input semantics: a batcher whose output depends on what is there.
//!
//! Such a batcher reads the arrangement that it writes: [`Prior`] is a handle that the arrangement's builder fills in
//! once the trace exists. Times are totally ordered here, so everything at or before an interval has been folded.

use std::cell::RefCell;
use std::rc::Rc;

use dataflow_protocol::value::Word;
use differential_dataflow::batcher::{Batcher, Extract};
use differential_dataflow::trace::TraceReader;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::{BatchBuilder, RowBatch};
use super::cursors::Cursors;
use super::ladder::Ladder;
use super::view::{Agent, View, views};
use crate::budget::Kind;
use crate::container::{EngineTime, Updates};
use crate::meter::Meter;

/// The arrangement's own trace, readable up to where it was last extended.
#[derive(Clone)]
pub(crate) struct Prior<T: EngineTime>(Rc<RefCell<Option<Agent<T>>>>);

impl<T: EngineTime> Default for Prior<T> {
    fn default() -> Self {
        Prior(Rc::default())
    }
}

impl<T: EngineTime> Prior<T> {
    /// Gives the batcher its trace. It is always read as a whole, so it may merge what it likes: it is not only when there
    /// is something to fold that it grows, but by an empty batch whenever time passes.
    pub(crate) fn set(&self, mut agent: Agent<T>) {
        agent.set_physical_compaction(Antichain::new().borrow());
        *self.0.borrow_mut() = Some(agent);
    }

    /// Everything folded so far.
    pub(super) fn views(&self) -> Vec<View<T>> {
        let mut agent = self.0.borrow_mut();
        let Some(agent) = agent.as_mut() else { return Vec::new() };
        let mut upper = Antichain::new();
        agent.read_upper(&mut upper);
        agent.set_logical_compaction(upper.borrow());
        views(agent)
    }
}

/// What is done to a key, in the lowest bits of an operation's sequence.
pub(crate) mod operation {
    /// How many bits.
    pub(crate) const BITS: u32 = 2;
    /// The row goes, if it is there as it is.
    pub(crate) const DELETE: u64 = 0;
    /// The row is there.
    pub(crate) const INSERT: u64 = 1;
    /// Whatever row has the key goes.
    pub(crate) const ERASE: u64 = 2;
}

/// Input semantics of sets and `upsert` relations: the last write of a key wins.
///
/// An operation is a row of key, sequence and value; the lowest bits of the sequence say which [`operation`] it is, and
/// all of it orders the operations of one time. The key of a set is the whole row.
pub(crate) struct LastWrite {
    shape: Shape,
    ladder: Ladder<u64>,
    retained: Antichain<u64>,
    prior: Prior<u64>,
    meter: Meter,
}

/// How wide rows are, and what they are found by.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Words of a row.
    pub(crate) width: usize,
    /// Words of the key of which the last write wins.
    pub(crate) written: usize,
    /// Words of the key that rows are arranged by: of a set maybe fewer, else as many.
    pub(crate) arranged: usize,
}

impl Shape {
    /// Of an operation's row, what is arranged under its key.
    fn value(self, operation: &[Word]) -> &[Word] {
        if self.arranged == self.written {
            &operation[self.written + 1..]
        } else {
            &operation[self.arranged..self.written]
        }
    }
}

impl LastWrite {
    pub(crate) fn new(shape: Shape, prior: Prior<u64>, meter: &Meter) -> Self {
        let (ladder, retained, meter) = (Ladder::default(), Antichain::new(), meter.clone());
        LastWrite { shape, ladder, retained, prior, meter }
    }
}

impl Batcher<Updates<u64>> for LastWrite {
    fn insert(&mut self, container: &mut Updates<u64>) {
        let _timed = self.meter.timed(Kind::Sort);
        self.ladder.insert(container);
    }
}

impl Extract for LastWrite {
    type Time = u64;
    type Output = RowBatch<u64>;

    fn extract<'a>(
        &'a mut self,
        upper: AntichainRef<'_, u64>,
    ) -> (Option<RowBatch<u64>>, AntichainRef<'a, u64>) {
        let meter = self.meter.clone();
        let _timed = meter.timed(Kind::Seal);
        let ready = self.ladder.extract(upper, &mut self.retained);
        if ready.is_empty() {
            return (None, self.retained.borrow());
        }
        let shape = self.shape;
        let mut folding = Folding {
            shape,
            prior: Cursors::new(self.prior.views()),
            found: None,
            value: Vec::new(),
            group: Vec::new(),
            changes: Updates::new(shape.width - shape.arranged),
            builder: BatchBuilder::new(shape.arranged, shape.width - shape.arranged),
        };
        if shape.written == shape.width {
            // Of a set most operations leave a row; of what is replaced few may.
            let keys = if shape.arranged == shape.width { ready.len() } else { 0 };
            folding.builder.reserve(keys, ready.len(), ready.len());
        }
        ready.for_each(|row, times| {
            if folding.group.first().is_some_and(|(first, _)| first[..shape.written] != row[..shape.written])
            {
                folding.end_group();
            }
            folding.group.extend(times.iter().map(|&(time, _)| (row, time)));
        });
        folding.end_group();
        let batch = folding.builder.done();
        ((batch.len() > 0).then_some(batch), self.retained.borrow())
    }
}

/// Operations in the order of their keys, folded as soon as a key is complete.
struct Folding<'a> {
    shape: Shape,
    prior: Cursors<u64>,
    /// The key that `prior` has found last.
    found: Option<&'a [Word]>,
    value: Vec<Word>,
    /// The operations of the key, in order but for their times.
    group: Vec<(&'a [Word], u64)>,
    changes: Updates<u64>,
    builder: BatchBuilder<u64>,
}

impl Folding<'_> {
    fn end_group(&mut self) {
        let Some(&(first, _)) = self.group.first() else { return };
        let key = &first[..self.shape.arranged];
        if self.found != Some(key) {
            self.prior.find(key);
            self.found = Some(key);
        }
        let prior = if self.shape.arranged == self.shape.written {
            self.prior.single(&mut self.value).then_some(&self.value[..])
        } else {
            let value = self.shape.value(first);
            (self.prior.count(value, |_| true) > 0).then_some(value)
        };
        // Equal times stay in the order of the operations.
        self.group.sort_by_key(|&(_, time)| time);
        let (mut current, mut settled) = (prior, prior);
        for same_time in self.group.chunk_by(|a, b| a.1 == b.1) {
            for (row, _) in same_time {
                let val = self.shape.value(row);
                let kind = row[self.shape.written] & ((1 << operation::BITS) - 1);
                if kind == operation::INSERT {
                    current = Some(val);
                } else if kind == operation::ERASE || current == Some(val) {
                    current = None;
                }
            }
            if current != settled {
                let time = same_time[0].1;
                settled.iter().for_each(|val| self.changes.push(val, time, -1));
                current.iter().for_each(|val| self.changes.push(val, time, 1));
                settled = current;
            }
        }
        self.builder.end_key(key, &mut self.changes);
        self.group.clear();
    }
}
