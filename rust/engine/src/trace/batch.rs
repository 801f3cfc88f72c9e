//! Immutable sorted runs of updates, keyed by the leading words of a row.

use std::cmp::Ordering;
use std::ops::Range;

use dataflow_protocol::value::Word;

use super::registry::Words;
use super::sample::Sample;
use crate::container::runs::merge_runs;
use crate::container::search::{bisect, gallop};
use crate::container::sort::consolidate;
use crate::container::{Diff, EngineTime, RunVec, TimeColumn, Updates, append};

/// End offsets of consecutive groups, which take no space while every group has one member.
#[derive(Clone, Debug, Default)]
struct Ends {
    len: usize,
    ends: Vec<u32>,
    /// How many groups will come, if that is known.
    expected: usize,
}

impl Ends {
    #[inline]
    fn push(&mut self, end: usize) {
        if self.ends.is_empty() && end != self.len + 1 {
            self.spill();
        } else if self.ends.is_empty() {
            self.len += 1;
            return;
        }
        self.ends.push(end as u32);
        self.len += 1;
    }

    #[cold]
    fn spill(&mut self) {
        self.ends.reserve(self.expected.max(self.len + 16));
        self.ends.extend(1..=self.len as u32);
    }

    /// Adds so many groups of one member each.
    fn push_single(&mut self, groups: usize) {
        if let Some(&last) = self.ends.last() {
            self.ends.extend(last + 1..=last + groups as u32);
        }
        self.len += groups;
    }

    /// The group that `member` is of.
    fn group(&self, member: usize) -> usize {
        if self.ends.is_empty() { member } else { self.ends.partition_point(|&end| end as usize <= member) }
    }

    #[inline]
    fn start(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            Some(before) if !self.ends.is_empty() => self.ends[before] as usize,
            _ => index,
        }
    }

    #[inline]
    fn range(&self, index: usize) -> Range<usize> {
        let end = if self.ends.is_empty() { index + 1 } else { self.ends[index] as usize };
        self.start(index)..end
    }
}

/// So many keys are searched before the sample is asked where to go on.
const NEAR: usize = 4;

/// The rows of a batch: distinct keys in order, under each its distinct values in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trie {
    key_width: usize,
    val_width: usize,
    keys: Vec<Word>,
    vals: Vec<Word>,
    /// For each key the end of its values.
    key_ends: Ends,
    /// For each value the end of its updates.
    val_ends: Ends,
    sample: Sample,
}

impl Trie {
    /// Number of values under all keys.
    pub(crate) fn vals(&self) -> usize {
        self.val_ends.len
    }

    /// Number of distinct keys.
    #[inline]
    pub(crate) fn keys(&self) -> usize {
        self.key_ends.len
    }

    #[inline]
    pub(crate) fn key(&self, index: usize) -> &[Word] {
        &self.keys[index * self.key_width..(index + 1) * self.key_width]
    }

    /// Indices of the values of key `index`.
    #[inline]
    pub(crate) fn values(&self, index: usize) -> Range<usize> {
        self.key_ends.range(index)
    }

    /// The index of the first value of key `index`; past the last key, that past the last value.
    #[inline]
    pub(crate) fn start_of(&self, index: usize) -> usize {
        self.key_ends.start(index)
    }

    /// The index of the key of value `index`.
    pub(crate) fn key_of(&self, index: usize) -> usize {
        self.key_ends.group(index)
    }

    #[inline]
    pub(crate) fn value(&self, index: usize) -> &[Word] {
        &self.vals[index * self.val_width..(index + 1) * self.val_width]
    }

    /// Indices of the updates of value `index`.
    #[inline]
    pub(crate) fn updates(&self, index: usize) -> Range<usize> {
        self.val_ends.range(index)
    }

    pub(crate) fn key_width(&self) -> usize {
        self.key_width
    }

    pub(crate) fn val_width(&self) -> usize {
        self.val_width
    }

