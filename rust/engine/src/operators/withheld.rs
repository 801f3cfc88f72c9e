//! Keys that a reduction must visit again, where times are ordered in part only.
//!
//! What changes at two times changes anew at their join, which neither of them need have.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use dataflow_protocol::value::Word;
use timely::progress::Antichain;

use crate::container::EngineTime;

/// Keys to be visited again at these times, none of which has come yet.
pub(crate) struct Withheld<T>(BTreeMap<Box<[Word]>, Vec<T>>);

/// Keys whose times have come, in order.
pub(crate) type Due<T> = Peekable<IntoIter<(Box<[Word]>, Vec<T>)>>;

impl<T: EngineTime> Withheld<T> {
    pub(crate) fn new() -> Self {
        Withheld(BTreeMap::new())
    }

    /// Takes out the times that `upper` has passed.
    pub(crate) fn take_due(&mut self, upper: &Antichain<T>) -> Due<T> {
        let mut due = Vec::new();
        self.0.retain(|key, times| {
            let ready: Vec<T> = times.extract_if(.., |time| !upper.less_equal(time)).collect();
            if !ready.is_empty() {
                due.push((key.clone(), ready));
            }
            !times.is_empty()
        });
        due.into_iter().peekable()
    }

    /// Notes later times of a key.
    pub(crate) fn withhold(&mut self, key: &[Word], times: Vec<T>) {
        if !times.is_empty() {
            let entry = self.0.entry(key.into()).or_default();
            entry.extend(times);
            entry.sort_unstable();
            entry.dedup();
        }
    }

    pub(crate) fn frontier(&self) -> Antichain<T> {
        self.0.values().flatten().copied().collect()
    }
}

/// Finds the next key that has `input` or is due, and its due times; `None` where there is no more. Both are in the order of
/// their words, those of the input in two parts.
pub(crate) fn next_key<T>(
    input: Option<(&[Word], &[Word])>,
    due: &mut Due<T>,
    key: &mut Vec<Word>,
) -> Option<Vec<T>> {
    let input = input.filter(|&(first, rest)| {
        due.peek().is_none_or(|(row, _)| (first, rest) <= row.split_at(first.len().min(row.len())))
    });
    key.clear();
    match (input, due.peek()) {
        (Some((first, rest)), _) => {
            key.extend_from_slice(first);
            key.extend_from_slice(rest);
        }
        (None, Some((row, _))) => key.extend_from_slice(row),
        (None, None) => return None,
    }
    Some(due.next_if(|(row, _)| **row == **key).map_or_else(Vec::new, |(_, times)| times))
}

/// Whether `fresh` times, in order, form a chain with all history at or before them.
pub(crate) fn is_chain<T: EngineTime>(
    mut history: impl Iterator<Item = T>,
    mut fresh: impl Iterator<Item = T>,
) -> bool {
    let Some(first) = fresh.next() else { return true };
    let mut last = first;
    let ascending = fresh.all(|time| std::mem::replace(&mut last, time).less_equal(&time));
    ascending && history.all(|time| time.less_equal(&first))
}

/// The times at which a key may change: joins of `fresh` ones with one another and with those of its history. In an
/// order in which what a time depends on comes before it; and those that `upper` hasn't passed apart.
pub(crate) fn interesting<T: EngineTime>(
    history: impl Iterator<Item = T>,
    fresh: Vec<T>,
    upper: &Antichain<T>,
) -> (Vec<T>, Vec<T>) {
    let mut known: Vec<T> = history.chain(fresh.iter().copied()).collect();
    known.sort_unstable();
    known.dedup();
    let mut times = fresh;
    let mut next = 0;
    while next < times.len() {
        let time = times[next];
        next += 1;
        for other in &known {
            let joined = time.join(other);
            if !times.contains(&joined) {
                times.push(joined);
            }
        }
    }
    // The order of `Ord` extends that of progress.
    times.sort_unstable();
    times.dedup();
    times.into_iter().partition(|time| !upper.less_equal(time))
}
