//! Reading the contents of a trace as of a time, a slice at a time.

use std::cmp::Ordering;

use dataflow_protocol::value::Word;

use super::view::View;
use crate::container::Diff;

/// A walk over immutable batches; what is added to the trace meanwhile doesn't matter to it.
pub(crate) struct Scan {
    heads: Vec<Head>,
    until: u64,
}

struct Head {
    view: View<u64>,
    key: usize,
    val: usize,
}

impl Head {
    fn row(&self) -> Option<(&[Word], &[Word])> {
        let trie = self.view.trie();
        (self.key < trie.keys()).then(|| (trie.key(self.key), trie.value(self.val)))
    }

    fn step(&mut self) {
        self.val += 1;
        if self.val >= self.view.trie().values(self.key).end {
            self.key += 1;
        }
    }
}

impl Scan {
    /// Of the contents at `until`, which the batches must cover and not be compacted past.
    pub(crate) fn new(views: Vec<View<u64>>, until: u64) -> Self {
        Scan { heads: views.into_iter().map(|view| Head { view, key: 0, val: 0 }).collect(), until }
    }

    /// Looks at up to `effort` rows, calling `logic` with the key, value and copies of those that are there; `true`
    /// when all have been seen.
    pub(crate) fn work(&mut self, effort: usize, mut logic: impl FnMut(&[Word], &[Word], Diff)) -> bool {
        for _ in 0..effort {
            let Some((least, count)) = self.next() else { return true };
            if count != 0
                && let Some((key, val)) = least.row()
            {
                logic(key, val, count);
            }
        }
        self.heads.iter().all(|head| head.row().is_none())
    }

    /// Steps past the least row; a head that still stands at it, and its copies.
    fn next(&mut self) -> Option<(Head, Diff)> {
        let order = |a: &Head, b: &Head| match (a.row(), b.row()) {
            (Some(a), Some(b)) => a.cmp(&b),
            (None, _) => Ordering::Greater,
            (_, None) => Ordering::Less,
        };
        let least = self.heads.iter().min_by(|a, b| order(a, b)).filter(|head| head.row().is_some())?;
        let least = Head { view: least.view.clone(), key: least.key, val: least.val };
        let mut count = 0;
        let until = self.until;
        for head in &mut self.heads {
            if head.row().is_some() && head.row() == least.row() {
                count += head.view.count(head.val, |&time| time <= until);
                head.step();
            }
        }
        Some((least, count))
    }
}
