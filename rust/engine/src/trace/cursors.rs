//! Several batches walked together, key by key in order.

use std::ops::Range;

use dataflow_protocol::value::Word;

use super::batch::Trie;
use super::view::View;
use crate::container::{Diff, EngineTime, append};

/// Batches with the position that each has reached.
pub(crate) struct Cursors<T: EngineTime> {
    views: Vec<(View<T>, Position)>,
    /// Where what was asked for last stands: batch, and indices of its values there.
    found: Vec<(usize, Range<usize>)>,
}

/// The next key of a batch, and the next value, which is one of that key.
#[derive(Clone, Copy, Default)]
struct Position {
    key: usize,
    val: usize,
}

impl Position {
    /// Goes to the first key from here on that isn't less than `key`; whether it is that key.
    #[inline]
    fn seek(&mut self, trie: &Trie, key: &[Word]) -> bool {
        let at = trie.seek(self.key, key);
        if at > self.key {
            *self = Position { key: at, val: trie.start_of(at) };
        }
        at < trie.keys() && trie.is_key(at, key)
    }

    /// Goes to a value of the key, or past them all, which is the next key's first.
    #[inline]
    fn go_to(&mut self, val: usize, end: usize) {
        self.val = val;
        self.key += usize::from(val == end);
    }
}

impl<T: EngineTime> Cursors<T> {
    pub(crate) fn new(views: Vec<View<T>>) -> Self {
        Cursors {
            views: views.into_iter().map(|view| (view, Position::default())).collect(),
            found: Vec::new(),
        }
    }

    /// The least key not yet passed.
    pub(crate) fn least(&self) -> Option<&[Word]> {
        self.left().map(|(trie, at)| trie.key(at.key)).min()
    }

    /// Key and value of the least row not yet passed.
    pub(crate) fn least_row(&self) -> Option<(&[Word], &[Word])> {
        self.left().map(|(trie, at)| (trie.key(at.key), trie.value(at.val))).min()
    }

    /// Batches of which something is left.
    fn left(&self) -> impl Iterator<Item = (&Trie, Position)> {
        self.views.iter().map(|(view, at)| (view.trie(), *at)).filter(|(trie, at)| at.key < trie.keys())
    }

    /// Finds `key`, for the methods below, and steps past it; whether it is in any batch. Keys must be asked for in ascending
    /// order.
    pub(crate) fn find(&mut self, key: &[Word]) -> bool {
        self.found.clear();
        for (index, (view, at)) in self.views.iter_mut().enumerate() {
            let trie = view.trie();
            if at.seek(trie, key) {
                let vals = trie.values(at.key);
                at.go_to(vals.end, vals.end);
                self.found.push((index, vals));
            }
        }
        !self.found.is_empty()
    }

    /// Finds one value of `key` as [`Self::find`] finds all. Rows must be asked for in ascending order.
    pub(crate) fn find_row(&mut self, key: &[Word], value: &[Word]) -> bool {
        self.found.clear();
        for (index, (view, at)) in self.views.iter_mut().enumerate() {
            let trie = view.trie();
            if !at.seek(trie, key) {
                continue;
            }
            let end = trie.values(at.key).end;
            let val = trie.seek_value(at.val, end, value);
            if val < end && trie.cmp_value(val, value).is_eq() {
                at.go_to(val + 1, end);
                self.found.push((index, val..val + 1));
            } else {
                at.go_to(val, end);
            }
        }
        !self.found.is_empty()
    }

    /// Appends all updates of what was found.
    pub(crate) fn updates(&self, updates: &mut Vec<(T, Diff)>) {
        for (index, vals) in &self.found {
            let view = &self.views[*index].0;
            for val in vals.clone() {
                updates.extend(view.trie().updates(val).map(|update| (view.time(update), view.diff(update))));
            }
        }
    }

