//! Rows that are there for some time by the cluster's clock.
//!
//! A row has a time from which on it is there, and one from which on it isn't. What hasn't come yet, and what is there but
//! will go, waits in the order of these times; a tick touches what is due and nothing else. What is gone for good isn't
//! kept, since the clock doesn't go back; nor is what will never go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use dataflow_protocol::dictionary::sweep;
use dataflow_protocol::value::Word;
use differential_dataflow::AsCollection;
use timely::container::NoopBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::Operator;

use super::Rows;
use crate::budget::Kind;
use crate::container::exchange::rows_per_container;
use crate::container::{Diff, Updates};
use crate::expr::Project;
use crate::meter::{Held, Meter};
use crate::trace::registry::{self, PIECE, State};

/// What a row takes besides its words, about.
const NODE_BYTES: usize = 48;

/// The end of what never ends.
const NEVER: Word = Word::MAX;

/// What a program's dataflow sees of the clock.
#[derive(Clone)]
pub(crate) struct Clock<'scope> {
    /// At each time at which the clock moves, what it shows from then on: as a word, an instant or its µs as a number.
    pub(crate) ticks: Stream<'scope, u64, Vec<Word>>,
    /// Rows that windows have looked at: those that came in, and those that were due.
    pub(crate) looked_at: Rc<Cell<u64>>,
}

/// Rows with the copies of each.
type Waiting = BTreeMap<Box<[Word]>, Diff>;

/// The rows of one window on one worker that may still come or go.
#[derive(Debug, Default)]
struct Window {
    now: Option<Word>,
    /// Since when, until when, and the row.
    coming: Waiting,
    /// Until when, and the row.
    going: Waiting,
    bytes: usize,
    looked_at: u64,
    shown: Shown,
}

/// How far a window's rows have been seen: those coming up to a key, then those going. Rows move from the former to the latter,
/// so none is missed that stays.
#[derive(Debug, Default)]
struct Shown {
    coming: bool,
    up_to: Box<[Word]>,
}

impl Window {
    fn held(&self) -> (usize, usize) {
        (self.coming.len() + self.going.len(), self.bytes)
    }

    /// Copies of a row come or go, which is there from `since` on and no longer at `until`.
    fn update(
        &mut self,
        since: Word,
        until: Word,
        row: &[Word],
        diff: Diff,
        emit: &mut dyn FnMut(&[Word], Diff),
    ) {
        self.looked_at += 1;
        let now = self.now.unwrap_or_default();
        if until <= since || (self.now.is_some() && until <= now) {
            return;
        }
        if self.now.is_none() || now < since {
            return wait(&mut self.coming, &[since, until], row, diff, &mut self.bytes);
        }
        emit(row, diff);
        if until != NEVER {
            wait(&mut self.going, &[until], row, diff, &mut self.bytes);
        }
    }

    /// Shows some more of the rows that were there when `shown` was new, and are; how many words, 0 once there are no more.
    fn show(&mut self, mut each: impl FnMut(&[Word])) -> usize {
        loop {
            let waiting = if self.shown.coming { &self.going } else { &self.coming };
            let (mut words, mut last) = (0, None);
            let unseen = (Bound::Excluded(&*self.shown.up_to), Bound::Unbounded);
            for (key, _) in waiting.range::<[Word], _>(unseen) {
                each(key);
                words += key.len();
                last = Some(key);
                if words >= PIECE {
                    break;
                }
            }
            match last {
                Some(last) => self.shown.up_to = last.clone(),
                None if !self.shown.coming => self.shown = Shown { coming: true, ..Shown::default() },
                None => return 0,
            }
            if words > 0 {
                return words;
            }
        }
    }

    /// The clock shows `now`.
    fn tick(&mut self, now: Word, emit: &mut dyn FnMut(&[Word], Diff)) {
        if self.now.is_some_and(|before| before >= now) {
            return;
        }
        self.now = Some(now);
        while let Some(first) = self.going.first_entry().filter(|first| first.key()[0] <= now) {
            let (key, copies) = first.remove_entry();
            self.bytes -= size(&key);
            self.looked_at += 1;
            emit(&key[1..], -copies);
        }
        while let Some(first) = self.coming.first_entry().filter(|first| first.key()[0] <= now) {
            let (key, copies) = first.remove_entry();
            self.bytes -= size(&key);
            self.looked_at += 1;
            let (until, row) = (key[1], &key[2..]);
            if until > now {
                emit(row, copies);
                if until != NEVER {
                    wait(&mut self.going, &[until], row, copies, &mut self.bytes);
                }
            }
        }
    }
}

fn size(key: &[Word]) -> usize {
    size_of_val(key) + NODE_BYTES
}

