//! From unordered updates to batches.

use differential_dataflow::batcher::{Batcher, Extract};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::RowBatch;
use super::ladder::Ladder;
use crate::budget::Kind;
use crate::container::{EngineTime, Updates};
use crate::meter::{Held, Meter};

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
