//! Changes that a subscriber can't take yet, merged as far as it wants them merged and as is necessary.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use dataflow_engine::{Changes, Step};
use dataflow_protocol::dictionary::sweep;
use dataflow_protocol::ids::Time;
use dataflow_protocol::request::Slow;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::Word;

/// Rows kept unmerged, as long as no more than these are merged already: steps are shared with other subscribers, and
/// merging takes time for each of them.
const MERGED_FROM: usize = 1 << 12;

/// Whether a row has the values that a subscription or read asks for.
pub(crate) fn passes(row: &[Word], filter: &[(usize, Word)]) -> bool {
    filter.iter().all(|(column, word)| row.get(*column) == Some(word))
}

/// The part of `changes` that passes.
pub(crate) fn filtered(changes: &Changes, filter: &[(usize, Word)]) -> Changes {
    let mut part = Changes { rows: RowBuf::new(changes.rows.width()), diffs: Vec::new() };
    for (row, diff) in changes.rows.iter().zip(&changes.diffs) {
        if passes(row, filter) {
            part.rows.push(row);
            part.diffs.push(*diff);
        }
    }
    part
}

/// Consecutive steps of one relation: kept apart, and shared with others, while they are few; merged when they
/// aren't, unless the subscriber wants none merged. Either way what comes out is exact.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    slow: Slow,
    steps: VecDeque<Arc<Step>>,
    /// Rows of these.
    apart: usize,
    merged: HashMap<Box<[Word]>, i64>,
    /// The time of the last step that was merged.
    until: Option<Time>,
}

impl Backlog {
    /// An empty one.
    pub(crate) fn new(slow: Slow) -> Self {
        Backlog { slow, ..Backlog::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.until.is_none()
    }

    /// Adds the step that follows. `false` if more than `limit` rows are held, all merged if they may be.
    pub(crate) fn push(&mut self, step: Arc<Step>, filter: &[(usize, Word)], limit: usize) -> bool {
        self.apart += step.changes.rows.len();
        self.steps.push_back(step);
        let many = self.apart > MERGED_FROM.max(self.merged.len()) || self.rows() > limit;
        if many && self.slow == Slow::Coalesce {
            self.merge(filter);
        }
        self.rows() <= limit
    }

    /// Marks the words of all rows (ADR 0008); how many.
    pub(crate) fn mark(&self) -> usize {
        let apart = self.steps.iter().map(|step| step.changes.rows.words());
        let all = apart.chain(self.merged.keys().map(|row| &**row));
        all.inspect(|words| sweep::mark(words)).map(<[Word]>::len).sum()
    }

    fn rows(&self) -> usize {
        self.apart + self.merged.len()
    }

    fn merge(&mut self, filter: &[(usize, Word)]) {
        for step in self.steps.drain(..) {
            for (row, diff) in step.changes.rows.iter().zip(&step.changes.diffs) {
                if passes(row, filter) {
                    *self.merged.entry(row.into()).or_default() += diff;
                }
            }
            self.until = Some(step.time);
        }
        self.merged.retain(|_, diff| *diff != 0);
        self.apart = 0;
    }

    /// The next step to send, which may have no rows: everything as one step of the last time, or just the first
    /// one if none are to be merged. `None` if nothing is held.
    pub(crate) fn take(&mut self, width: usize, filter: &[(usize, Word)]) -> Option<(Time, Changes)> {
        if self.slow == Slow::End {
            let step = self.steps.pop_front()?;
            self.apart -= step.changes.rows.len();
            return Some((step.time, filtered(&step.changes, filter)));
        }
        self.merge(filter);
        let time = self.until.take()?;
        let mut changes = Changes { rows: RowBuf::new(width), diffs: Vec::with_capacity(self.merged.len()) };
        for (row, diff) in std::mem::take(&mut self.merged) {
            changes.rows.push(&row);
            changes.diffs.push(diff);
        }
        Some((time, changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_protocol::ids::RelationId;

    fn step(time: Time, changes: &[(Word, i64)]) -> Arc<Step> {
        let mut rows = RowBuf::new(1);
        changes.iter().for_each(|(word, _)| rows.push(&[*word]));
        let diffs = changes.iter().map(|(_, diff)| *diff).collect();
        Arc::new(Step { relation: RelationId(0), time, changes: Changes { rows, diffs } })
    }

    fn sorted(changes: Changes) -> Vec<(Word, i64)> {
        let mut pairs: Vec<_> = changes.rows.iter().map(|row| row[0]).zip(changes.diffs).collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn consecutive_times_merge_into_one_exact_step() {
        let mut backlog = Backlog::default();
        assert!(backlog.push(step(3, &[(1, 1), (2, 1)]), &[], 100));
        assert!(backlog.push(step(5, &[(1, -1), (3, 2)]), &[], 100));
        let (time, changes) = backlog.take(1, &[]).unwrap();
        assert_eq!((time, sorted(changes)), (5, vec![(2, 1), (3, 2)]));
        assert!(backlog.is_empty() && backlog.take(1, &[]).is_none());
    }

    #[test]
    fn rows_that_cancel_take_no_room_and_those_that_dont_are_limited() {
        let mut backlog = Backlog::default();
        for round in 0..100 {
            assert!(backlog.push(step(round, &[(round, 1), (round.wrapping_sub(1), -1)]), &[], 4));
        }
        assert!(!backlog.push(step(100, &[(200, 1), (201, 1), (202, 1), (203, 1)]), &[], 4));
    }

    #[test]
    fn rows_that_cancel_are_let_go_of_long_before_the_limit() {
        let mut backlog = Backlog::default();
        for round in 0..100_000 {
            assert!(backlog.push(step(round, &[(round, 1), (round.wrapping_sub(1), -1)]), &[], 1 << 20));
            assert!(backlog.apart <= MERGED_FROM && backlog.steps.len() <= MERGED_FROM);
        }
        assert_eq!(backlog.take(1, &[]).unwrap().1.rows.len(), 2);
    }

    #[test]
    fn steps_that_must_not_be_merged_come_out_one_by_one_and_are_limited() {
        let mut backlog = Backlog::new(Slow::End);
        assert!(backlog.push(step(3, &[(1, 1)]), &[], 3));
        assert!(backlog.push(step(4, &[(1, -1), (2, 1)]), &[], 3));
        assert!(!backlog.push(step(5, &[(1, 1)]), &[], 3), "rows that cancel count: they aren't merged");
        assert_eq!(
            backlog.take(1, &[]).map(|(time, changes)| (time, sorted(changes))),
            Some((3, vec![(1, 1)]))
        );
        assert_eq!(
            backlog.take(1, &[(0, 2)]).map(|(time, rows)| (time, sorted(rows))),
            Some((4, vec![(2, 1)]))
        );
        assert_eq!(backlog.take(1, &[(0, 2)]).map(|(time, rows)| (time, sorted(rows))), Some((5, vec![])));
        assert!(backlog.is_empty() && backlog.take(1, &[]).is_none());
    }

    #[test]
    fn only_rows_that_pass_the_filter_count() {
        let mut backlog = Backlog::default();
        assert!(backlog.push(step(1, &[(7, 1), (8, 1), (9, 1)]), &[(0, 8)], 2));
        assert_eq!(sorted(backlog.take(1, &[(0, 8)]).unwrap().1), vec![(8, 1)]);
    }
}