    /// The first key at or after `from` that is not less than `key`; near keys are cheap.
    #[inline]
    pub(crate) fn seek(&self, from: usize, key: &[Word]) -> usize {
        // Narrow keys, the usual ones, are compared as numbers and arrays, not as slices of any length.
        match (self.key_width, key) {
            (1, &[key]) => self.find(from, self.keys.len(), key, |at| self.keys[at] < key),
            (2, &[first, second]) => {
                let (keys, _) = self.keys.as_chunks::<2>();
                self.find(from, keys.len(), first, |at| keys[at] < [first, second])
            }
            (_, &[first, ..]) => self.find(from, self.keys(), first, |at| self.key(at) < key),
            (_, []) => from,
        }
    }

    /// The first position from `from` up to `end` that is not `less` than a key that begins with `first`.
    #[inline]
    fn find(&self, from: usize, end: usize, first: Word, less: impl Fn(usize) -> bool) -> usize {
        let near = end.min(from + NEAR);
        let found = gallop(from, near, &less);
        if found < near || near == end {
            return found;
        }
        bisect(self.sample.narrow(near - 1, end, first), less)
    }

    /// The first value from `from` up to `end`, all of one key, that is not less than `value`.
    #[inline]
    pub(crate) fn seek_value(&self, from: usize, end: usize, value: &[Word]) -> usize {
        match (self.val_width, value) {
            (1, &[value]) => gallop(from, end, |at| self.vals[at] < value),
            _ => gallop(from, end, |at| self.value(at) < value),
        }
    }

    /// How key `index` compares with `key`.
    #[inline]
    pub(super) fn cmp_key(&self, index: usize, key: &[Word]) -> Ordering {
        match (self.key_width, key) {
            (1, &[key]) => self.keys[index].cmp(&key),
            _ => self.key(index).cmp(key),
        }
    }

    /// How value `index` compares with `value`.
    #[inline]
    pub(crate) fn cmp_value(&self, index: usize, value: &[Word]) -> Ordering {
        match (self.val_width, value) {
            (1, &[value]) => self.vals[index].cmp(&value),
            _ => self.value(index).cmp(value),
        }
    }

    /// Gives the values up to `end` to a key: the last one, or another.
    #[inline]
    fn end_key(&mut self, key: &[Word], end: usize) {
        let keys = self.key_ends.len;
        if keys > 0 && self.is_key(keys - 1, key) {
            self.key_ends.extend_last(end);
        } else {
            append(&mut self.keys, key);
            self.key_ends.push(end);
        }
    }

    /// Whether the key at `index` is `key`.
    #[inline]
    pub(crate) fn is_key(&self, index: usize, key: &[Word]) -> bool {
        self.key(index).iter().eq(key)
    }
}

/// A batch: rows, and for each its updates.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowBatch<T: EngineTime> {
    trie: Trie,
    times: T::Column,
    diffs: RunVec<Diff>,
}

impl<T: EngineTime> RowBatch<T> {
    /// From sorted runs of rows, keyed by their first `key_width` words.
    pub(crate) fn from_runs(runs: &[Updates<T>], key_width: usize) -> Self {
        let width = runs.first().map_or(key_width, Updates::width);
        let updates = runs.iter().map(Updates::len).sum();
        let mut builder = BatchBuilder::new(key_width, width - key_width);
        builder.reserve(if key_width == width { updates } else { 0 }, updates, updates);
        merge_runs(runs, |row, times| {
            times.iter().for_each(|&(time, diff)| builder.push_update(time, diff));
            let (key, val) = row.split_at(key_width);
            builder.end_value(key, val);
        });
        builder.done()
    }

    /// The updates at times at or before `time`.
    pub(crate) fn through(&self, time: &T) -> Self {
        let trie = &self.trie;
        let mut builder = BatchBuilder::new(trie.key_width, trie.val_width);
        for key in 0..trie.keys() {
            for val in trie.values(key) {
                for update in trie.updates(val).filter(|&update| self.time(update).less_equal(time)) {
                    builder.push_update(self.time(update), self.diff(update));
                }
                builder.end_value(trie.key(key), trie.value(val));
            }
        }
        builder.done()
    }

