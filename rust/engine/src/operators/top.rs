//! The first rows in an order, kept up to date.
//!
//! Every worker finds the first of its own rows and sends them to one worker, which finds the first of those. Either
//! stage holds its rows in order ([`Ranked`]), so a change costs a few steps in a tree, whatever comes or goes: where one
//! of the first rows leaves, the next one is at hand.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use dataflow_protocol::dictionary::sweep;
use dataflow_protocol::order::{Ranking, Sorter};
use dataflow_protocol::value::{Type, Word};
use differential_dataflow::AsCollection;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::{ParallelizationContract, Pipeline};
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::Operator;

use super::Rows;
use crate::budget::Kind;
use crate::container::exchange::{Route, exchange, rows_per_container};
use crate::container::{Diff, Updates};
use crate::meter::{Held, Meter};
use crate::trace::registry::{self, PIECE, State};

/// What a row takes besides its bytes, about.
const NODE_BYTES: usize = 48;

/// Rows in order, of which the first so many are told apart; copies count.
#[derive(Debug)]
struct Ranked {
    limit: i64,
    first: BTreeMap<Box<[u8]>, Diff>,
    /// Copies in `first`.
    total: i64,
    /// The others, all after those; there are none unless `first` is full.
    rest: BTreeMap<Box<[u8]>, Diff>,
    /// Copies of which there are less than none: a `raw` relation has such.
    owed: BTreeMap<Box<[u8]>, Diff>,
    /// How `first` has changed since it was last asked.
    changed: BTreeMap<Box<[u8]>, Diff>,
    bytes: usize,
    /// The last key that [`Self::show`] has shown.
    seen: Box<[u8]>,
}

/// Adds to a count, which isn't kept at 0; what that changes in bytes.
fn count(counts: &mut BTreeMap<Box<[u8]>, Diff>, key: &[u8], diff: Diff, bytes: &mut usize) {
    match counts.get_mut(key) {
        Some(count) if *count + diff == 0 => {
            counts.remove(key);
            *bytes -= key.len() + NODE_BYTES;
        }
        Some(count) => *count += diff,
        None if diff == 0 => {}
        None => {
            counts.insert(key.into(), diff);
            *bytes += key.len() + NODE_BYTES;
        }
    }
}

impl Ranked {
    fn new(limit: u64) -> Self {
        Ranked {
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            first: BTreeMap::new(),
            total: 0,
            rest: BTreeMap::new(),
            owed: BTreeMap::new(),
            changed: BTreeMap::new(),
            bytes: 0,
            seen: Box::default(),
        }
    }

    fn held(&self) -> (usize, usize) {
        (self.first.len() + self.rest.len() + self.owed.len(), self.bytes)
    }

    /// Adds copies of a row, or takes them away.
    fn change(&mut self, key: &[u8], diff: Diff) {
        if diff > 0 {
            let paid = self.owed.get(key).map_or(0, |owed| diff.min(*owed));
            count(&mut self.owed, key, -paid, &mut self.bytes);
            self.come(key, diff - paid);
        } else {
            self.go(key, -diff);
        }
    }

    fn come(&mut self, key: &[u8], copies: Diff) {
        let before = || self.first.last_key_value().is_some_and(|(last, _)| *key <= **last);
        if self.total >= self.limit && !before() {
            return count(&mut self.rest, key, copies, &mut self.bytes);
        }
        self.enter(key, copies);
        while self.total > self.limit
            && let Some((last, copies)) = self.first.last_key_value()
        {
            let (last, copies) = (last.clone(), (*copies).min(self.total - self.limit));
            self.enter(&last, -copies);
            count(&mut self.rest, &last, copies, &mut self.bytes);
        }
    }

