//! One row a key: aggregates over the rows of a group.
//!
//! Counts and integer sums are running totals, kept without the rows themselves. The others look at the group again
//! when it changes; a least or greatest value looks no further than the first that is there, since the values of a key
//! stand in order. Only texts don't, longer ones being words of no order: a group of them is looked at where its least or
//! greatest has gone and nothing better has come.

use std::cmp::Ordering;

use dataflow_protocol::plan::{Aggregate, AggregateFunc};
use dataflow_protocol::value::{Type, Word, from_float, from_number, to_float, to_number};
use differential_dataflow::operators::reduce::{ReduceTactic, reduce_with_tactic};
use differential_dataflow::trace::Span;
use timely::progress::Antichain;

use super::Rows;
use super::arrange::{arrange, arrange_folded, readable};
use super::linear::{flatten, map};
use crate::budget::Kind;
use crate::container::{Diff, EngineTime};
use crate::expr::functions::compare;
use crate::expr::totals::{Total, from_integer};
use crate::expr::{Project, Scalar};
use crate::meter::Meter;
use crate::trace::batch::BatchBuilder;
use crate::trace::cursors::Cursors;
use crate::trace::totals::TotalsBatcher;
use crate::trace::view::span;
use crate::trace::{RowBatch, RowSpine, View};

/// The rows of a reduction: key columns, then one column an aggregate. `types` are those of the input's columns.
pub(crate) fn reduce<'scope>(
    rows: Rows<'scope, u64>,
    types: &[Type],
    key: &[usize],
    aggregates: &[Aggregate],
    meter: &Meter,
) -> Rows<'scope, u64> {
    if aggregates.iter().all(|aggregate| is_total(aggregate, types)) {
        totals(rows, types, key, aggregates, meter)
    } else {
        groups(rows, types, key, aggregates, meter)
    }
}

fn column_type(aggregate: &Aggregate, types: &[Type]) -> Type {
    aggregate.column.and_then(|column| types.get(column).copied()).unwrap_or(Type::Number)
}

fn is_total(aggregate: &Aggregate, types: &[Type]) -> bool {
    let integer = column_type(aggregate, types) != Type::Float;
    match aggregate.func {
        AggregateFunc::Count => true,
        AggregateFunc::Sum | AggregateFunc::Mean => integer,
        AggregateFunc::Min | AggregateFunc::Max => false,
    }
}

/// Running totals: a count, and the halves of each column that is added up.
fn totals<'scope>(
    rows: Rows<'scope, u64>,
    types: &[Type],
    key: &[usize],
    aggregates: &[Aggregate],
    meter: &Meter,
) -> Rows<'scope, u64> {
    let key_width = key.len();
    let mut columns = key.to_vec();
    let mut finish: Vec<Scalar> = (0..key_width).map(Scalar::Col).collect();
    for aggregate in aggregates {
        let summed = matches!(aggregate.func, AggregateFunc::Sum | AggregateFunc::Mean);
        let place =
            aggregate.column.filter(|_| summed).map_or(0, |column| place(&mut columns, key_width, column));
        // In the totals the count comes between the key and the sums, of which each column has two.
        let total = Total {
            func: aggregate.func,
            ty: column_type(aggregate, types),
            count: key_width,
            sum: key_width + 1 + 2 * place,
        };
        finish.push(Scalar::Total(total));
    }
    let summands = columns.len() - key_width;
    let project = Project::columns(columns);
    let rows = if project.is_identity(types.len()) {
        rows
    } else {
        map(rows, "Summands", project, &meter.preparing())
    };
    let arranged = arrange_folded(rows, "Totals", key_width, meter, |prior| {
        let batcher = TotalsBatcher::new(key_width, summands, prior, meter);
        meter.hold_waiting(batcher.held());
        batcher
    });
    flatten(&readable(arranged), "Finish", Project::scalars(finish), meter)
}

