//! From unordered updates to batches.

use differential_dataflow::batcher::{Batcher, Extract};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::RowBatch;
use crate::container::sort::{consolidate, merge, partition};
use crate::container::{EngineTime, Updates};

/// Updates gathered before they are sorted as one run.
const RUN_ROWS: usize = 1 << 16;

/// Sorted runs in a geometric ladder: each is at least twice as long as the next, so every update is merged
/// logarithmically often.
pub(crate) struct Ladder<T: EngineTime> {
    pending: Updates<T>,
    runs: Vec<Updates<T>>,
}

impl<T: EngineTime> Default for Ladder<T> {
    fn default() -> Self {
        Ladder { pending: Updates::default(), runs: Vec::new() }
    }
}

impl<T: EngineTime> Ladder<T> {
    pub(crate) fn insert(&mut self, updates: &mut Updates<T>) {
        if updates.is_empty() {
            return;
        }
        if self.pending.is_empty() {
            self.pending = std::mem::take(updates);
        } else {
            self.pending.extend_from(updates, 0..updates.len());
            updates.clear();
        }
        if self.pending.len() >= RUN_ROWS {
            self.seal_pending();
        }
    }

    fn seal_pending(&mut self) {
        let mut run = std::mem::take(&mut self.pending);
        consolidate(&mut run);
        self.push_run(run);
    }

    fn push_run(&mut self, mut run: Updates<T>) {
        while let Some(last) = self.runs.pop_if(|last| last.len() < 2 * run.len()) {
            run = merge(&last, &run);
        }
        if !run.is_empty() {
            self.runs.push(run);
        }
    }

    /// Takes out, consolidated, the updates at times not in advance of `upper`; leaves in `retained` a lower bound
    /// of the others' times.
    pub(crate) fn extract(&mut self, upper: AntichainRef<T>, retained: &mut Antichain<T>) -> Updates<T> {
        self.seal_pending();
        let mut all = Updates::default();
        while let Some(run) = self.runs.pop() {
            all = if all.is_empty() { run } else { merge(&run, &all) };
        }
        let (ready, kept) = partition(all, |time| !upper.less_equal(time));
        retained.clear();
        for index in 0..kept.len() {
            retained.insert(kept.time(index));
        }
        self.push_run(kept);
        ready
    }
}

/// A batcher for arrangements that hold just what they are given, keyed by `key_width` leading words.
pub(crate) struct RowBatcher<T: EngineTime> {
    ladder: Ladder<T>,
    key_width: usize,
    retained: Antichain<T>,
}

impl<T: EngineTime> RowBatcher<T> {
    pub(crate) fn new(key_width: usize) -> Self {
        let retained = Antichain::new();
        RowBatcher { ladder: Ladder::default(), key_width, retained }
    }
}

impl<T: EngineTime> Extract for RowBatcher<T> {
    type Time = T;
    type Output = RowBatch<T>;

    fn extract<'a>(&'a mut self, upper: AntichainRef<'_, T>) -> (Option<RowBatch<T>>, AntichainRef<'a, T>) {
        let ready = self.ladder.extract(upper, &mut self.retained);
        let batch = (!ready.is_empty()).then(|| RowBatch::from_updates(&ready, self.key_width));
        (batch, self.retained.borrow())
    }
}

impl<T: EngineTime> Batcher<Updates<T>> for RowBatcher<T> {
    fn insert(&mut self, container: &mut Updates<T>) {
        self.ladder.insert(container);
    }
}
