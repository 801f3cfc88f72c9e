//! Rows that came in a few orders at once, as those of a few workers do, brought into one without sorting them.

use std::ops::Range;

/// Most orders that are told apart: more are rows without any.
const MAX_RUNS: usize = 16;

/// Stretches of the keys of a table, each in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    runs: Vec<Run>,
    /// The run that the last row belongs to.
    current: usize,
}

/// Rows in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    /// Where they are; what is in one comes before what is in the next.
    stretches: Vec<Range<usize>>,
    /// Where the key of the last begins.
    last: usize,
    /// The stretch that holds the next to hand out, and where its key begins.
    next: (usize, usize),
}

impl Run {
    fn new(row: Range<usize>) -> Self {
        Run { last: row.start, next: (0, row.start), stretches: vec![row] }
    }

    fn end(&self) -> usize {
        self.stretches.last().map_or(0, |stretch| stretch.end)
    }

    /// Whether a key may come behind its last.
    fn precedes(&self, key: &[u8], keys: &[u8]) -> bool {
        keys.get(self.last..self.end()).is_some_and(|last| last <= key)
    }
}

impl Runs {
    /// Adds the row that is the last of all, whose key and copies stand here; false if there are too many orders for it.
    #[inline]
    pub(super) fn push(&mut self, row: Range<usize>, keys: &[u8]) -> bool {
        let Some(key) = keys.get(row.clone()) else { return false };
        if let Some(run) = self.runs.get_mut(self.current)
            && run.precedes(key, keys)
        {
            run.last = row.start;
            match run.stretches.last_mut() {
                Some(stretch) if stretch.end == row.start => stretch.end = row.end,
                _ => run.stretches.push(row),
            }
            return true;
        }
        self.push_elsewhere(row, keys)
    }

    /// Adds it to another run, the one that ends nearest to it, or begins one.
    fn push_elsewhere(&mut self, row: Range<usize>, keys: &[u8]) -> bool {
        let Some(key) = keys.get(row.clone()) else { return false };
        let before = self.runs.iter().enumerate().filter(|(_, run)| run.precedes(key, keys));
        let nearest = before.max_by_key(|(_, run)| keys.get(run.last..run.end()));
        match nearest.map(|(index, _)| index) {
            Some(index) => {
                self.current = index;
                let run = &mut self.runs[index];
                run.last = row.start;
                run.stretches.push(row);
            }
            None if self.runs.len() < MAX_RUNS => {
                self.current = self.runs.len();
                self.runs.push(Run::new(row));
            }
            None => return false,
        }
        true
    }

    /// Begins to hand out anew.
    pub(super) fn rewind(&mut self) {
        for run in &mut self.runs {
            run.next = (0, run.stretches.first().map_or(0, |stretch| stretch.start));
        }
    }

    /// Where the key of the next row begins, if there are more.
    #[inline]
    pub(super) fn next(&mut self, keys: &[u8]) -> Option<usize> {
        let mut least: Option<(usize, usize)> = None;
        for (index, run) in self.runs.iter().enumerate() {
            if run.next.0 < run.stretches.len()
                && least.is_none_or(|(_, start)| keys.get(run.next.1..) < keys.get(start..))
            {
                least = Some((index, run.next.1));
            }
        }
        let (index, start) = least?;
        self.current = index;
        Some(start)
    }

    /// Passes over the row that [`Runs::next`] gave, which ends here.
    #[inline]
    pub(super) fn pass(&mut self, end: usize) {
        let Some(run) = self.runs.get_mut(self.current) else { return };
        run.next.1 = end;
        if run.stretches.get(run.next.0).is_none_or(|stretch| end >= stretch.end) {
            let following = run.next.0 + 1;
            run.next = (following, run.stretches.get(following).map_or(end, |stretch| stretch.start));
        }
    }

    /// How many orders there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }
}
