//! Rows that only come, each once: the batcher of a dataflow that works at one time of the cluster's only.
//!
//! Nothing that such a dataflow has found is taken back in a later iteration. So a row that is there needn't be counted any
//! more, and all that has to be known of it is that it is there.

use std::rc::Rc;

use differential_dataflow::batcher::{Batcher, Extract};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::{BatchBuilder, RowBatch};
use super::cursors::Cursors;
use super::fold::Prior;
use super::ladder::Ladder;
use crate::budget::Kind;
use crate::container::{Diff, EngineTime, Updates};
use crate::meter::{Held, Meter};

/// A batcher of rows, each of which it lets through at the first time at which it is there.
pub(crate) struct FirstTimes<T: EngineTime> {
    ladder: Ladder<T>,
    retained: Antichain<T>,
    /// The arrangement of what it has let through.
    prior: Prior<T>,
    /// Words of a row, and of the key that it is arranged by.
    width: usize,
    key_width: usize,
    /// The recursive relation whose rows these are.
    iterates: Option<Rc<str>>,
    meter: Meter,
}

impl<T: EngineTime> FirstTimes<T> {
    pub(crate) fn new(
        width: usize,
        key_width: usize,
        prior: Prior<T>,
        iterates: Option<Rc<str>>,
        meter: &Meter,
    ) -> Self {
        let (ladder, retained, meter) = (Ladder::default(), Antichain::new(), meter.clone());
        FirstTimes { ladder, retained, prior, width, key_width, iterates, meter }
    }

    /// Rows and bytes that wait.
    pub(crate) fn held(&self) -> &Held {
        self.ladder.held()
    }
}

impl<T: EngineTime> Batcher<Updates<T>> for FirstTimes<T> {
    fn insert(&mut self, container: &mut Updates<T>) {
        let _timed = self.meter.timed(Kind::Sort);
        self.ladder.insert(container);
    }
}

impl<T: EngineTime> Extract for FirstTimes<T> {
    type Time = T;
    type Output = RowBatch<T>;

    fn extract<'a>(&'a mut self, upper: AntichainRef<'_, T>) -> (Option<RowBatch<T>>, AntichainRef<'a, T>) {
        let meter = self.meter.clone();
        let _timed = meter.timed(Kind::Distinct);
        if let Some(relation) = &self.iterates
            && let Some(iteration) = upper.iter().map(|time| time.iteration()).max()
        {
            meter.iterated(relation, iteration);
        }
        let ready = self.ladder.extract(upper, &mut self.retained);
        if ready.is_empty() {
            return (None, self.retained.borrow());
        }
        let mut prior = Cursors::new(self.prior.views());
        let mut builder = BatchBuilder::new(self.key_width, self.width - self.key_width);
        ready.for_each(|row, times| {
            let (key, value) = row.split_at(self.key_width);
            if let Some(time) = first(times)
                && !prior.find_row(key, value)
            {
                builder.push_update(time, 1);
                builder.end_value(key, value);
            }
        });
        let batch = builder.done();
        meter.emitted(batch.len());
        ((batch.len() > 0).then_some(batch), self.retained.borrow())
    }
}

/// The first time at which there are copies, of times in their order.
fn first<T: EngineTime>(times: &[(T, Diff)]) -> Option<T> {
    let mut copies = 0;
    let present = times.iter().find(|(_, diff)| {
        copies += diff;
        copies > 0
    });
    present.map(|&(time, _)| time)
}
