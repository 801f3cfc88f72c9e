//! One row a key, inside a recursion: what is grouped changes with the iteration.
//!
//! As in [`super::aggregate`], groups are looked at again where they change; but times are ordered in part only, so that a
//! key may have to be visited at joins of its times.

use dataflow_protocol::plan::Aggregate;
use dataflow_protocol::value::{Type, Word};
use differential_dataflow::operators::reduce::{ReduceTactic, reduce_with_tactic};
use differential_dataflow::trace::Span;
use timely::progress::Antichain;

use super::Rows;
use super::aggregate::{Measure, evaluate, measures};
use super::arrange::{arrange, readable};
use super::linear::{flatten, map};
use super::withheld::{Due, Withheld, interesting, is_chain, next_key};
use crate::budget::Kind;
use crate::container::{Diff, EngineTime, Updates};
use crate::expr::Project;
use crate::meter::Meter;
use crate::trace::batch::{BatchBuilder, RowBatch};
use crate::trace::cursors::Cursors;
use crate::trace::view::span;
use crate::trace::{RowSpine, View};

/// The rows of a reduction: key columns, then one column an aggregate. `types` are those of the input's columns.
pub(crate) fn reduce_in_loop<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    types: &[Type],
    key: &[usize],
    aggregates: &[Aggregate],
    meter: &Meter,
) -> Rows<'scope, T> {
    let (columns, plan) = measures(types, key, aggregates);
    let key_width = key.len();
    let rows = map(rows, "GroupInLoop", Project::columns(columns), &meter.preparing());
    let arranged = arrange(rows, "GroupsInLoop", key_width, meter);
    let width = key_width + plan.len();
    let tactic = Groups { key_width, plan, withheld: Withheld::new(), meter: meter.clone() };
    let reduced = reduce_with_tactic::<_, RowSpine<T>, _>(arranged, "ReduceInLoop", tactic);
    meter.hold(&reduced.trace);
    flatten(&readable(reduced), "ReducedInLoop", Project::columns((0..width).collect()), meter)
}

struct Groups<T> {
    key_width: usize,
    plan: Vec<Measure>,
    withheld: Withheld<T>,
    meter: Meter,
}

impl<T: EngineTime> ReduceTactic<T, View<T>, View<T>> for Groups<T> {
    fn retire(
        &mut self,
        source: Vec<View<T>>,
        output: Vec<View<T>>,
        input: Vec<View<T>>,
        lower: &Antichain<T>,
        upper: &Antichain<T>,
        held: &Antichain<T>,
    ) -> (Option<Span<T, View<T>>>, Antichain<T>) {
        let meter = self.meter.clone();
        let due = self.withheld.take_due(upper);
        if input.is_empty() && due.len() == 0 && !meter.failed() {
            return (None, self.withheld.frontier());
        }
        let _timed = meter.timed(Kind::Aggregate);
        match meter.guard("an aggregate", || self.changes(source, output, input, due, upper)) {
            Some(batch) => (Some(span(lower, upper, batch)), self.withheld.frontier()),
            None => (None, held.clone()),
        }
    }
}

impl<T: EngineTime> Groups<T> {
    /// What changes of the groups that have new rows, or are due.
    fn changes(
        &mut self,
        source: Vec<View<T>>,
        output: Vec<View<T>>,
        input: Vec<View<T>>,
        mut due: Due<T>,
        upper: &Antichain<T>,
    ) -> RowBatch<T> {
        let mut all = source.clone();
        all.extend(input.iter().cloned());
        let mut visit = Visit {
            plan: &self.plan,
            source: Cursors::new(source),
            all: Cursors::new(all),
            output: Cursors::new(output),
            input: Cursors::new(input),
            changes: Vec::new(),
        };
        let mut builder = BatchBuilder::new(self.key_width, self.plan.len());
        let mut updates = Updates::<T>::new(self.plan.len());
        let mut key = Vec::with_capacity(self.key_width);
        while let Some(times) = next_key(visit.input.least().map(|key| (key, &[][..])), &mut due, &mut key) {
            let later = visit.key(&key, times, upper);
            self.withheld.withhold(&key, later);
            for (row, time, diff) in visit.changes.drain(..) {
                updates.push(&row, time, diff);
            }
            builder.end_key(&key, &mut updates);
        }
        builder.done()
    }
}

/// The work of one interval.
struct Visit<'a, T: EngineTime> {
    plan: &'a [Measure],
    source: Cursors<T>,
    /// `source` and `input`.
    all: Cursors<T>,
    output: Cursors<T>,
    input: Cursors<T>,
    /// Of the key at hand.
    changes: Vec<(Vec<Word>, T, Diff)>,
}

impl<T: EngineTime> Visit<'_, T> {
    /// Finds what changes of one key; returns times at which it must be visited again.
    fn key(&mut self, key: &[Word], due: Vec<T>, upper: &Antichain<T>) -> Vec<T> {
        let (mut history, mut fresh) = (Vec::new(), Vec::new());
        self.source.find(key);
        self.source.updates(&mut history);
        self.input.find(key);
        self.input.updates(&mut fresh);
        self.all.find(key);
        self.output.find(key);
        let history = history.into_iter().map(|(time, _)| time);
        let mut times: Vec<T> = fresh.into_iter().map(|(time, _)| time).chain(due).collect();
        times.sort_unstable();
        times.dedup();
        // Due times aren't in the history, but what is withheld has none before it that isn't known.
        if is_chain(history.clone(), times.iter().copied()) {
            times.iter().for_each(|&time| self.settle(time));
            return Vec::new();
        }
        let (now, later) = interesting(history, times, upper);
        now.iter().for_each(|&time| self.settle(time));
        later
    }

    /// Makes the output what it has to be as of `time`; all before it is settled.
    fn settle(&mut self, time: T) {
        let current = evaluate(self.plan, &self.all, time);
        let mut wanted: Vec<(Vec<Word>, Diff)> = current.into_iter().map(|row| (row, 1)).collect();
        let mut given = |row: &[Word], count: Diff| match wanted.iter_mut().find(|(known, _)| known == row) {
            Some((_, missing)) => *missing -= count,
            None => wanted.push((row.to_vec(), -count)),
        };
        self.output.values(
            false,
            |t: &T| t.less_equal(&time),
            |row, count| {
                given(row, count);
                true
            },
        );
        for (row, at, diff) in &self.changes {
            if at.less_equal(&time) {
                given(row, *diff);
            }
        }
        self.changes.extend(
            wanted
                .into_iter()
                .filter(|&(_, missing)| missing != 0)
                .map(|(row, missing)| (row, time, missing)),
        );
    }
}
