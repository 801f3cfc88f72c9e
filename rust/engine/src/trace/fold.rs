//! Batchers whose output depends on what is there.
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
use super::batcher::Ladder;
use super::cursors::Cursors;
use super::view::{Agent, View};
use crate::container::{Diff, Updates};

/// The arrangement's own trace, readable up to where it was last extended.
#[derive(Clone, Default)]
pub(crate) struct Prior(Rc<RefCell<Option<Agent<u64>>>>);

impl Prior {
    /// Gives the batcher its trace.
    pub(crate) fn set(&self, agent: Agent<u64>) {
        *self.0.borrow_mut() = Some(agent);
    }

    /// Everything folded so far.
    fn views(&self) -> Vec<View<u64>> {
        let mut agent = self.0.borrow_mut();
        let Some(agent) = agent.as_mut() else { return Vec::new() };
        let mut upper = Antichain::new();
        agent.read_upper(&mut upper);
        agent.set_physical_compaction(upper.borrow());
        agent.set_logical_compaction(upper.borrow());
        agent.batches_through(upper.borrow()).unwrap_or_default()
    }
}

/// What is done with the sorted updates of one key.
pub(crate) trait Fold: 'static {
    /// Words of a key, and of a value of the arrangement.
    fn widths(&self) -> (usize, usize);

    /// Folds the consolidated `updates[range]`, all of one key, over `prior`, the key's value so far: calls `emit`
    /// with values, times and differences.
    fn fold(
        &mut self,
        updates: &Updates<u64>,
        range: std::ops::Range<usize>,
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
}

impl<F: Fold> FoldBatcher<F> {
    pub(crate) fn new(fold: F, prior: Prior) -> Self {
        FoldBatcher { ladder: Ladder::default(), retained: Antichain::new(), prior, fold }
    }
}

impl<F: Fold> Batcher<Updates<u64>> for FoldBatcher<F> {
    fn insert(&mut self, container: &mut Updates<u64>) {
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
        let ready = self.ladder.extract(upper, &mut self.retained);
        if ready.is_empty() {
            return (None, self.retained.borrow());
        }
        let (key_width, val_width) = self.fold.widths();
        let mut prior = Cursors::new(self.prior.views());
        let mut value = Vec::new();
        let mut builder = BatchBuilder::new(key_width, val_width);
        let mut emitted = Updates::<u64>::new(val_width);
        let mut start = 0;
        while start < ready.len() {
            let key = &ready.row(start)[..key_width];
            let mut end = start + 1;
            while end < ready.len() && &ready.row(end)[..key_width] == key {
                end += 1;
            }
            prior.find(key);
            let prior = prior.single(&mut value).then_some(&value[..]);
            emitted.clear();
            let mut emit = |val: &[Word], time, diff| emitted.push(val, time, diff);
            self.fold.fold(&ready, start..end, prior, &mut emit);
            crate::container::sort::consolidate(&mut emitted);
            for index in 0..emitted.len() {
                builder.push_update(emitted.time(index), emitted.diff(index));
                if index + 1 == emitted.len() || emitted.row(index + 1) != emitted.row(index) {
                    builder.end_value(key, emitted.row(index));
                }
            }
            start = end;
        }
        let batch = builder.done();
        ((batch.len() > 0).then_some(batch), self.retained.borrow())
    }
}

/// Input semantics of sets and `upsert` relations: the last write of a key wins.
///
/// An operation is a row of key, time, sequence and value; the lowest bit of the sequence is 1 for an insert. The key
/// of a set is the whole row.
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
        range: std::ops::Range<usize>,
        prior: Option<&[Word]>,
        emit: &mut dyn FnMut(&[Word], u64, Diff),
    ) {
        let mut settled: Option<Vec<Word>> = prior.map(<[Word]>::to_vec);
        let mut current = settled.clone();
        let (mut index, end) = (range.start, range.end);
        while index < end {
            let time = updates.row(index)[self.key_width];
            while index < end && updates.row(index)[self.key_width] == time {
                let operation = &updates.row(index)[self.key_width + 1..];
                let (insert, val) = (operation[0] & 1 == 1, &operation[1..]);
                if insert {
                    current = Some(val.to_vec());
                } else if current.as_deref() == Some(val) {
                    current = None;
                }
                index += 1;
            }
            if current != settled {
                if let Some(val) = &settled {
                    emit(val, time, -1);
                }
                if let Some(val) = &current {
                    emit(val, time, 1);
                }
                settled.clone_from(&current);
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
        range: std::ops::Range<usize>,
        prior: Option<&[Word]>,
        emit: &mut dyn FnMut(&[Word], u64, Diff),
    ) {
        let mut totals = prior.map_or_else(|| vec![0; 1 + self.sums], <[Word]>::to_vec);
        let mut by_time: Vec<usize> = range.collect();
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