    fn go(&mut self, key: &[u8], copies: Diff) {
        let later = self.rest.get(key).map_or(0, |rest| copies.min(*rest));
        count(&mut self.rest, key, -later, &mut self.bytes);
        let first = self.first.get(key).map_or(0, |first| (copies - later).min(*first));
        self.enter(key, -first);
        count(&mut self.owed, key, copies - later - first, &mut self.bytes);
        while self.total < self.limit
            && let Some((next, copies)) = self.rest.first_key_value()
        {
            let (next, copies) = (next.clone(), (*copies).min(self.limit - self.total));
            count(&mut self.rest, &next, -copies, &mut self.bytes);
            self.enter(&next, copies);
        }
    }

    /// Copies become some of the first ones, or no longer are.
    fn enter(&mut self, key: &[u8], copies: Diff) {
        count(&mut self.first, key, copies, &mut self.bytes);
        count(&mut self.changed, key, copies, &mut self.bytes);
        self.total += copies;
    }

    /// Shows some more of the rows after `seen`, wherever they are, in the order of their keys, and so none is missed that
    /// moves; how many, 0 once there are no more. Some are shown twice.
    fn show(&mut self, rows: usize, mut each: impl FnMut(&[u8])) -> usize {
        let unseen = (Bound::Excluded(&*self.seen), Bound::Unbounded);
        let (mut shown, mut last, mut end) = (0, None, None);
        for counts in [&self.first, &self.rest, &self.owed, &self.changed] {
            let (mut own, mut until) = (0, None);
            for (key, _) in counts.range::<[u8], _>(unseen).take(rows) {
                each(key);
                (own, until) = (own + 1, Some(key));
            }
            shown += own;
            last = last.max(until);
            if own == rows {
                end = end.into_iter().chain(until).min();
            }
        }
        if let Some(seen) = end.or(last) {
            self.seen = seen.clone();
        }
        shown
    }

    /// How the first rows have changed since the last call.
    fn take(&mut self) -> BTreeMap<Box<[u8]>, Diff> {
        let changed = std::mem::take(&mut self.changed);
        self.bytes -= changed.keys().map(|key| key.len() + NODE_BYTES).sum::<usize>();
        changed
    }
}

/// The rows of `ranking` among `rows`, whose columns have these `types`; `since` is the time at which they begin. On
/// worker `seat`, if there are several.
pub(crate) fn top<'scope>(
    rows: Rows<'scope, u64>,
    types: &[Type],
    ranking: &Ranking,
    since: u64,
    seat: usize,
    meter: &Meter,
) -> (Rows<'scope, u64>, Vec<Held>) {
    let stage = |filter: &[(usize, Word)], lead: Option<Word>, skip: usize| Stage {
        sorter: Sorter::new(types, &ranking.order),
        ranked: Ranked::new(ranking.limit),
        filter: filter.to_vec(),
        lead,
        skip,
        waiting: BTreeMap::new(),
        open: since,
        row: Vec::new(),
        key: Vec::new(),
    };
    let peers = rows.inner.scope().peers();
    if peers == 1 {
        let (rows, held) = build(rows, Pipeline, "First", stage(&ranking.filter, None, 0), meter);
        return (rows, vec![held]);
    }
    let lead = Some((seat % peers) as Word);
    let (rows, own) = build(rows, Pipeline, "FirstHere", stage(&ranking.filter, lead, 0), meter);
    let (rows, all) = build(rows, exchange(Route::First), "First", stage(&[], None, 1), meter);
    (rows, vec![own, all])
}

/// One of the two stages, on one worker.
struct Stage {
    sorter: Sorter,
    ranked: Ranked,
    filter: Vec<(usize, Word)>,
    /// A word that rows are sent on with, before their own.
    lead: Option<Word>,
    /// Words of rows that come in, before their own.
    skip: usize,
    /// What is to happen later than `open`.
    waiting: BTreeMap<u64, Updates<u64>>,
    /// Everything before this time has been told; what `ranked` holds is on the way to it.
    open: u64,
    row: Vec<Word>,
    key: Vec<u8>,
}