    /// Values of the key found, in order, with the sum of their differences at times for which `until` holds, as
    /// long as `logic` returns true. Descending where `descending`.
    pub(crate) fn values(
        &self,
        descending: bool,
        until: impl Fn(&T) -> bool,
        mut logic: impl FnMut(&[Word], Diff) -> bool,
    ) {
        let mut heads = self.found.clone();
        let at = |range: &Range<usize>| if descending { range.end - 1 } else { range.start };
        loop {
            let value = |(index, range): &(usize, Range<usize>)| self.views[*index].0.trie().value(at(range));
            let heads_left = heads.iter().filter(|(_, range)| !range.is_empty());
            let next = if descending { heads_left.map(value).max() } else { heads_left.map(value).min() };
            let Some(next) = next else { return };
            let mut count = 0;
            for (index, range) in heads.iter_mut().filter(|(_, range)| !range.is_empty()) {
                let view = &self.views[*index].0;
                let val = at(range);
                if view.trie().value(val) == next {
                    count += view.count(val, &until);
                    *range = if descending { range.start..val } else { val + 1..range.end };
                }
            }
            if count != 0 && !logic(next, count) {
                return;
            }
        }
    }

    /// The sum of the differences of one value of the key found, at times for which `until` holds.
    pub(crate) fn count(&self, value: &[Word], until: impl Fn(&T) -> bool) -> Diff {
        let mut count = 0;
        for (index, range) in &self.found {
            let view = &self.views[*index].0;
            let at = view.trie().seek_value(range.start, range.end, value);
            if at < range.end && view.trie().cmp_value(at, value).is_eq() {
                count += view.count(at, &until);
            }
        }
        count
    }

    /// The value of the key found whose differences add up to more than 0, where there is at most one.
    pub(crate) fn single(&self, value: &mut Vec<Word>) -> bool {
        if let [(index, vals)] = &self.found[..]
            && vals.len() == 1
        {
            // Mostly one batch has the key.
            let view = &self.views[*index].0;
            value.clear();
            append(value, view.trie().value(vals.start));
            return view.count(vals.start, |_| true) > 0;
        }
        let mut present = false;
        self.values(
            false,
            |_| true,
            |found, count| {
                if count > 0 {
                    value.clear();
                    value.extend_from_slice(found);
                    present = true;
                }
                !present
            },
        );
        present
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Updates;
    use crate::container::sort::consolidate;
    use crate::trace::RowBatch;

    /// Three batches of these rows of two words, keyed by the first `key_width`.
    fn cursors(rows: &[[Word; 2]], key_width: usize) -> Cursors<u64> {
        let batch = |share: usize| {
            let mut updates = Updates::new(2);
            let mine = rows.iter().enumerate().filter(|(at, _)| at % 3 == share || at % 7 == share);
            mine.for_each(|(at, row)| updates.push(row, at as u64 % 3, 1));
            consolidate(&mut updates);
            View::from(RowBatch::from_runs(&[updates], key_width))
        };
        Cursors::new((0..3).map(batch).collect())
    }

    #[test]
    fn rows_are_found_one_by_one_whatever_the_key() {
        let rows: Vec<[Word; 2]> = (0..300).map(|i| [i * i % 23, i * 7 % 19]).collect();
        for key_width in 0..=2 {
            let (mut all, mut walked) = (cursors(&rows, key_width), Vec::new());
            while let Some((key, value)) = all.least_row() {
                let row = [key, value].concat();
                let (key, value) = row.split_at(key_width);
                assert!(all.find_row(key, value));
                walked.push(row);
            }
            let mut sorted: Vec<Vec<Word>> = rows.iter().map(|row| row.to_vec()).collect();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(walked, sorted);
            for step in 1..6 {
                let mut some = cursors(&rows, key_width);
                let candidates = (0..24).flat_map(|first| (0..20).map(move |second| [first, second]));
                for row in candidates.step_by(step) {
                    let (key, value) = row.split_at(key_width);
                    let mut updates = Vec::new();
                    let found = some.find_row(key, value);
                    some.updates(&mut updates);
                    let copies = rows.iter().enumerate().filter(|(_, known)| **known == row);
                    let copies = copies
                        .map(|(at, _)| (0..3).filter(|share| at % 3 == *share || at % 7 == *share).count());
                    assert_eq!(
                        updates.iter().map(|(_, diff)| diff).sum::<Diff>(),
                        copies.sum::<usize>() as Diff
                    );
                    assert_eq!(found, sorted.iter().any(|known| known == row.as_slice()), "{row:?}");
                }
            }
        }
    }
}
