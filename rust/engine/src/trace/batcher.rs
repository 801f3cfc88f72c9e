//! From unordered updates to batches.

use dataflow_protocol::value::Word;
use differential_dataflow::batcher::{Batcher, Extract};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::RowBatch;
use crate::budget::Kind;
use crate::container::runs::merge_runs;
use crate::container::sort::consolidate;
use crate::container::{Diff, EngineTime, TimeColumn, Updates};
use crate::meter::{Held, Meter};

/// Updates gathered before they are sorted as one run.
pub(crate) const RUN_ROWS: usize = 1 << 16;

/// Runs of about one length that are merged to one: many, so that an update is copied seldom; not more, so that what
/// adds up to nothing is found out before it takes much space.
const FAN: usize = 8;

/// Sorted runs, each long run after at most a few of its length; they are read as one when a batch is made.
pub(crate) struct Ladder<T: EngineTime> {
    pending: Updates<T>,
    runs: Vec<Updates<T>>,
    /// What is in it, for those who watch.
    held: Held,
}

impl<T: EngineTime> Default for Ladder<T> {
    fn default() -> Self {
        Ladder { pending: Updates::default(), runs: Vec::new(), held: Held::default() }
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
        self.note();
    }

    /// Rows and bytes in it, kept up to date.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    fn note(&self) {
        let all = || self.runs.iter().chain([&self.pending]);
        self.held.set((all().map(Updates::len).sum(), all().map(Updates::heap_bytes).sum()));
    }

    fn seal_pending(&mut self) {
        let mut run = std::mem::take(&mut self.pending);
        consolidate(&mut run);
        self.push_run(run);
    }

    fn push_run(&mut self, run: Updates<T>) {
        if run.is_empty() {
            return;
        }
        let mut longest = level(run.len());
        self.runs.push(run);
        loop {
            let alike = self.runs.iter().rev().take_while(|run| level(run.len()) <= longest).count();
            if alike < FAN {
                return;
            }
            let runs = self.runs.split_off(self.runs.len() - alike);
            let rows = runs.iter().map(Updates::len).sum();
            let mut merged = Updates::with_capacity(runs[0].width(), rows);
            merge_runs(&runs, |row, times| {
                times.iter().for_each(|&(time, diff)| merged.push(row, time, diff))
            });
            if merged.is_empty() {
                return;
            }
            longest = level(merged.len());
            self.runs.push(merged);
        }
    }

    /// Takes out the updates at times not in advance of `upper`; leaves in `retained` a lower bound of the others'
    /// times.
    pub(crate) fn extract(&mut self, upper: AntichainRef<T>, retained: &mut Antichain<T>) -> Extracted<T> {
        self.seal_pending();
        retained.clear();
        let runs = std::mem::take(&mut self.runs);
        self.note();
        let ready = |run: &Updates<T>| match run.times().uniform() {
            Some(time) => !upper.less_equal(&time),
            None => (0..run.len()).all(|index| !upper.less_equal(&run.time(index))),
        };
        if runs.iter().all(ready) {
            return Extracted { runs };
        }
        let width = runs.first().map_or(0, Updates::width);
        let (mut taken, mut kept) = (Updates::new(width), Updates::new(width));
        merge_runs(&runs, |row, times| {
            for &(time, diff) in times.iter() {
                let side = if upper.less_equal(&time) { &mut kept } else { &mut taken };
                side.push(row, time, diff);
            }
        });
        for index in 0..kept.len() {
            retained.insert(kept.time(index));
        }
        self.push_run(kept);
        self.note();
        Extracted { runs: if taken.is_empty() { Vec::new() } else { vec![taken] } }
    }
}

/// How often runs of this length may have been merged.
fn level(rows: usize) -> u32 {
    (rows / RUN_ROWS).checked_ilog(FAN).map_or(0, |level| level + 1)
}

/// What a [`Ladder`] gave away: sorted runs.
pub(crate) struct Extracted<T: EngineTime> {
    runs: Vec<Updates<T>>,
}

impl<T: EngineTime> Extracted<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Number of updates, not counting that some may cancel.
    pub(crate) fn len(&self) -> usize {
        self.runs.iter().map(Updates::len).sum()
    }

    /// Calls `each` with every row, in order, and its consolidated times.
    pub(crate) fn for_each<'a>(&'a self, each: impl FnMut(&'a [Word], &mut Vec<(T, Diff)>)) {
        merge_runs(&self.runs, each);
    }
}

/// A batcher for arrangements that hold just what they are given, keyed by `key_width` leading words.
pub(crate) struct RowBatcher<T: EngineTime> {
    ladder: Ladder<T>,
    key_width: usize,
    retained: Antichain<T>,
    meter: Meter,
}

impl<T: EngineTime> RowBatcher<T> {
    pub(crate) fn new(key_width: usize, meter: &Meter) -> Self {
        let (retained, meter) = (Antichain::new(), meter.clone());
        RowBatcher { ladder: Ladder::default(), key_width, retained, meter }
    }

    /// Rows and bytes that wait.
    pub(crate) fn held(&self) -> &Held {
        self.ladder.held()
    }
}

impl<T: EngineTime> Extract for RowBatcher<T> {
    type Time = T;
    type Output = RowBatch<T>;

    fn extract<'a>(&'a mut self, upper: AntichainRef<'_, T>) -> (Option<RowBatch<T>>, AntichainRef<'a, T>) {
        let _timed = self.meter.timed(Kind::Seal);
        let ready = self.ladder.extract(upper, &mut self.retained);
        let batch = RowBatch::from_runs(&ready.runs, self.key_width);
        ((batch.len() > 0).then_some(batch), self.retained.borrow())
    }
}

impl<T: EngineTime> Batcher<Updates<T>> for RowBatcher<T> {
    fn insert(&mut self, container: &mut Updates<T>) {
        let _timed = self.meter.timed(Kind::Sort);
        self.ladder.insert(container);
    }
}
