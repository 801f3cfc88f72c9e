//! Several batches walked together, key by key in order.

use std::ops::Range;

use dataflow_protocol::value::Word;

use super::view::View;
use crate::container::{Diff, EngineTime, append};

/// Batches with the position that each has reached.
pub(crate) struct Cursors<T: EngineTime> {
    views: Vec<(View<T>, usize)>,
    /// Where the key asked for last stands: batch, and indices of its values there.
    found: Vec<(usize, Range<usize>)>,
}

impl<T: EngineTime> Cursors<T> {
    pub(crate) fn new(views: Vec<View<T>>) -> Self {
        Cursors { views: views.into_iter().map(|view| (view, 0)).collect(), found: Vec::new() }
    }

    /// The least key not yet passed.
    pub(crate) fn least(&self) -> Option<&[Word]> {
        self.views
            .iter()
            .filter(|(view, at)| *at < view.trie().keys())
            .map(|(view, at)| view.trie().key(*at))
            .min()
    }

    /// Finds `key`, for the methods below, and steps past it; whether it is in any batch. Keys must be asked for in ascending
    /// order.
    pub(crate) fn find(&mut self, key: &[Word]) -> bool {
        self.found.clear();
        for (index, (view, at)) in self.views.iter_mut().enumerate() {
            let trie = view.trie();
            *at = trie.seek(*at, key);
            if *at < trie.keys() && trie.is_key(*at, key) {
                self.found.push((index, trie.values(*at)));
                *at += 1;
            }
        }
        !self.found.is_empty()
    }

    /// Appends all updates of the key found, whatever their value.
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
            if at < range.end && view.trie().value(at) == value {
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
