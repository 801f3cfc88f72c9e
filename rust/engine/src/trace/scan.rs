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

/// A batch and the row that it has come to; there is one as long as the head is kept.
#[derive(Clone)]
struct Head {
    view: View<u64>,
    key: usize,
    val: usize,
}

impl Head {
    fn new(view: View<u64>) -> Option<Self> {
        (view.trie().keys() > 0).then_some(Head { view, key: 0, val: 0 })
    }

    fn row(&self) -> (&[Word], &[Word]) {
        let trie = self.view.trie();
        (trie.key(self.key), trie.value(self.val))
    }

    /// Rows in order. Most have their first words narrow and different, which takes less than a call to compare slices.
    #[inline]
    fn order(&self, other: &Self) -> Ordering {
        let ((key, val), (other_key, other_val)) = (self.row(), other.row());
        key.iter().chain(val).cmp(other_key.iter().chain(other_val))
    }

    /// Whether there is a next row.
    fn step(&mut self) -> bool {
        let trie = self.view.trie();
        self.val += 1;
        if self.val >= trie.values(self.key).end {
            self.key += 1;
        }
        self.key < trie.keys()
    }

    fn count(&self, until: u64) -> Diff {
        self.view.count(self.val, |&time| time <= until)
    }
}

impl Scan {
    /// Of the contents at `until`, which the batches must cover and not be compacted past.
    pub(crate) fn new(views: Vec<View<u64>>, until: u64) -> Self {
        Scan { heads: views.into_iter().filter_map(Head::new).collect(), until }
    }

    /// Looks at up to `effort` rows, calling `logic` with the key, value and copies of those that are there; `true`
    /// when all have been seen.
    pub(crate) fn work(&mut self, mut effort: usize, mut logic: impl FnMut(&[Word], &[Word], Diff)) -> bool {
        while effort > 0 && !self.heads.is_empty() {
            let (least, next) = self.least();
            let (before, others) = (effort, self.heads.len() - 1);
            // Rows of one batch come alone as long as no other has one that is less or the same.
            let head = &mut self.heads[least];
            let mut more = true;
            while more && effort > 0 && next.as_ref().is_none_or(|next| head.order(next).is_lt()) {
                effort -= 1;
                let count = head.count(self.until);
                if count != 0 {
                    let (key, val) = head.row();
                    logic(key, val, count);
                }
                more = head.step();
            }
            if !more {
                self.heads.swap_remove(least);
            } else if effort == before && others > 0 {
                effort -= 1;
                self.together(least, &mut logic);
            }
        }
        self.heads.is_empty()
    }

    /// Which head has the least row, and the least of the others.
    fn least(&self) -> (usize, Option<Head>) {
        let (mut least, mut next) = (0, None);
        for at in 1..self.heads.len() {
            if self.heads[at].order(&self.heads[least]).is_lt() {
                (least, next) = (at, Some(least));
            } else if next.is_none_or(|next| self.heads[at].order(&self.heads[next]).is_lt()) {
                next = Some(at);
            }
        }
        (least, next.map(|next| self.heads[next].clone()))
    }

    /// Steps past a row that several heads stand at.
    fn together(&mut self, least: usize, logic: &mut impl FnMut(&[Word], &[Word], Diff)) {
        let least = self.heads[least].clone();
        let (mut count, until) = (0, self.until);
        self.heads.retain_mut(|head| {
            let same = head.order(&least).is_eq();
            if same {
                count += head.count(until);
            }
            !same || head.step()
        });
        if count != 0 {
            let (key, val) = least.row();
            logic(key, val, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::container::Updates;
    use crate::container::sort::consolidate;
    use crate::random::random;
    use crate::trace::batch::RowBatch;

    #[test]
    fn a_scan_in_slices_sees_what_the_batches_add_up_to_at_its_time() {
        let mut state = 3u64;
        let mut random = move |below| random(&mut state, below);
        for width in 0..4usize {
            for key_width in 0..=width {
                for batches in [0, 1, 2, 5] {
                    let (mut sums, mut views) = (BTreeMap::<Vec<Word>, Diff>::new(), Vec::new());
                    for _ in 0..batches {
                        let mut rows = Updates::<u64>::new(width);
                        for _ in 0..random(30) {
                            let row: Vec<Word> = (0..width).map(|_| random(4)).collect();
                            let (time, diff) = (random(3), random(3) as Diff - 1);
                            rows.push(&row, time, diff);
                            *sums.entry(row).or_default() += if time <= 1 { diff } else { 0 };
                        }
                        consolidate(&mut rows);
                        views.push(View::from(RowBatch::from_runs(&[rows], key_width)));
                    }
                    let (mut scan, mut found) = (Scan::new(views, 1), Vec::new());
                    while !scan.work(1 + random(5) as usize, |key, val, count| {
                        found.push(([key, val].concat(), count));
                    }) {}
                    let expected: Vec<_> = sums.into_iter().filter(|(_, count)| *count != 0).collect();
                    assert_eq!(found, expected, "{batches} batches of width {width}, keys of {key_width}");
                }
            }
        }
    }
}
