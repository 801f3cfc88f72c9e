//! Pairs of rows with equal keys.
//!
//! The work of one fresh batch against the other side's batches is an iterator over output containers, resumed at the
//! pair of values where it stopped, so that the driver can interleave it with everything else a worker does. What counts
//! is the work, not its result: a join whose pairs are all rejected pauses as often as one that keeps them. The driver
//! goes by the records of the containers it is given, so a pause is a container, empty if need be, that is charged with
//! more than the driver has left (`Updates::charged`).

use std::cell::RefCell;
use std::rc::Rc;

use dataflow_protocol::value::Word;
use differential_dataflow::AsCollection;
use differential_dataflow::operators::join::{Fresh, JoinTactic, join_with_tactic};

use super::{ArrangedRows, Rows};
use crate::budget::{Kind, Share};
use crate::container::exchange::rows_per_container;
use crate::container::{Diff, EngineTime, Updates, append};
use crate::expr::Project;
use crate::meter::Meter;
use crate::trace::View;

/// More records than the driver lets a join produce at once.
const PAUSE: i64 = 1 << 40;

/// What becomes of a pair: the projection over key, left value, right value; and the sign of its difference.
#[derive(Clone)]
pub(crate) struct Pairing {
    /// Filters and projection.
    pub(crate) project: Project,
    /// 1, or −1 where the pairs are to be taken away.
    pub(crate) sign: Diff,
}

/// Joins two arrangements that have keys of one width.
pub(crate) fn join<'scope, T: EngineTime>(
    left: ArrangedRows<'scope, T>,
    right: ArrangedRows<'scope, T>,
    name: &str,
    pairing: Pairing,
    meter: &Meter,
) -> Rows<'scope, T> {
    let share = Rc::new(RefCell::new(meter.budget().share()));
    let tactic = FlatJoin { pairing, share, meter: meter.clone() };
    join_with_tactic(left, right, name, tactic).as_collection()
}

struct FlatJoin {
    pairing: Pairing,
    /// The operator's, for all its work.
    share: Rc<RefCell<Share>>,
    meter: Meter,
}

impl<T: EngineTime> JoinTactic<T, View<T>, View<T>, Updates<T>> for FlatJoin {
    fn prep(
        &mut self,
        left: Vec<View<T>>,
        right: Vec<View<T>>,
        fresh: Fresh,
        meet: T,
    ) -> Box<dyn Iterator<Item = Updates<T>>> {
        let (fresh, settled, fresh_is_left) = match fresh {
            Fresh::Input0 => (left, right, true),
            Fresh::Input1 => (right, left, false),
        };
        // Each fresh batch meets each settled one; a settled batch far smaller than the fresh one leads the walk.
        let pairs = fresh
            .iter()
            .flat_map(|fresh| settled.iter().map(move |settled| (fresh.clone(), settled.clone())))
            .map(|(fresh, settled)| Walk::new(fresh, settled))
            .collect();
        let (pairing, share, meter) = (self.pairing.clone(), Rc::clone(&self.share), self.meter.clone());
        Box::new(Work { pairs, fresh_is_left, meet, pairing, share, meter, row: Vec::new() })
    }
}

/// Two batches walked in step, stopped at a pair of values.
struct Walk<T: EngineTime> {
    fresh: View<T>,
    settled: View<T>,
    fresh_key: usize,
    settled_key: usize,
    /// Offsets of the next pair among the values of the matching keys.
    fresh_val: usize,
    settled_val: usize,
}

impl<T: EngineTime> Walk<T> {
    fn new(fresh: View<T>, settled: View<T>) -> Self {
        Walk { fresh, settled, fresh_key: 0, settled_key: 0, fresh_val: 0, settled_val: 0 }
    }

    /// Moves both sides to the next key they share. Each key passed over takes from `effort`; stops when none is left.
    fn align(&mut self, effort: &mut usize) -> Aligned {
        let (fresh, settled) = (self.fresh.trie(), self.settled.trie());
        while self.fresh_key < fresh.keys() && self.settled_key < settled.keys() {
            let key = fresh.key(self.fresh_key);
            self.settled_key = settled.seek(self.settled_key, key);
            if self.settled_key == settled.keys() {
                return Aligned::Done;
            }
            if settled.is_key(self.settled_key, key) {
                return Aligned::Key;
            }
            let found = settled.key(self.settled_key);
            self.fresh_key = fresh.seek(self.fresh_key, found);
            if *effort == 0 {
                return Aligned::Paused;
            }
            *effort -= 1;
        }
        Aligned::Done
    }

    fn next_key(&mut self) {
        self.fresh_key += 1;
        self.settled_key += 1;
        (self.fresh_val, self.settled_val) = (0, 0);
    }
}

/// Where a walk has come to.
enum Aligned {
    /// A key of both sides.
    Key,
    /// No effort is left to look for one.
    Paused,
    /// The end.
    Done,
}