impl State for RefCell<Stage> {
    fn begin(&self) {
        self.borrow_mut().ranked.seen = Box::default();
    }

    fn mark(&self) -> usize {
        let Stage { ranked, sorter, row, .. } = &mut *self.borrow_mut();
        let width = sorter.width().max(1);
        let rows = ranked.show(PIECE.div_ceil(width), |key| {
            sorter.read(key, row);
            sweep::mark(row);
        });
        rows * width
    }
}

impl Stage {
    fn accept(&mut self, updates: &Updates<u64>) {
        for index in 0..updates.len() {
            let (row, time, diff) =
                (&updates.row(index)[self.skip..], updates.time(index), updates.diff(index));
            if self.filter.iter().any(|&(column, word)| row.get(column) != Some(&word)) {
                continue;
            }
            if time > self.open {
                let later = self.waiting.entry(time).or_insert_with(|| Updates::new(row.len()));
                later.push(row, time, diff);
            } else {
                self.change(row, diff);
            }
        }
    }

    /// The least time that something is to be told of, if something may be.
    fn least(&self) -> Option<u64> {
        if self.ranked.changed.is_empty() { self.waiting.keys().next().copied() } else { Some(self.open) }
    }

    /// Tells what has changed, time by time up to where nothing more can come; each time in containers.
    fn advance(&mut self, frontier: Option<u64>, mut tell: impl FnMut(u64, &mut Updates<u64>)) {
        let passed = |time: u64| frontier.is_none_or(|frontier| time < frontier);
        while passed(self.open) {
            self.tell(&mut tell);
            let Some(entry) = self.waiting.first_entry().filter(|entry| passed(*entry.key())) else { break };
            let (time, updates) = entry.remove_entry();
            self.open = time;
            self.apply(&updates);
        }
        if let Some(frontier) = frontier.filter(|frontier| *frontier > self.open) {
            self.open = frontier;
            if let Some(updates) = self.waiting.remove(&frontier) {
                self.apply(&updates);
            }
        }
    }

    fn apply(&mut self, updates: &Updates<u64>) {
        registry::moves(updates.words());
        for index in 0..updates.len() {
            self.change(updates.row(index), updates.diff(index));
        }
    }

    fn change(&mut self, row: &[Word], diff: Diff) {
        self.sorter.write(row, &mut self.key);
        self.ranked.change(&self.key, diff);
    }

    fn tell(&mut self, tell: &mut impl FnMut(u64, &mut Updates<u64>)) {
        let width = self.sorter.width() + usize::from(self.lead.is_some());
        let mut told = Updates::new(width);
        for (key, diff) in self.ranked.take() {
            self.sorter.read(&key, &mut self.row);
            let words = told.row_words();
            words.extend(self.lead);
            words.extend(&self.row);
            told.end_row(self.open, diff);
            if told.len() >= rows_per_container(width) {
                tell(self.open, &mut told);
                told = Updates::new(width);
            }
        }
        if !told.is_empty() {
            tell(self.open, &mut told);
        }
    }
}