/// Where a column stands among those behind the key; it is added if it isn't there.
fn place(columns: &mut Vec<usize>, key_width: usize, column: usize) -> usize {
    let behind = &columns[key_width..];
    behind.iter().position(|&other| other == column).unwrap_or_else(|| {
        columns.push(column);
        columns.len() - 1 - key_width
    })
}

/// The groups themselves, looked at again when they change.
fn groups<'scope>(
    rows: Rows<'scope, u64>,
    types: &[Type],
    key: &[usize],
    aggregates: &[Aggregate],
    meter: &Meter,
) -> Rows<'scope, u64> {
    let (columns, plan) = measures(types, key, aggregates);
    let key_width = key.len();
    let rows = map(rows, "Group", Project::columns(columns), &meter.preparing());
    let arranged = arrange(rows, "Groups", key_width, meter);
    let width = key_width + plan.len();
    let tactic = Groups { key_width, plan, meter: meter.clone() };
    let reduced = reduce_with_tactic::<_, RowSpine<u64>, _>(arranged, "Reduce", tactic);
    meter.hold(&reduced.trace);
    flatten(&readable(reduced), "Reduced", Project::columns((0..width).collect()), meter)
}

/// The columns of a group, and what is taken of them.
pub(super) fn measures(
    types: &[Type],
    key: &[usize],
    aggregates: &[Aggregate],
) -> (Vec<usize>, Vec<Measure>) {
    let mut columns = key.to_vec();
    let mut plan = Vec::new();
    for aggregate in aggregates {
        let column = aggregate.column.map_or(0, |column| {
            columns.push(column);
            columns.len() - 1 - key.len()
        });
        plan.push(Measure { func: aggregate.func, ty: column_type(aggregate, types), column });
    }
    (columns, plan)
}

/// An aggregate of a column of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    func: AggregateFunc,
    ty: Type,
    column: usize,
}

struct Groups {
    key_width: usize,
    plan: Vec<Measure>,
    meter: Meter,
}

impl ReduceTactic<u64, View<u64>, View<u64>> for Groups {
    fn retire(
        &mut self,
        source: Vec<View<u64>>,
        output: Vec<View<u64>>,
        input: Vec<View<u64>>,
        lower: &Antichain<u64>,
        upper: &Antichain<u64>,
        held: &Antichain<u64>,
    ) -> (Option<Span<u64, View<u64>>>, Antichain<u64>) {
        let meter = self.meter.clone();
        if input.is_empty() && !meter.failed() {
            return (None, Antichain::new());
        }
        let _timed = meter.timed(Kind::Aggregate);
        match meter.guard("an aggregate", || self.changes(source, output, input)) {
            Some(batch) => (Some(span(lower, upper, batch)), Antichain::new()),
            None => (None, held.clone()),
        }
    }
}

impl Groups {
    /// What changes of the groups that have new rows.
    fn changes(
        &self,
        source: Vec<View<u64>>,
        output: Vec<View<u64>>,
        input: Vec<View<u64>>,
    ) -> RowBatch<u64> {
        let mut all = source;
        all.extend(input.iter().cloned());
        let (mut all, mut output, mut input) = (Cursors::new(all), Cursors::new(output), Cursors::new(input));
        let mut builder = BatchBuilder::new(self.key_width, self.plan.len());
        let mut changes = crate::container::Updates::<u64>::new(self.plan.len());
        let (mut fresh, mut before) = (Vec::new(), Vec::new());
        while let Some(key) = input.least().map(<[Word]>::to_vec) {
            input.find(&key);
            all.find(&key);
            output.find(&key);
            fresh.clear();
            input.updates(&mut fresh);
            fresh.sort_unstable();
            fresh.dedup_by_key(|(time, _)| *time);
            let mut settled = output.single(&mut before).then(|| before.clone());
            for &(time, _) in &fresh {
                let kept = match settled.as_deref() {
                    Some(&[extreme]) if fresh.len() == 1 => {
                        self.extreme_of_texts(extreme, &all, &input, time)
                    }
                    _ => None,
                };
                let current = kept.map(|word| vec![word]).or_else(|| evaluate(&self.plan, &all, time));
                if current != settled {
                    settled.iter().for_each(|row| changes.push(row, time, -1));
                    current.iter().for_each(|row| changes.push(row, time, 1));
                    settled = current;
                }
            }
            builder.end_key(&key, &mut changes);
        }
        builder.done()
    }

