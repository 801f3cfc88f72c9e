//! Each row once: a reduction of our own.
//!
//! Differential's general reduction keeps an input and an output trace and replays the history of every key it
//! visits. Nearly every visit is simpler: the key has no work withheld, and all its history is at or before its new
//! times, which form a chain; then a running count decides, and the output trace isn't read at all. Only the rest
//! takes the general way.

use std::collections::BTreeMap;
use std::rc::Rc;

use dataflow_protocol::value::Word;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::operators::reduce::{ReduceTactic, reduce_with_tactic};
use differential_dataflow::trace::{Description, Span};
use timely::progress::Antichain;

use crate::budget::Kind;
use crate::container::sort::consolidate_times;
use crate::container::{Diff, EngineTime};
use crate::meter::Meter;
use crate::trace::batch::BatchBuilder;
use crate::trace::cursors::Cursors;
use crate::trace::{Agent, RowSpine, View};

/// Rows whose differences add up to more than 0, each once; arranged by the whole row, as `counted` is.
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
    let tactic = Distinct { iterates, withheld: BTreeMap::new(), meter: meter.clone() };
    let arranged = reduce_with_tactic::<_, RowSpine<T>, _>(counted, name, tactic);
    meter.hold(&arranged.trace);
    arranged
}

struct Distinct<T> {
    /// The recursive relation that this is.
    iterates: Option<Rc<str>>,
    meter: Meter,
    /// Rows to be visited again at these times, none of which has come yet.
    withheld: BTreeMap<Box<[Word]>, Vec<T>>,
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
        let due = self.take_due(upper);
        if input.is_empty() && due.is_empty() {
            return (None, self.frontier());
        }
        let width =
            source.iter().chain(&output).chain(&input).next().map_or(0, |view| view.trie().key_width());
        let mut visit = Visit {
            source: Cursors::new(source),
            output: Cursors::new(output),
            input: Cursors::new(input),
            builder: BatchBuilder::new(width, 0),
            upper,
            history: Vec::new(),
            fresh: Vec::new(),
        };
        let mut due = due.into_iter().peekable();
        let mut key: Vec<Word> = Vec::with_capacity(width);
        loop {
            // The next key is the least one that has input or is due.
            let next = match (visit.input.least(), due.peek()) {
                (None, None) => break,
                (Some(key), Some((row, _))) => key.min(row),
                (Some(key), None) => key,
                (None, Some((row, _))) => row,
            };
            key.clear();
            key.extend_from_slice(next);
            let times = due.next_if(|(row, _)| **row == *key).map_or_else(Vec::new, |(_, times)| times);
            if let Some(withheld) = visit.key(&key, times) {
                let entry = self.withheld.entry(key.clone().into_boxed_slice()).or_default();
                entry.extend(withheld);
                entry.sort_unstable();
                entry.dedup();
            }
        }
        let batch = visit.builder.done();
        meter.emitted(batch.len());
        let batch = (batch.len() > 0).then(|| View::from(batch));
        let desc = Description::new(lower.clone(), upper.clone(), Antichain::from_elem(T::minimum()));
        (Some(Span::new(desc, batch)), self.frontier())
    }
}

impl<T: EngineTime> Distinct<T> {
    /// Takes out the withheld times that `upper` has passed.
    fn take_due(&mut self, upper: &Antichain<T>) -> Vec<(Box<[Word]>, Vec<T>)> {
        let mut due = Vec::new();
        self.withheld.retain(|row, times| {
            let ready: Vec<T> = times.extract_if(.., |time| !upper.less_equal(time)).collect();
            if !ready.is_empty() {
                due.push((row.clone(), ready));
            }
            !times.is_empty()
        });
        due
    }

    fn frontier(&self) -> Antichain<T> {
        self.withheld.values().flatten().copied().collect()
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
    /// Produces the output of one key; returns times at which it must be visited again.
    fn key(&mut self, key: &[Word], due: Vec<T>) -> Option<Vec<T>> {
        self.history.clear();
        self.fresh.clear();
        self.source.find(key);
        self.source.updates(&mut self.history);
        self.input.find(key);
        self.input.updates(&mut self.fresh);
        consolidate_times(&mut self.fresh);
        let withheld = if due.is_empty() && self.is_chain() {
            self.run();
            None
        } else {
            self.general(key, due)
        };
        self.builder.end_value(key, &[]);
        withheld
    }

    /// Whether the new times, in order, form a chain with all history at or before them.
    fn is_chain(&self) -> bool {
        let Some((first, _)) = self.fresh.first() else { return true };
        self.fresh.windows(2).all(|pair| pair[0].0.less_equal(&pair[1].0))
            && self.history.iter().all(|(time, _)| time.less_equal(first))
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
    fn general(&mut self, key: &[Word], due: Vec<T>) -> Option<Vec<T>> {
        let mut emitted = Vec::new();
        self.output.find(key);
        self.output.updates(&mut emitted);
        let mut interesting: Vec<T> = self.fresh.iter().map(|&(time, _)| time).chain(due).collect();
        let mut known: Vec<T> = self.history.iter().map(|&(time, _)| time).collect();
        known.extend_from_slice(&interesting);
        known.sort_unstable();
        known.dedup();
        let mut next = 0;
        while next < interesting.len() {
            let time = interesting[next];
            next += 1;
            for other in &known {
                let joined = time.join(other);
                if !interesting.contains(&joined) {
                    interesting.push(joined);
                }
            }
        }
        // The order of `Ord` extends that of progress, so what a time depends on is settled before it.
        interesting.sort_unstable();
        interesting.dedup();
        let (later, now): (Vec<T>, Vec<T>) =
            interesting.into_iter().partition(|time| self.upper.less_equal(time));
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
        (!later.is_empty()).then_some(later)
    }
}