fn build<'scope>(
    rows: Rows<'scope, u64>,
    pact: impl ParallelizationContract<u64, Updates<u64>>,
    name: &str,
    stage: Stage,
    meter: &Meter,
) -> (Rows<'scope, u64>, Held) {
    let held = Rc::new(Cell::new((0, 0)));
    let stage = Rc::new(RefCell::new(stage));
    registry::state(&stage);
    let (figures, meter) = (Rc::clone(&held), meter.clone());
    let rows = rows.inner.unary_frontier::<NoopBuilder<Updates<u64>>, _, _, _>(pact, name, move |_, _| {
        let mut capabilities = CapabilitySet::<u64>::new();
        move |(input, frontier), output| {
            let _timed = meter.timed(Kind::Aggregate);
            let mut stage = stage.borrow_mut();
            input.for_each(|time, updates| {
                if let Some(capability) = time.retain_least(0) {
                    capabilities.insert(capability);
                }
                registry::moves(updates.words());
                stage.accept(updates);
                updates.clear();
            });
            stage.advance(frontier.frontier().first().copied(), |time, told| {
                registry::moves(told.words());
                output.session_with_builder(&capabilities.delayed(&time)).give_container(told);
            });
            match stage.least() {
                Some(least) if capabilities.first().is_some_and(|held| *held.time() < least) => {
                    capabilities.downgrade([least]);
                }
                Some(_) => {}
                None => capabilities.downgrade(Vec::<u64>::new()),
            }
            figures.set(stage.ranked.held());
        }
    });
    (rows.as_collection(), held)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first `limit` copies of what `counts` holds.
    fn sorted(counts: &BTreeMap<u8, Diff>, limit: i64) -> BTreeMap<u8, Diff> {
        let mut left = limit;
        let mut first = BTreeMap::new();
        for (&key, &count) in counts {
            let taken = count.clamp(0, left);
            left -= taken;
            if taken > 0 {
                first.insert(key, taken);
            }
        }
        first
    }

    proptest! {
           #[test]
           fn the_first_rows_are_those_of_the_sorted_list_after_every_change(
               changes in prop::collection::vec((0u8..12, -2i64..4, any::<bool>()), 1..120),
               limit in 0u64..8,
           ) {
               let mut ranked = Ranked::new(limit);
               let (mut counts, mut told) = (BTreeMap::new(), BTreeMap::new());
               for (key, diff, ask) in changes {
                   ranked.change(&[key], diff);
                   *counts.entry(key).or_default() += diff;
                   if ask {
                       for (key, diff) in ranked.take() {
                           prop_assert!(diff != 0);
                           *told.entry(key[0]).or_default() += diff;
                       }
                       told.retain(|_, count| *count != 0);
                       prop_assert_eq!(&told, &sorted(&counts, limit as i64));
                       prop_assert_eq!(ranked.bytes, ranked.held().0 * (1 + NODE_BYTES));
                   }
               }
           }

           #[test]
           fn what_stays_is_shown_wherever_it_moves_meanwhile(
               before in prop::collection::vec((0u8..40, -2i64..4), 0..80),
               meanwhile in prop::collection::vec((0u8..40, -2i64..4), 0..80),
               (limit, rows) in (0u64..30, 1usize..6),
           ) {
               let mut ranked = Ranked::new(limit);
               before.iter().for_each(|&(key, diff)| ranked.change(&[key], diff));
               let mut seen = std::collections::BTreeSet::new();
               let mut meanwhile = meanwhile.into_iter();
               while ranked.show(rows, |key| {
    seen.insert(key[0]);
    }) > 0 {
                   if let Some((key, diff)) = meanwhile.next() {
                       // As the operator tells of what comes.
                       seen.insert(key);
                       ranked.change(&[key], diff);
                   }
               }
               let Ranked { first, rest, owed, changed, .. } = &ranked;
               for key in [first, rest, owed, changed].into_iter().flat_map(BTreeMap::keys) {
                   prop_assert!(seen.contains(&key[0]), "{key:?} of {ranked:?}");
               }
               ranked.seen = Box::default();
               let mut again = 0;
               while ranked.show(1000, |_| again += 1) > 0 {}
               prop_assert!(again >= ranked.held().0);
           }

           #[test]
           fn nothing_is_left_of_what_came_and_went(keys in prop::collection::vec(0u8..20, 0..60), limit in 0u64..8) {
               let mut ranked = Ranked::new(limit);
               keys.iter().for_each(|&key| ranked.change(&[key], 1));
               keys.iter().rev().for_each(|&key| ranked.change(&[key], -1));
               prop_assert_eq!(ranked.held(), (0, 0));
               prop_assert!(ranked.take().is_empty());
           }
       }
}