/// Adds to the copies of a row that waits; none is kept at 0.
fn wait(waiting: &mut Waiting, bounds: &[Word], row: &[Word], diff: Diff, bytes: &mut usize) {
    if diff == 0 {
        return;
    }
    let key: Box<[Word]> = bounds.iter().chain(row).copied().collect();
    let copies = waiting.get(&key).copied().unwrap_or_default() + diff;
    if copies == 0 {
        *bytes -= size(&key);
        waiting.remove(&key);
    } else {
        if copies == diff {
            *bytes += size(&key);
        }
        waiting.insert(key, copies);
    }
}

/// The rows of `rows` that are there by the clock. `bounds` gives the times of a row: `since` of them from which on
/// it is there, the others from which on it isn't.
pub(crate) fn window<'scope>(
    rows: Rows<'scope, u64>,
    clock: Clock<'scope>,
    width: usize,
    bounds: Project,
    since: usize,
    meter: &Meter,
) -> Rows<'scope, u64> {
    let held: Held = Rc::new(Cell::new((0, 0)));
    meter.hold_waiting(&held);
    let meter = meter.clone();
    let stage = Rc::new(RefCell::new(Stage {
        window: Window::default(),
        bounds,
        since,
        width,
        rows: BTreeMap::new(),
        ticks: BTreeMap::new(),
        words: Vec::new(),
    }));
    registry::state(&stage);
    rows.inner
        .binary_frontier::<_, NoopBuilder<Updates<u64>>, _, _, _, _>(
            clock.ticks,
            Pipeline,
            Pipeline,
            "Window",
            move |_, _| {
                let mut capabilities = CapabilitySet::<u64>::new();
                move |(rows, rows_frontier), (ticks, ticks_frontier), output| {
                    let _timed = meter.timed(Kind::Aggregate);
                    let mut stage = stage.borrow_mut();
                    rows.for_each(|time, updates| {
                        time.retain_least(0).into_iter().for_each(|held| capabilities.insert(held));
                        stage.accept(std::mem::take(updates));
                    });
                    ticks.for_each(|time, shown| {
                        let at = time.least().copied().unwrap_or_default();
                        time.retain_least(0).into_iter().for_each(|held| capabilities.insert(held));
                        let latest = stage.ticks.entry(at).or_default();
                        shown.drain(..).for_each(|now| *latest = now.max(*latest));
                    });
                    let first = |frontier: &timely::progress::frontier::MutableAntichain<u64>| {
                        frontier.frontier().first().copied().unwrap_or(u64::MAX)
                    };
                    let (settled, known) = (first(rows_frontier), first(ticks_frontier));
                    let done = meter.guard("a window", || {
                        stage.work(settled, known, &mut |time, told| {
                            meter.emitted(told.len());
                            registry::moves(told.words());
                            output.session_with_builder(&capabilities.delayed(&time)).give_container(told);
                        });
                    });
                    clock.looked_at.set(clock.looked_at.get() + std::mem::take(&mut stage.window.looked_at));
                    held.set(stage.window.held());
                    if done.is_none() {
                        return;
                    }
                    match stage.least() {
                        Some(least) if capabilities.first().is_some_and(|held| *held.time() < least) => {
                            capabilities.downgrade([least]);
                        }
                        Some(_) => {}
                        None => capabilities.downgrade(Vec::<u64>::new()),
                    }
                }
            },
        )
        .as_collection()
}

/// The operator's state: the window, and what can't be put into it yet.
struct Stage {
    window: Window,
    bounds: Project,
    since: usize,
    width: usize,
    rows: BTreeMap<u64, Vec<Updates<u64>>>,
    ticks: BTreeMap<u64, Word>,
    words: Vec<Word>,
}

/// Rows that aren't in the window yet are told of when they come into it: until those of a time have, the time isn't over.
impl State for RefCell<Stage> {
    fn begin(&self) {
        self.borrow_mut().window.shown = Shown::default();
    }

    fn mark(&self) -> usize {
        self.borrow_mut().window.show(sweep::mark)
    }
}

impl Stage {
    fn accept(&mut self, updates: Updates<u64>) {
        if let Some(time) = updates.times().uniform() {
            return self.rows.entry(time).or_default().push(updates);
        }
        for index in 0..updates.len() {
            let parts = self.rows.entry(updates.time(index)).or_default();
            if parts.is_empty() {
                parts.push(Updates::new(self.width));
            }
            if let Some(last) = parts.last_mut() {
                last.push(updates.row(index), updates.time(index), updates.diff(index));
            }
        }
    }

    /// The least time at which something waits.
    fn least(&self) -> Option<u64> {
        let (rows, ticks) = (self.rows.keys().next(), self.ticks.keys().next());
        rows.into_iter().chain(ticks).min().copied()
    }