struct Work<T: EngineTime> {
    pairs: Vec<Walk<T>>,
    fresh_is_left: bool,
    meet: T,
    pairing: Pairing,
    share: Rc<RefCell<Share>>,
    meter: Meter,
    row: Vec<Word>,
}

impl<T: EngineTime> Iterator for Work<T> {
    type Item = Updates<T>;

    fn next(&mut self) -> Option<Updates<T>> {
        let meter = self.meter.clone();
        let _timed = meter.timed(Kind::Join);
        // A join that has failed never ends, so that the time it was working at doesn't either.
        let made = meter.guard("a join", || self.container());
        meter.emitted(made.iter().flatten().map(Updates::len).sum());
        made.unwrap_or_else(|| Some(Updates::new(0).charged(PAUSE)))
    }
}

impl<T: EngineTime> Work<T> {
    /// The next container; it may be empty, but charged.
    fn container(&mut self) -> Option<Updates<T>> {
        let width = self.pairing.project.width();
        let full = rows_per_container(width);
        let mut output = Updates::with_capacity(width, full);
        let mut share = self.share.borrow_mut();
        while !self.pairs.is_empty() {
            let mut effort = share.quantum();
            while effort > 0
                && let Some(walk) = self.pairs.last_mut()
            {
                match walk.align(&mut effort) {
                    Aligned::Key => {}
                    Aligned::Paused => break,
                    Aligned::Done => {
                        self.pairs.pop();
                        effort = effort.saturating_sub(1);
                        continue;
                    }
                }
                let pairs = Pairs {
                    fresh_is_left: self.fresh_is_left,
                    meet: self.meet,
                    pairing: &self.pairing,
                    row: &mut self.row,
                    full,
                    effort: &mut effort,
                };
                if pairs.cross(walk, &mut output) {
                    walk.next_key();
                }
                if output.len() >= full {
                    return Some(output);
                }
            }
            if share.spent() {
                return Some(output.charged(PAUSE));
            }
        }
        (!output.is_empty()).then_some(output)
    }
}

/// Pairs of values of one key.
struct Pairs<'a, T: EngineTime> {
    fresh_is_left: bool,
    meet: T,
    pairing: &'a Pairing,
    row: &'a mut Vec<Word>,
    full: usize,
    /// Pairs that may still be looked at.
    effort: &'a mut usize,
}

impl<T: EngineTime> Pairs<'_, T> {
    /// Crosses the values of the keys that `walk` stands at; `false` if there was no room in
    /// `output`, or no effort left, before the last pair.
    fn cross(self, walk: &mut Walk<T>, output: &mut Updates<T>) -> bool {
        let (fresh, settled) = (walk.fresh.trie(), walk.settled.trie());
        let (fresh_vals, settled_vals) = (fresh.values(walk.fresh_key), settled.values(walk.settled_key));
        self.row.clear();
        self.row.extend_from_slice(fresh.key(walk.fresh_key));
        let key_width = self.row.len();
        while walk.fresh_val < fresh_vals.len() {
            let fresh_val = fresh_vals.start + walk.fresh_val;
            // The left value stands still in the row where it can.
            if self.fresh_is_left {
                self.row.truncate(key_width);
                append(self.row, fresh.value(fresh_val));
            }
            let prefix = if self.fresh_is_left { self.row.len() } else { key_width };
            while walk.settled_val < settled_vals.len() {
                if output.len() >= self.full || *self.effort == 0 {
                    return false;
                }
                *self.effort -= 1;
                let settled_val = settled_vals.start + walk.settled_val;
                walk.settled_val += 1;
                self.row.truncate(prefix);
                append(self.row, settled.value(settled_val));
                if !self.fresh_is_left {
                    append(self.row, fresh.value(fresh_val));
                }
                let start = output.row_words().len();
                if self.pairing.project.apply(self.row, output.row_words()) {
                    self.times(&walk.fresh, &walk.settled, fresh_val, settled_val, start, output);
                } else {
                    output.abandon_row();
                }
            }
            walk.settled_val = 0;
            walk.fresh_val += 1;
        }
        true
    }

    /// Gives the row that stands at `start` the times and differences of its pair.
    #[inline]
    fn times(
        &self,
        fresh: &View<T>,
        settled: &View<T>,
        fresh_val: usize,
        settled_val: usize,
        start: usize,
        output: &mut Updates<T>,
    ) {
        let mut first = true;
        for f in fresh.trie().updates(fresh_val) {
            let (time, diff) = (fresh.time(f), fresh.diff(f) * self.pairing.sign);
            for s in settled.trie().updates(settled_val) {
                // The settled side was compacted to the meet of what is to come, the fresh side is at or beyond it.
                let joined = settled.time(s).join(&self.meet).join(&time);
                if !first {
                    let end = start + self.pairing.project.width();
                    output.row_words().extend_from_within(start..end);
                }
                first = false;
                output.end_row(joined, diff * settled.diff(s));
            }
        }
    }
}
