//! Changes that a subscriber can't take yet, merged as far as necessary.

use std::collections::HashMap;
use std::rc::Rc;

use dataflow_engine::{Changes, Step};
use dataflow_protocol::ids::Time;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::Word;

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
/// aren't. Either way what comes out is exact.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    steps: Vec<Rc<Step>>,
    rows: usize,
    merged: HashMap<Box<[Word]>, i64>,
    last: Option<Time>,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Adds the step that follows. `false` if more than `limit` rows are held although all were merged.
    pub(crate) fn push(&mut self, step: Rc<Step>, filter: &[(usize, Word)], limit: usize) -> bool {
        self.rows += step.changes.rows.len();
        self.last = Some(step.time);
        self.steps.push(step);
        if self.rows > limit {
            self.merge(filter);
        }
        self.rows <= limit
    }

    fn merge(&mut self, filter: &[(usize, Word)]) {
        for step in self.steps.drain(..) {
            for (row, diff) in step.changes.rows.iter().zip(&step.changes.diffs) {
                if passes(row, filter) {
                    *self.merged.entry(row.into()).or_default() += diff;
                }
            }
        }
        self.merged.retain(|_, diff| *diff != 0);
        self.rows = self.merged.len();
    }

    /// Everything as one step of the last time, and nothing is left; `None` if nothing was held.
    pub(crate) fn take(&mut self, width: usize, filter: &[(usize, Word)]) -> Option<(Time, Changes)> {
        let time = self.last.take()?;
        self.merge(filter);
        self.rows = 0;
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

    fn step(time: Time, changes: &[(Word, i64)]) -> Rc<Step> {
        let mut rows = RowBuf::new(1);
        changes.iter().for_each(|(word, _)| rows.push(&[*word]));
        let diffs = changes.iter().map(|(_, diff)| *diff).collect();
        Rc::new(Step { relation: RelationId(0), time, changes: Changes { rows, diffs } })
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
    fn only_rows_that_pass_the_filter_count() {
        let mut backlog = Backlog::default();
        assert!(backlog.push(step(1, &[(7, 1), (8, 1), (9, 1)]), &[(0, 8)], 2));
        assert_eq!(sorted(backlog.take(1, &[(0, 8)]).unwrap().1), vec![(8, 1)]);
    }
}