    /// Goes on time by time. Rows at a time are looked at by what the clock shows then: once no row of an earlier time
    /// can come (`settled`) and no tick up to it (`known`).
    fn work(&mut self, settled: u64, known: u64, tell: &mut dyn FnMut(u64, &mut Updates<u64>)) {
        while let Some(time) = self.least().filter(|time| *time <= settled && *time < known) {
            let width = self.width;
            let mut told = Updates::new(width);
            let mut emit = |row: &[Word], diff: Diff| {
                told.push(row, time, diff);
                if told.len() >= rows_per_container(width) {
                    tell(time, &mut told);
                    told = Updates::new(width);
                }
            };
            if let Some(now) = self.ticks.remove(&time) {
                self.window.tick(now, &mut emit);
            }
            for updates in self.rows.remove(&time).unwrap_or_default() {
                registry::moves(updates.words());
                for index in 0..updates.len() {
                    let row = updates.row(index);
                    self.words.clear();
                    if self.bounds.apply(row, &mut self.words) {
                        let (since, until) = self.words.split_at(self.since);
                        let since = since.iter().copied().max().unwrap_or_default();
                        let until = until.iter().copied().min().unwrap_or(NEVER);
                        self.window.update(since, until, row, updates.diff(index), &mut emit);
                    }
                }
            }
            if !told.is_empty() {
                tell(time, &mut told);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_there_is_what_the_bounds_say_after_every_change(
            changes in prop::collection::vec((0u64..4, 0u64..9, 0u64..11, -2i64..3, any::<bool>()), 1..80),
        ) {
            let mut window = Window::default();
            let mut rows: BTreeMap<(u64, Word, Word), Diff> = BTreeMap::new();
            let mut told: BTreeMap<u64, Diff> = BTreeMap::new();
            let mut now = None;
            for (row, since, until, diff, tick) in changes {
                let mut emit = |row: &[Word], diff: Diff| *told.entry(row[0]).or_default() += diff;
                let until = if until == 10 { NEVER } else { until };
                if tick {
                    now = Some(now.map_or(since, |now: u64| now + since % 3));
                    window.tick(now.unwrap(), &mut emit);
                } else {
                    window.update(since, until, &[row], diff, &mut emit);
                    *rows.entry((row, since, until)).or_default() += diff;
                }
                let mut expected: BTreeMap<u64, Diff> = BTreeMap::new();
                for (&(row, since, until), &copies) in &rows {
                    if now.is_some_and(|now| since <= now && now < until) {
                        *expected.entry(row).or_default() += copies;
                    }
                }
                told.retain(|_, copies| *copies != 0);
                expected.retain(|_, copies| *copies != 0);
                prop_assert_eq!(&told, &expected);
                let words: usize = window.coming.keys().chain(window.going.keys()).map(|key| size(key)).sum();
                prop_assert_eq!(window.bytes, words);
            }
        }
    }

    #[test]
    fn what_stays_is_shown_piece_by_piece_wherever_it_moves_meanwhile() {
        let rows = 5 * PIECE as u64;
        let mut window = Window::default();
        let mut emit = |_: &[Word], _: Diff| {};
        window.tick(0, &mut emit);
        // Half of them are there already; a tick moves some more, and takes others away.
        for row in 0..rows {
            window.update(row % 2 * (row + 10), 10 * rows + row, &[row], 1, &mut emit);
        }
        let mut seen = std::collections::BTreeSet::new();
        let mut pieces = 0;
        loop {
            let words = window.show(|key| {
                seen.insert(key[key.len() - 1]);
            });
            if words == 0 {
                break;
            }
            assert!(words < PIECE + 3, "{words} words at once");
            pieces += 1;
            window.tick(pieces * rows / 12, &mut emit);
        }
        assert!(pieces > 10 && window.coming.len() < rows as usize / 3, "{pieces}, {}", window.coming.len());
        assert!((0..rows).all(|row| seen.contains(&row)));
        window.shown = Shown::default();
        assert!(window.show(|_| ()) > 0, "and anew");
    }

    #[test]
    fn a_tick_looks_at_what_is_due_alone() {
        let mut window = Window::default();
        let mut emit = |_: &[Word], _: Diff| {};
        window.tick(5, &mut emit);
        for row in 0..100 {
            window.update(row, row + 10, &[row], 1, &mut emit);
        }
        assert_eq!(std::mem::take(&mut window.looked_at), 100);
        window.tick(6, &mut emit);
        assert_eq!(std::mem::take(&mut window.looked_at), 1, "the row of 6 comes, none goes");
        window.tick(200, &mut emit);
        assert_eq!(window.held(), (0, 0), "nothing is kept of what is gone");
    }
}