    pub(crate) fn trie(&self) -> &Trie {
        &self.trie
    }

    /// The one time of all updates, if the batch knows that there is only one.
    pub(crate) fn only_time(&self) -> Option<T> {
        self.times.uniform()
    }

    /// Whether each value has one update.
    pub(super) fn is_single(&self) -> bool {
        self.trie.val_ends.ends.is_empty()
    }

    #[inline]
    pub(crate) fn time(&self, update: usize) -> T {
        self.times.get(update)
    }

    #[inline]
    pub(crate) fn diff(&self, update: usize) -> Diff {
        self.diffs.get(update)
    }

    /// Number of updates.
    pub(crate) fn len(&self) -> usize {
        self.diffs.len()
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let trie = &self.trie;
        8 * (trie.keys.capacity() + trie.vals.capacity())
            + 4 * (trie.key_ends.ends.capacity() + trie.val_ends.ends.capacity())
            + trie.sample.heap_bytes()
            + self.times.heap_bytes()
            + self.diffs.heap_bytes()
    }
}

impl<T: EngineTime> Words for RowBatch<T> {
    fn words(&self) -> [&[Word]; 2] {
        [&self.trie.keys, &self.trie.vals]
    }
}

/// Builds a batch of rows that come in order.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder<T: EngineTime> {
    batch: RowBatch<T>,
    /// Updates pushed when the last value ended.
    ended: usize,
}

impl<T: EngineTime> BatchBuilder<T> {
    pub(crate) fn new(key_width: usize, val_width: usize) -> Self {
        let trie = Trie { key_width, val_width, ..Trie::default() };
        BatchBuilder { batch: RowBatch { trie, ..RowBatch::default() }, ended: 0 }
    }

    /// Makes room for so many keys, values and updates.
    pub(crate) fn reserve(&mut self, keys: usize, vals: usize, updates: usize) {
        let trie = &mut self.batch.trie;
        trie.keys.reserve(keys * trie.key_width);
        trie.vals.reserve(vals * trie.val_width);
        (trie.key_ends.expected, trie.val_ends.expected) = (keys, vals);
        TimeColumn::<T>::expect(&mut self.batch.times, updates);
        self.batch.diffs.expect(updates);
    }

    /// Adds an update of the row that the next [`Self::end_value`] names.
    #[inline]
    pub(crate) fn push_update(&mut self, time: T, diff: Diff) {
        self.batch.times.push(time);
        self.batch.diffs.push(diff);
    }

    /// Gives the updates since the last call to a row; without any, the row isn't kept.
    #[inline]
    pub(crate) fn end_value(&mut self, key: &[Word], val: &[Word]) {
        let updates = self.batch.diffs.len();
        if updates == self.ended {
            return;
        }
        self.ended = updates;
        let trie = &mut self.batch.trie;
        let vals = trie.val_ends.len;
        append(&mut trie.vals, val);
        trie.val_ends.push(updates);
        trie.end_key(key, vals + 1);
    }

    /// Adds the next rows as they stand in a batch whose values have one update each: `vals`, of which the first is of
    /// key `key`, at times as `retime` tells.
    pub(super) fn copy(
        &mut self,
        from: &RowBatch<T>,
        key: usize,
        vals: Range<usize>,
        mut retime: impl FnMut(T) -> T,
    ) {
        debug_assert!(from.is_single());
        let RowBatch { trie, times, diffs } = &mut self.batch;
        let (before, width) = (trie.val_ends.len, trie.val_width);
        append(&mut trie.vals, &from.trie.vals[vals.start * width..vals.end * width]);
        vals.clone().for_each(|update| times.push(retime(from.time(update))));
        diffs.extend_from(&from.diffs, vals.clone());
        trie.val_ends.push_single(vals.len());
        self.ended = diffs.len();
        let (mut key, mut next) = (key, vals.start);
        while next < vals.end {
            let end = from.trie.values(key).end.min(vals.end);
            trie.end_key(from.trie.key(key), before + end - vals.start);
            (key, next) = (key + 1, end);
            if from.trie.key_ends.ends.is_empty() {
                // The other keys have one value each and are others.
                let (rest, width) = (vals.end - next, trie.key_width);
                append(&mut trie.keys, &from.trie.keys[key * width..(key + rest) * width]);
                trie.key_ends.push_single(rest);
                break;
            }
        }
    }