    /// The least or greatest text, if the one from before or one that has come is it: texts are words that stand in no order
    /// of theirs, so that another has to be looked for among all. `input` has what changed, all of it at `time`.
    fn extreme_of_texts(
        &self,
        before: Word,
        all: &Cursors<u64>,
        input: &Cursors<u64>,
        time: u64,
    ) -> Option<Word> {
        let [Measure { func, ty, .. }] = self.plan[..] else { return None };
        let better = match func {
            AggregateFunc::Min => Ordering::Less,
            AggregateFunc::Max => Ordering::Greater,
            _ => return None,
        };
        if !ty.ordered_by_bytes() {
            return None;
        }
        let until = |t: &u64| *t <= time;
        let mut best = (all.count(&[before], until) > 0).then_some(before);
        input.values(false, until, |value, diff| {
            let [word] = *value else { return true };
            // What comes is better than all only if it is better than what was best, whether or not that has gone.
            if diff > 0
                && compare(ty, word, best.unwrap_or(before)) == Some(better)
                && all.count(value, until) > 0
            {
                best = Some(word);
            }
            true
        });
        best
    }
}

/// The aggregates over the key found, as of `time`; `None` for an empty group.
pub(super) fn evaluate<T: EngineTime>(plan: &[Measure], group: &Cursors<T>, time: T) -> Option<Vec<Word>> {
    let until = |t: &T| t.less_equal(&time);
    if let [Measure { func: func @ (AggregateFunc::Min | AggregateFunc::Max), ty, .. }] = plan
        && !ty.ordered_by_bytes()
    {
        let mut extreme = None;
        group.values(*func == AggregateFunc::Max, until, |value, count| {
            extreme = (count > 0).then(|| value.to_vec());
            extreme.is_none()
        });
        return extreme;
    }
    let mut states: Vec<State> = plan.iter().map(|_| State::default()).collect();
    let mut rows: Diff = 0;
    group.values(false, until, |value, count| {
        if count > 0 {
            rows += count;
            for (state, measure) in states.iter_mut().zip(plan) {
                state.add(measure, value, count);
            }
        }
        true
    });
    (rows > 0).then(|| states.iter().zip(plan).map(|(state, measure)| state.finish(measure, rows)).collect())
}

/// What is known of a group's column so far.
#[derive(Default)]
struct State {
    least: Option<Word>,
    greatest: Option<Word>,
    float: f64,
    integer: i128,
}

impl State {
    fn add(&mut self, measure: &Measure, value: &[Word], count: Diff) {
        if measure.func == AggregateFunc::Count {
            return;
        }
        let word = value[measure.column];
        let order = |best: Word| compare(measure.ty, word, best).unwrap_or(Ordering::Equal);
        self.least = Some(self.least.map_or(word, |least| if order(least).is_lt() { word } else { least }));
        self.greatest =
            Some(self.greatest.map_or(word, |best| if order(best).is_gt() { word } else { best }));
        match measure.ty {
            Type::Float => self.float += to_float(word) * count as f64,
            _ => {
                self.integer =
                    self.integer.wrapping_add(integer(measure.ty, word).wrapping_mul(i128::from(count)))
            }
        }
    }

