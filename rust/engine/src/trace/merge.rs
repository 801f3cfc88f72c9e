//! How the spine merges two batches, bit by bit.

use std::cmp::Ordering;

use differential_dataflow::trace::implementations::spine_fueled::{Merger, SpineBatch};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::{BatchBuilder, RowBatch};
use super::view::View;
use crate::container::sort::consolidate_times;
use crate::container::{Diff, EngineTime};

/// A merge under way: positions in both batches, and what has been merged.
pub(crate) struct RowMerger<T: EngineTime> {
    left: Position,
    right: Position,
    since: Antichain<T>,
    builder: BatchBuilder<T>,
    times: Vec<(T, Diff)>,
}

#[derive(Clone, Copy, Default)]
struct Position {
    key: usize,
    val: usize,
}

impl Position {
    fn step<T: EngineTime>(&mut self, batch: &RowBatch<T>) {
        self.val += 1;
        if self.val >= batch.trie().values(self.key).end {
            self.key += 1;
        }
    }
}

impl<T: EngineTime> RowMerger<T> {
    /// Takes the updates of the value at `position`, compacted, and steps on.
    fn take(&mut self, batch: &RowBatch<T>, from: fn(&mut Self) -> &mut Position) -> usize {
        let position = *from(self);
        let range = batch.trie().updates(position.val);
        let count = range.len();
        for update in range {
            let mut time = batch.time(update);
            time.advance_by(self.since.borrow());
            self.times.push((time, batch.diff(update)));
        }
        from(self).step(batch);
        count
    }

    fn give(&mut self, batch: &RowBatch<T>, at: Position) {
        consolidate_times(&mut self.times);
        for (time, diff) in self.times.drain(..) {
            self.builder.push_update(time, diff);
        }
        self.builder.end_value(batch.trie().key(at.key), batch.trie().value(at.val));
    }
}

impl<T: EngineTime> Merger<View<T>> for RowMerger<T> {
    fn new(left: &View<T>, right: &View<T>, since: AntichainRef<T>) -> Self {
        let updates = left.len() + right.len();
        let (left, right) = (left.local().trie(), right.local().trie());
        let mut builder = BatchBuilder::new(left.key_width(), left.val_width());
        // Keys in common make this too much; the batch gives back what it hasn't used.
        builder.reserve(left.keys() + right.keys(), left.vals() + right.vals(), updates);
        RowMerger {
            left: Position::default(),
            right: Position::default(),
            since: since.to_owned(),
            builder,
            times: Vec::new(),
        }
    }

    fn work(&mut self, left: &View<T>, right: &View<T>, fuel: &mut isize) {
        let (left, right) = (left.local(), right.local());
        let (lefts, rights) = (left.trie().keys(), right.trie().keys());
        while *fuel > 0 && (self.left.key < lefts || self.right.key < rights) {
            let order = if self.left.key == lefts {
                Ordering::Greater
            } else if self.right.key == rights {
                Ordering::Less
            } else {
                let by_key = left.trie().key(self.left.key).cmp(right.trie().key(self.right.key));
                by_key.then_with(|| left.trie().value(self.left.val).cmp(right.trie().value(self.right.val)))
            };
            let (at_left, at_right) = (self.left, self.right);
            let mut effort = 0;
            if order.is_le() {
                effort += self.take(left, |merger| &mut merger.left);
            }
            if order.is_ge() {
                effort += self.take(right, |merger| &mut merger.right);
            }
            if order.is_le() {
                self.give(left, at_left)
            } else {
                self.give(right, at_right)
            }
            *fuel -= effort as isize;
        }
    }

    fn done(self) -> Option<View<T>> {
        (self.builder.len() > 0).then(|| View::merged(self.builder.done()))
    }
}

impl<T: EngineTime> SpineBatch for View<T> {
    type Time = T;
    type Merger = RowMerger<T>;

    fn len(&self) -> usize {
        View::len(self)
    }
}
