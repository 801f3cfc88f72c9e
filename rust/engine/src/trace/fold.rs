//! Batchers whose output depends on what is there.
//!
//! Such a batcher reads the arrangement that it writes: [`Prior`] is a handle that the arrangement's builder fills in
//! once the trace exists. Times are totally ordered here, so everything at or before an interval has been folded.

use std::cell::RefCell;
use std::rc::Rc;

use dataflow_protocol::value::Word;
use differential_dataflow::batcher::{Batcher, Extract};
use differential_dataflow::trace::TraceReader;
use smallvec::SmallVec;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::{BatchBuilder, RowBatch};
use super::batcher::Ladder;
use super::cursors::Cursors;
use super::view::{Agent, View, views};
use crate::budget::Kind;
use crate::container::sort::consolidate;
use crate::container::{Diff, Updates};
use crate::meter::{Held, Meter};

/// The arrangement's own trace, readable up to where it was last extended.
#[derive(Clone, Default)]
pub(crate) struct Prior(Rc<RefCell<Option<Agent<u64>>>>);

impl Prior {
    /// Gives the batcher its trace. It is always read as a whole, so it may merge what it likes: it is not only when there
    /// is something to fold that it grows, but by an empty batch whenever time passes.
    pub(crate) fn set(&self, mut agent: Agent<u64>) {
        agent.set_physical_compaction(Antichain::new().borrow());
        *self.0.borrow_mut() = Some(agent);
    }

    /// Everything folded so far.
    fn views(&self) -> Vec<View<u64>> {
        let mut agent = self.0.borrow_mut();
        let Some(agent) = agent.as_mut() else { return Vec::new() };
        let mut upper = Antichain::new();
        agent.read_upper(&mut upper);
        agent.set_logical_compaction(upper.borrow());
        views(agent)
    }
}

/// What is done with the sorted updates of one key.
pub(crate) trait Fold: 'static {
    /// Words of a key, and of a value of the arrangement.
    fn widths(&self) -> (usize, usize);

    /// Folds consolidated updates, all of one key, over `prior`, the key's value so far: calls `emit` with values,
    /// times and differences.
    fn fold(
        &mut self,
        updates: &Updates<u64>,
        prior: Option<&[Word]>,
        emit: &mut dyn FnMut(&[Word], u64, Diff),
    );
}

/// A batcher that folds what it is given over the key's value so far. The arrangement has one value a key at most.
pub(crate) struct FoldBatcher<F: Fold> {
    ladder: Ladder<u64>,
    retained: Antichain<u64>,
    prior: Prior,
    fold: F,
    meter: Meter,
}

impl<F: Fold> FoldBatcher<F> {
    pub(crate) fn new(fold: F, prior: Prior, meter: &Meter) -> Self {
        let (ladder, meter) = (Ladder::default(), meter.clone());
        FoldBatcher { ladder, retained: Antichain::new(), prior, fold, meter }
    }

    /// Rows and bytes that wait.
    pub(crate) fn held(&self) -> &Held {
        self.ladder.held()
    }
}

impl<F: Fold> Batcher<Updates<u64>> for FoldBatcher<F> {
    fn insert(&mut self, container: &mut Updates<u64>) {
        let _timed = self.meter.timed(Kind::Sort);
        self.ladder.insert(container);
    }
}

impl<F: Fold> Extract for FoldBatcher<F> {
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
        let (key_width, val_width) = self.fold.widths();
        let mut folding = Folding {
            fold: &mut self.fold,
            prior: Cursors::new(self.prior.views()),
            value: Vec::new(),
            key: Vec::new(),
            group: Updates::default(),
            emitted: Updates::new(val_width),
            builder: BatchBuilder::new(key_width, val_width),
        };
        if val_width == 0 {
            // Of a set most operations leave a row; of what is added up, or replaced, few may.
            folding.builder.reserve(ready.len(), ready.len(), ready.len());
        }
        ready.for_each(|row, times| folding.add(row, times, key_width));
        folding.end_group();
        let builder = folding.builder;
        let batch = builder.done();
        ((batch.len() > 0).then_some(batch), self.retained.borrow())
    }
}

/// Operations in the order of their keys, folded as soon as a key is complete.
struct Folding<'a, F: Fold> {
    fold: &'a mut F,
    prior: Cursors<u64>,
    value: Vec<Word>,
    key: Vec<Word>,
    /// The operations of the key.
    group: Updates<u64>,
    emitted: Updates<u64>,
    builder: BatchBuilder<u64>,
}

