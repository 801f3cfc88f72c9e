//! Each row once: a reduction of our own.
//!
//! Differential's general reduction keeps an input and an output trace and replays the history of every key it
//! visits. Nearly every visit is simpler: the key has no work withheld, and all its history is at or before its new
//! times, which form a chain; then a running count decides, and the output trace isn't read at all. Only the rest
//! takes the general way.

use std::rc::Rc;

use dataflow_protocol::value::Word;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::operators::reduce::{ReduceTactic, reduce_with_tactic};
use differential_dataflow::trace::Span;
use timely::progress::Antichain;

use super::Rows;
use super::arrange::arrange_folded;
use super::withheld::{Withheld, interesting, is_chain, next_key};
use crate::budget::Kind;
use crate::container::sort::consolidate_times;
use crate::container::{Diff, EngineTime};
use crate::layout::Layout;
use crate::meter::Meter;
use crate::trace::batch::BatchBuilder;
use crate::trace::cursors::Cursors;
use crate::trace::first::FirstTimes;
use crate::trace::view::span;
use crate::trace::{Agent, RowSpine, View};

/// Rows whose differences add up to more than 0, each once; arranged as `counted` is.
pub(crate) fn distinct<'scope, T: EngineTime>(
    counted: Arranged<'scope, Agent<T>>,
    name: &str,
    meter: &Meter,
) -> Arranged<'scope, Agent<T>> {
    distinct_with(counted, name, meter, None)
}

/// [`distinct`] of a recursive relation, which reports the iteration.
pub(crate) fn distinct_in_loop<'scope, T: EngineTime>(
    counted: Arranged<'scope, Agent<T>>,
    relation: &str,
    meter: &Meter,
) -> Arranged<'scope, Agent<T>> {
    distinct_with(counted, "DistinctInLoop", meter, Some(Rc::from(relation)))
}

fn distinct_with<'scope, T: EngineTime>(
    counted: Arranged<'scope, Agent<T>>,
    name: &str,
    meter: &Meter,
    iterates: Option<Rc<str>>,
) -> Arranged<'scope, Agent<T>> {
    let tactic = Distinct { iterates, withheld: Withheld::new(), meter: meter.clone() };
    let arranged = reduce_with_tactic::<_, RowSpine<T>, _>(counted, name, tactic);
    meter.hold(&arranged.trace);
    arranged
}

/// Each row once, of rows that only come and are laid out so already: see [`FirstTimes`]. A recursive relation reports the
/// iteration.
pub(crate) fn first_times<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    name: &str,
    layout: &Layout,
    iterates: Option<&str>,
    meter: &Meter,
) -> Arranged<'scope, Agent<T>> {
    let (width, key_width) = (layout.width(), layout.key().len());
    arrange_folded(rows, name, key_width, meter, |prior| {
        let batcher = FirstTimes::new(width, key_width, prior, iterates.map(Rc::from), meter);
        meter.hold_waiting(batcher.held());
        batcher
    })
}

struct Distinct<T> {
    /// The recursive relation that this is.
    iterates: Option<Rc<str>>,
    meter: Meter,
    withheld: Withheld<T>,
}

impl<T: EngineTime> ReduceTactic<T, View<T>, View<T>> for Distinct<T> {
    fn retire(
        &mut self,
        source: Vec<View<T>>,
        output: Vec<View<T>>,
        input: Vec<View<T>>,
        lower: &Antichain<T>,
        upper: &Antichain<T>,
        _held: &Antichain<T>,
    ) -> (Option<Span<T, View<T>>>, Antichain<T>) {
        if let Some(relation) = &self.iterates
            && let Some(iteration) = upper.iter().map(|time| time.iteration()).max()
        {
            self.meter.iterated(relation, iteration);
        }
        let meter = self.meter.clone();
        let _timed = meter.timed(Kind::Distinct);
        let mut due = self.withheld.take_due(upper);
        if input.is_empty() && due.len() == 0 {
            return (None, self.withheld.frontier());
        }
        let (key_width, val_width) = (source.iter().chain(&output).chain(&input).next())
            .map_or((0, 0), |view| (view.trie().key_width(), view.trie().val_width()));
        let mut visit = Visit {
            source: Cursors::new(source),
            output: Cursors::new(output),
            input: Cursors::new(input),
            builder: BatchBuilder::new(key_width, val_width),
            upper,
            history: Vec::new(),
            fresh: Vec::new(),
        };
        let mut row: Vec<Word> = Vec::with_capacity(key_width + val_width);
        while let Some(times) = next_key(visit.input.least_row(), &mut due, &mut row) {
            let later = visit.row(row.split_at(key_width), times);
            self.withheld.withhold(&row, later);
        }
        let batch = visit.builder.done();
        meter.emitted(batch.len());
        (Some(span(lower, upper, batch)), self.withheld.frontier())
    }
}

/// The work of one interval.
struct Visit<'a, T: EngineTime> {
    source: Cursors<T>,
    output: Cursors<T>,
    input: Cursors<T>,
    builder: BatchBuilder<T>,
    upper: &'a Antichain<T>,
    history: Vec<(T, Diff)>,
    fresh: Vec<(T, Diff)>,
}

impl<T: EngineTime> Visit<'_, T> {
    /// Produces the output of one row; returns times at which it must be visited again.
    fn row(&mut self, (key, value): (&[Word], &[Word]), due: Vec<T>) -> Vec<T> {
        self.history.clear();
        self.fresh.clear();
        self.source.find_row(key, value);
        self.source.updates(&mut self.history);
        self.input.find_row(key, value);
        self.input.updates(&mut self.fresh);
        consolidate_times(&mut self.fresh);
        let history = self.history.iter().map(|&(time, _)| time);
        let fresh = self.fresh.iter().map(|&(time, _)| time);
        let later = if due.is_empty() && is_chain(history, fresh.clone()) {
            self.run();
            Vec::new()
        } else {
            let times = fresh.chain(due).collect();
            self.general(key, value, times)
        };
        self.builder.end_value(key, value);
        later
    }

    fn run(&mut self) {
        let mut count: Diff = self.history.iter().map(|(_, diff)| diff).sum();
        for &(time, diff) in &self.fresh {
            let change = Diff::from(count + diff > 0) - Diff::from(count > 0);
            count += diff;
            if change != 0 {
                self.builder.push_update(time, change);
            }
        }
    }

    /// Evaluates at every time that is a join of a new or due time with times of the history.
    fn general(&mut self, key: &[Word], value: &[Word], times: Vec<T>) -> Vec<T> {
        let mut emitted = Vec::new();
        self.output.find_row(key, value);
        self.output.updates(&mut emitted);
        let (now, later) = interesting(self.history.iter().map(|&(time, _)| time), times, self.upper);
        let already = emitted.len();
        for time in now {
            let sum = |updates: &[(T, Diff)]| -> Diff {
                updates.iter().filter(|(t, _)| t.less_equal(&time)).map(|(_, diff)| diff).sum()
            };
            let present = sum(&self.history) + sum(&self.fresh) > 0;
            let change = Diff::from(present) - sum(&emitted);
            if change != 0 {
                emitted.push((time, change));
            }
        }
        for &(time, change) in &emitted[already..] {
            self.builder.push_update(time, change);
        }
        later
    }
}