    /// Adds a key with all that changes of its values, in any order; takes the changes.
    pub(crate) fn end_key(&mut self, key: &[Word], changes: &mut Updates<T>) {
        consolidate(changes);
        for index in 0..changes.len() {
            self.push_update(changes.time(index), changes.diff(index));
            if index + 1 == changes.len() || changes.row(index + 1) != changes.row(index) {
                self.end_value(key, changes.row(index));
            }
        }
        changes.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.batch.diffs.len()
    }

    /// The batch, without spare capacity: batches live long.
    pub(crate) fn done(mut self) -> RowBatch<T> {
        let trie = &mut self.batch.trie;
        trie.keys.shrink_to_fit();
        trie.sample = Sample::of(&trie.keys, trie.key_width);
        trie.vals.shrink_to_fit();
        trie.key_ends.ends.shrink_to_fit();
        trie.val_ends.ends.shrink_to_fit();
        self.batch.times.shrink();
        self.batch.diffs.shrink();
        self.batch
    }
}

impl Ends {
    /// Moves the end of the last group.
    fn extend_last(&mut self, end: usize) {
        if self.ends.is_empty() {
            self.spill();
        }
        if let Some(last) = self.ends.last_mut() {
            *last = end as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: &[([u64; 2], u64, i64)], key_width: usize) -> RowBatch<u64> {
        let mut updates = Updates::new(2);
        rows.iter().for_each(|(row, time, diff)| updates.push(row, *time, *diff));
        consolidate(&mut updates);
        RowBatch::from_runs(&[updates], key_width)
    }

    #[test]
    fn rows_are_grouped_by_key_and_value() {
        let batch = batch(
            &[
                ([2, 9], 1, 1),
                ([1, 5], 1, 1),
                ([2, 3], 1, 1),
                ([2, 9], 4, -1),
                ([7, 0], 2, 1),
                ([7, 0], 2, -1),
            ],
            1,
        );
        let trie = batch.trie();
        assert_eq!((trie.keys(), batch.len()), (2, 4));
        assert_eq!(
            (trie.key(0), trie.values(0), trie.key(1), trie.values(1)),
            (&[1][..], 0..1, &[2][..], 1..3)
        );
        assert_eq!((trie.value(2), trie.updates(2)), (&[9][..], 2..4));
        assert_eq!([0, 1, 2].map(|value| trie.key_of(value)), [0, 1, 1]);
        assert_eq!((batch.time(3), batch.diff(3)), (4, -1));
    }

    #[test]
    fn seek_agrees_with_a_linear_search() {
        // Of a short batch, and of long ones, in which few or many keys begin with the same word.
        for (count, alike) in [(200, 1), (3_000, 1), (3_000, 7), (3_000, 1_000), (3_000, 5_000)] {
            let rows: Vec<_> = (0..count).map(|i| ([i / alike * 3, i * 3], 0, 1)).collect();
            for key_width in [1, 2] {
                let batch = batch(&rows, key_width);
                let trie = batch.trie();
                for from in (0..trie.keys()).step_by(if count > 200 { 61 } else { 1 }) {
                    for i in (0..count + 40).step_by(if count > 200 { 37 } else { 1 }) {
                        for off in 0..4 {
                            let key = &[i / alike * 3 + off / 2, i * 3 + off % 2][..key_width];
                            let expected = (from..trie.keys()).find(|&i| trie.key(i) >= key);
                            assert_eq!(
                                trie.seek(from, key),
                                expected.unwrap_or(trie.keys()),
                                "{key:?} from {from}"
                            );
                        }
                    }
                }
            }
        }
    }
}
