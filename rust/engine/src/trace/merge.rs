//! How the spine merges two batches, bit by bit.

use std::cmp::Ordering;

use differential_dataflow::trace::implementations::spine_fueled::{Merger, SpineBatch};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::{BatchBuilder, RowBatch, Trie};
use super::view::View;
use crate::container::search::gallop;
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

/// The next row: its key, and its value counted through all keys.
#[derive(Clone, Copy, Default)]
struct Position {
    key: usize,
    val: usize,
}

/// One of the two batches.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

impl<T: EngineTime> RowMerger<T> {
    fn position(&mut self, side: Side) -> &mut Position {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    /// Takes the updates of the next value, compacted, and steps on.
    fn take(&mut self, batch: &RowBatch<T>, side: Side) -> usize {
        let Position { key, val } = *self.position(side);
        let range = batch.trie().updates(val);
        let count = range.len();
        for update in range {
            let mut time = batch.time(update);
            time.advance_by(self.since.borrow());
            self.times.push((time, batch.diff(update)));
        }
        let ended = val + 1 == batch.trie().values(key).end;
        *self.position(side) = Position { key: key + usize::from(ended), val: val + 1 };
        count
    }

    fn give(&mut self, batch: &RowBatch<T>, at: Position) {
        consolidate_times(&mut self.times);
        for (time, diff) in self.times.drain(..) {
            self.builder.push_update(time, diff);
        }
        self.builder.end_value(batch.trie().key(at.key), batch.trie().value(at.val));
    }

    /// Merges the next rows of one batch, before any of the other's, up to the one at `end`; how many updates they have, at
    /// most about as many as there is fuel.
    fn copy(&mut self, batch: &RowBatch<T>, side: Side, end: Position, fuel: isize) -> usize {
        let start = *self.position(side);
        if !batch.is_single() {
            let mut effort = 0;
            while self.position(side).val < end.val && (effort as isize) < fuel {
                let at = *self.position(side);
                effort += self.take(batch, side);
                self.give(batch, at);
            }
            return effort;
        }
        let most = start.val.saturating_add(fuel as usize);
        let end = if end.val <= most { end } else { Position { key: batch.trie().key_of(most), val: most } };
        let (since, mut last) = (self.since.borrow(), None);
        self.builder.copy(batch, start.key, start.val..end.val, |time| match last {
            // Times that follow one another are mostly the same.
            Some((before, advanced)) if before == time => advanced,
            _ => {
                let mut advanced = time;
                advanced.advance_by(since);
                last = Some((time, advanced));
                advanced
            }
        });
        *self.position(side) = end;
        end.val - start.val
    }

    /// Merges some rows; their updates.
    fn advance(&mut self, left: &RowBatch<T>, right: &RowBatch<T>, fuel: isize) -> usize {
        let (lefts, rights) = (left.trie(), right.trie());
        let (at_left, at_right) = (self.left, self.right);
        let (side, end) = if at_left.key == lefts.keys() {
            (Side::Right, end_of(rights))
        } else if at_right.key == rights.keys() {
            (Side::Left, end_of(lefts))
        } else {
            let by_key = lefts.cmp_key(at_left.key, rights.key(at_right.key));
            match by_key.then_with(|| lefts.cmp_value(at_left.val, rights.value(at_right.val))) {
                Ordering::Less => (Side::Left, before(lefts, at_left, rights, at_right, by_key.is_eq())),
                Ordering::Greater => (Side::Right, before(rights, at_right, lefts, at_left, by_key.is_eq())),
                Ordering::Equal => {
                    let effort = self.take(left, Side::Left) + self.take(right, Side::Right);
                    self.give(left, at_left);
                    return effort;
                }
            }
        };
        self.copy(if matches!(side, Side::Left) { left } else { right }, side, end, fuel)
    }
}

/// Past the last row.
fn end_of(trie: &Trie) -> Position {
    Position { key: trie.keys(), val: trie.vals() }
}

/// Past the rows that come before the one at `bound` in `other`, as the one at `from` does: those of its key if that is the
/// `same`, else all whose keys are less.
fn before(trie: &Trie, from: Position, other: &Trie, bound: Position, same: bool) -> Position {
    if same {
        let end = trie.values(from.key).end;
        let val = trie.seek_value(from.val + 1, end, other.value(bound.val));
        Position { key: from.key + usize::from(val == end), val }
    } else {
        let key = other.key(bound.key);
        let end = gallop(from.key + 1, trie.keys(), |at| trie.cmp_key(at, key).is_lt());
        Position { key: end, val: trie.start_of(end) }
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
            *fuel -= self.advance(left, right, *fuel) as isize;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dataflow_protocol::value::Word;

    use super::*;
    use crate::container::sort::consolidate;
    use crate::container::{Inner, Updates};
    use crate::random::random;

    type Sums<T> = BTreeMap<(Vec<Word>, T), Diff>;

    /// A batch of rows, which are added to `sums` as of `since`; `often` says how many updates a row may have.
    fn batch<T: EngineTime>(
        state: &mut u64,
        (width, key_width, often): (usize, usize, u64),
        since: &Antichain<T>,
        time: impl Fn(&mut u64) -> T,
        sums: &mut Sums<T>,
    ) -> View<T> {
        let mut updates = Updates::new(width);
        let (span, mut rows) = (1 + random(state, 6), BTreeMap::<Vec<Word>, u64>::new());
        for _ in 0..random(state, 40) {
            let row: Vec<Word> = (0..width).map(|_| random(state, span)).collect();
            let count = rows.entry(row.clone()).or_default();
            if *count < often {
                *count += 1;
                updates.push(&row, time(state), [-1, 1, 2][random(state, 3) as usize]);
            }
        }
        consolidate(&mut updates);
        for index in 0..updates.len() {
            let mut time = updates.time(index);
            time.advance_by(since.borrow());
            *sums.entry((updates.row(index).to_vec(), time)).or_default() += updates.diff(index);
        }
        View::from(RowBatch::from_runs(&[updates], key_width))
    }

    /// What two batches hold is merged bit by bit and compared with what they add up to.
    fn agrees_with_sums<T: EngineTime>(since: &Antichain<T>, time: impl Fn(&mut u64) -> T) {
        let state = &mut 5;
        for round in 0..600 {
            let width = random(state, 5) as usize;
            let shape = (width, random(state, width as u64 + 1) as usize, 1 + random(state, 2));
            let mut sums = Sums::new();
            let left = batch(state, shape, since, &time, &mut sums);
            let right = batch(state, shape, since, &time, &mut sums);
            if left.len() == 0 || right.len() == 0 {
                continue;
            }
            let mut merger = RowMerger::new(&left, &right, since.borrow());
            loop {
                let given = 1 + random(state, 9) as isize;
                let mut fuel = given;
                merger.work(&left, &right, &mut fuel);
                assert!(fuel >= -4, "round {round}: {fuel} of {given} is left");
                if fuel > 0 {
                    break;
                }
            }
            let mut found = Sums::new();
            if let Some(merged) = merger.done() {
                let trie = merged.trie();
                let rows = (0..trie.keys()).flat_map(|key| trie.values(key).map(move |val| (key, val)));
                for (key, val) in rows {
                    let row = [trie.key(key), trie.value(val)].concat();
                    for update in trie.updates(val) {
                        let (time, diff) = (merged.local().time(update), merged.diff(update));
                        assert_eq!(found.insert((row.clone(), time), diff), None, "round {round}");
                    }
                }
                // In order, each key once.
                let keys: Vec<_> = (0..trie.keys()).map(|key| trie.key(key).to_vec()).collect();
                assert!(keys.is_sorted_by(|a, b| a < b), "round {round}: {keys:?}");
            }
            sums.retain(|_, diff| *diff != 0);
            assert_eq!(found, sums, "round {round}: {shape:?}");
        }
    }

    #[test]
    fn merged_batches_are_what_they_add_up_to() {
        agrees_with_sums(&Antichain::from_elem(3), |state| random(state, 6));
        agrees_with_sums(&Antichain::from_elem(0), |state| random(state, 6));
        agrees_with_sums(&Antichain::new(), |state| random(state, 2));
        let inner = |state: &mut u64| Inner::new(random(state, 3), random(state, 3) as u32);
        agrees_with_sums(&Antichain::from_iter([Inner::new(1, 1)]), inner);
        agrees_with_sums(&Antichain::from_iter([Inner::new(0, 2), Inner::new(2, 0)]), inner);
    }
}