impl<F: Fold> Folding<'_, F> {
    fn add(&mut self, row: &[Word], times: &[(u64, Diff)], key_width: usize) {
        if self.group.is_empty() || !row[..key_width].iter().eq(&self.key) {
            self.end_group();
            self.key.clear();
            self.key.extend_from_slice(&row[..key_width]);
            if self.group.width() != row.len() {
                self.group = Updates::new(row.len());
            }
        }
        times.iter().for_each(|&(time, diff)| self.group.push(row, time, diff));
    }

    fn end_group(&mut self) {
        if self.group.is_empty() {
            return;
        }
        self.prior.find(&self.key);
        let prior = self.prior.single(&mut self.value).then_some(&self.value[..]);
        let emitted = &mut self.emitted;
        emitted.clear();
        self.fold.fold(&self.group, prior, &mut |val, time, diff| emitted.push(val, time, diff));
        consolidate(emitted);
        for index in 0..emitted.len() {
            self.builder.push_update(emitted.time(index), emitted.diff(index));
            if index + 1 == emitted.len() || emitted.row(index + 1) != emitted.row(index) {
                self.builder.end_value(&self.key, emitted.row(index));
            }
        }
        self.group.clear();
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
    /// Words of the key.
    pub(crate) key_width: usize,
    /// Words of the rest of a row.
    pub(crate) val_width: usize,
}

impl Fold for LastWrite {
    fn widths(&self) -> (usize, usize) {
        (self.key_width, self.val_width)
    }

    fn fold(
        &mut self,
        updates: &Updates<u64>,
        prior: Option<&[Word]>,
        emit: &mut dyn FnMut(&[Word], u64, Diff),
    ) {
        let sequence = |index: usize| updates.row(index)[self.key_width];
        let mut ordered: SmallVec<[usize; 4]> = (0..updates.len()).collect();
        ordered.sort_unstable_by_key(|&index| (updates.time(index), sequence(index)));
        let mut current = prior;
        let mut settled = prior;
        for same_time in ordered.chunk_by(|&a, &b| updates.time(a) == updates.time(b)) {
            for &index in same_time {
                let val = &updates.row(index)[self.key_width + 1..];
                let kind = sequence(index) & ((1 << operation::BITS) - 1);
                if kind == operation::INSERT {
                    current = Some(val);
                } else if kind == operation::ERASE || current == Some(val) {
                    current = None;
                }
            }
            if current != settled {
                let time = updates.time(same_time[0]);
                settled.iter().for_each(|val| emit(val, time, -1));
                current.iter().for_each(|val| emit(val, time, 1));
                settled = current;
            }
        }
    }
}

/// Running totals: a row is a key and the columns to add up, the value a count and their sums, wrapping at 64 bits.
/// The count may be negative: a `raw` relation can have less than nothing of a row.
pub(crate) struct Totals {
    /// Words of the key.
    pub(crate) key_width: usize,
    /// Columns added up.
    pub(crate) sums: usize,
}

impl Fold for Totals {
    fn widths(&self) -> (usize, usize) {
        (self.key_width, 1 + self.sums)
    }

    fn fold(
        &mut self,
        updates: &Updates<u64>,
        prior: Option<&[Word]>,
        emit: &mut dyn FnMut(&[Word], u64, Diff),
    ) {
        let mut totals = prior.map_or_else(|| vec![0; 1 + self.sums], <[Word]>::to_vec);
        let mut by_time: SmallVec<[usize; 4]> = (0..updates.len()).collect();
        by_time.sort_by_key(|&index| updates.time(index));
        for same_time in by_time.chunk_by(|&a, &b| updates.time(a) == updates.time(b)) {
            let before = totals.clone();
            for &index in same_time {
                let diff = updates.diff(index) as u64;
                totals[0] = totals[0].wrapping_add(diff);
                for (total, &word) in totals[1..].iter_mut().zip(&updates.row(index)[self.key_width..]) {
                    *total = total.wrapping_add(word.wrapping_mul(diff));
                }
            }
            if totals != before {
                let time = updates.time(same_time[0]);
                // Totals below nothing (a `raw` relation can have them) are kept too; readers skip them.
                let nothing = |totals: &[Word]| totals.iter().all(|&word| word == 0);
                if !nothing(&before) {
                    emit(&before, time, -1);
                }
                if !nothing(&totals) {
                    emit(&totals, time, 1);
                }
            }
        }
    }
}