    fn finish(&self, measure: &Measure, rows: Diff) -> Word {
        match measure.func {
            AggregateFunc::Count => from_number(rows),
            AggregateFunc::Min => self.least.unwrap_or(0),
            AggregateFunc::Max => self.greatest.unwrap_or(0),
            AggregateFunc::Sum if measure.ty == Type::Float => from_float(self.float),
            AggregateFunc::Sum => from_integer(measure.ty, self.integer),
            AggregateFunc::Mean if measure.ty == Type::Float => from_float(self.float / rows as f64),
            AggregateFunc::Mean => from_float(self.integer as f64 / rows as f64),
        }
    }
}

fn integer(ty: Type, word: Word) -> i128 {
    match ty {
        Type::Number => i128::from(to_number(word)),
        _ => i128::from(word),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dataflow_protocol::dictionary;
    use proptest::prelude::*;

    use super::*;

    /// Copies of texts, by key.
    type Model = BTreeMap<(Word, Word), Diff>;

    fn text(number: u8) -> Word {
        dictionary::announced(format!("a text that is long enough for a word: {number}").as_str()).unwrap()
    }

    fn batch(changes: &Model, time: u64) -> View<u64> {
        let mut builder = BatchBuilder::new(1, 1);
        for ((key, value), diff) in changes {
            builder.push_update(time, *diff);
            builder.end_value(&[*key], &[*value]);
        }
        View::from(builder.done())
    }

    /// For each key the least or greatest text of which there are copies.
    fn extremes(model: &Model, func: AggregateFunc) -> BTreeMap<Word, Word> {
        let mut found: BTreeMap<Word, Word> = BTreeMap::new();
        for ((key, value), _) in model.iter().filter(|(_, copies)| **copies > 0) {
            let wanted = if func == AggregateFunc::Min { Ordering::Less } else { Ordering::Greater };
            let best = found.entry(*key).or_insert(*value);
            if compare(Type::Symbol, *value, *best) == Some(wanted) {
                *best = *value;
            }
        }
        found
    }

    fn follow(func: AggregateFunc, steps: &[Vec<(u8, u8, i8)>], times: u64) {
        let groups = Groups {
            key_width: 1,
            plan: vec![Measure { func, ty: Type::Symbol, column: 0 }],
            meter: Meter::default(),
        };
        let (mut model, mut told, mut source, mut output) = (Model::new(), Model::new(), vec![], vec![]);
        for (at, step) in (0u64..).zip(steps) {
            // Steps that come together are of several times.
            let mut input = Vec::new();
            for part in 0..times {
                let mut changes = Model::new();
                for (key, value, diff) in step.iter().skip(part as usize).step_by(times as usize) {
                    *changes.entry((Word::from(key % 3), text(value % 12))).or_default() += Diff::from(*diff);
                }
                changes.retain(|_, diff| *diff != 0);
                for (row, diff) in &changes {
                    *model.entry(*row).or_default() += diff;
                }
                input.push(batch(&changes, at * times + part));
            }
            let changed = View::from(groups.changes(source.clone(), output.clone(), input.clone()));
            let mut cursors = Cursors::new(vec![changed.clone()]);
            while let Some(key) = cursors.least().map(<[Word]>::to_vec) {
                cursors.find(&key);
                cursors.values(
                    false,
                    |_| true,
                    |value, diff| {
                        *told.entry((key[0], value[0])).or_default() += diff;
                        true
                    },
                );
            }
            told.retain(|_, copies| *copies != 0);
            source.extend(input);
            output.push(changed);
            let expected = extremes(&model, func).into_iter().map(|row| (row, 1)).collect::<Model>();
            assert_eq!(told, expected, "{func:?} after step {at}");
        }
    }

    proptest! {
        #[test]
        fn extremes_of_texts_follow_what_comes_and_goes(
            steps in prop::collection::vec(
                prop::collection::vec((any::<u8>(), any::<u8>(), -2i8..3), 1..5), 1..30),
            times in 1u64..3,
        ) {
            follow(AggregateFunc::Min, &steps, times);
            follow(AggregateFunc::Max, &steps, times);
        }
    }
}
