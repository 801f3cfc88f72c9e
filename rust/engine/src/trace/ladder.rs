//! Updates that wait until their times are over.

use std::collections::BTreeMap;
use std::ops::Range;

use dataflow_protocol::value::Word;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use crate::container::runs::{merge_runs, shrink};
use crate::container::sort::consolidate;
use crate::container::{Diff, EngineTime, TimeColumn, Updates};
use crate::meter::Held;

/// Updates gathered before they are sorted as one run.
pub(crate) const RUN_ROWS: usize = 1 << 16;

/// Runs of about one length that are merged to one if that leaves out much: what adds up to nothing is to be found out
/// before it takes much space.
const FAN: usize = 8;

/// Runs of about one length that are merged to one in any case. More, since all that is gained is that fewer are read
/// at once when a batch is made.
const WIDE_FAN: usize = 64;

/// What waits. An update is looked at when a batch is made; if its time isn't over, once more when it is, however many
/// batches are made until then.
pub(crate) struct Ladder<T: EngineTime> {
    /// What came since a batch was last made.
    recent: Runs<T>,
    /// What wasn't over by then.
    later: BTreeMap<T, Runs<T>>,
    /// Rows and bytes of `later`.
    later_held: (usize, usize),
    /// What is in it, for those who watch.
    held: Held,
}

impl<T: EngineTime> Default for Ladder<T> {
    fn default() -> Self {
        let (recent, later) = (Runs::default(), BTreeMap::new());
        Ladder { recent, later, later_held: (0, 0), held: Held::default() }
    }
}

impl<T: EngineTime> Ladder<T> {
    /// Takes all updates out of the container.
    pub(crate) fn insert(&mut self, updates: &mut Updates<T>) {
        self.recent.insert(updates);
        self.note();
    }

    /// Rows and bytes in it, kept up to date.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    fn note(&self) {
        let (rows, bytes) = self.recent.held();
        self.held.set((rows + self.later_held.0, bytes + self.later_held.1));
    }

    /// Takes out the updates at times not in advance of `upper`; leaves in `retained` a lower bound of the others'
    /// times.
    pub(crate) fn extract(&mut self, upper: AntichainRef<T>, retained: &mut Antichain<T>) -> Extracted<T> {
        let mut ready = self.over(upper);
        let Runs { pending, sorted } = std::mem::take(&mut self.recent);
        self.deal(pending, upper, &mut ready, |runs, mut pending| runs.insert(&mut pending));
        for run in sorted {
            self.deal(run, upper, &mut ready, Runs::push);
        }
        retained.clear();
        self.later_held = (0, 0);
        for (&time, runs) in &self.later {
            retained.insert(time);
            let (rows, bytes) = runs.held();
            self.later_held = (self.later_held.0 + rows, self.later_held.1 + bytes);
        }
        self.note();
        Extracted { runs: ready.into_sorted() }
    }

    /// What has waited for its time and is over.
    fn over(&mut self, upper: AntichainRef<T>) -> Runs<T> {
        let times: Vec<T> = self.later.keys().filter(|time| !upper.less_equal(time)).copied().collect();
        let mut ready = Runs::default();
        for Runs { mut pending, sorted } in times.iter().filter_map(|time| self.later.remove(time)) {
            ready.insert(&mut pending);
            sorted.into_iter().for_each(|run| ready.push(run));
        }
        ready
    }

    /// Puts updates where those of their times are: as a whole by `whole`, where they can stay together.
    fn deal(
        &mut self,
        updates: Updates<T>,
        upper: AntichainRef<T>,
        ready: &mut Runs<T>,
        whole: impl Fn(&mut Runs<T>, Updates<T>),
    ) {
        if let Some(time) = updates.times().uniform() {
            let waits = upper.less_equal(&time);
            return whole(if waits { self.later.entry(time).or_default() } else { ready }, updates);
        }
        if (0..updates.len()).all(|index| !upper.less_equal(&updates.time(index))) {
            return whole(ready, updates);
        }
        let mut start = 0;
        while start < updates.len() {
            let time = updates.time(start);
            let same = (start..updates.len()).take_while(|&index| updates.time(index) == time).count();
            let waits = upper.less_equal(&time);
            let runs = if waits { self.later.entry(time).or_default() } else { &mut *ready };
            runs.append(&updates, start..start + same);
            start += same;
        }
    }
}

/// Updates in any order and sorted runs, each long run after at most a few of its length; they are read as one when a
/// batch is made.
struct Runs<T: EngineTime> {
    pending: Updates<T>,
    sorted: Vec<Updates<T>>,
}

impl<T: EngineTime> Default for Runs<T> {
    fn default() -> Self {
        Runs { pending: Updates::default(), sorted: Vec::new() }
    }
}

impl<T: EngineTime> Runs<T> {
    fn insert(&mut self, updates: &mut Updates<T>) {
        if self.pending.is_empty() && !updates.is_empty() {
            self.pending = std::mem::take(updates);
            self.seal_if_full();
        } else {
            self.append(updates, 0..updates.len());
            updates.clear();
        }
    }

    fn append(&mut self, updates: &Updates<T>, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        if self.pending.is_empty() {
            self.pending = Updates::new(updates.width());
        }
        self.pending.extend_from(updates, range);
        self.seal_if_full();
    }

    fn seal_if_full(&mut self) {
        if self.pending.len() >= RUN_ROWS {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let mut run = std::mem::take(&mut self.pending);
        consolidate(&mut run);
        self.push(run);
    }

    /// Adds a sorted run.
    fn push(&mut self, run: Updates<T>) {
        if run.is_empty() {
            return;
        }
        let mut longest = level(run.len());
        self.sorted.push(run);
        loop {
            let alike = self.sorted.iter().rev().take_while(|run| level(run.len()) <= longest).count();
            let looked_at = &self.sorted[self.sorted.len() - alike..];
            let worth = alike >= FAN && alike.is_power_of_two() && shrink(looked_at);
            if alike < WIDE_FAN && !worth {
                return;
            }
            let runs = self.sorted.split_off(self.sorted.len() - alike);
            let rows = runs.iter().map(Updates::len).sum();
            let mut merged = Updates::with_capacity(runs[0].width(), rows);
            merge_runs(&runs, |row, times| {
                times.iter().for_each(|&(time, diff)| merged.push(row, time, diff))
            });
            if merged.is_empty() {
                return;
            }
            longest = level(merged.len());
            self.sorted.push(merged);
        }
    }

    fn into_sorted(mut self) -> Vec<Updates<T>> {
        self.seal();
        self.sorted
    }

    /// Rows and bytes in it.
    fn held(&self) -> (usize, usize) {
        let all = || self.sorted.iter().chain([&self.pending]);
        (all().map(Updates::len).sum(), all().map(Updates::heap_bytes).sum())
    }
}

/// How often runs of this length may have been merged.
fn level(rows: usize) -> u32 {
    (rows / RUN_ROWS).checked_ilog(FAN).map_or(0, |level| level + 1)
}

/// What a [`Ladder`] gave away: sorted runs.
pub(crate) struct Extracted<T: EngineTime> {
    pub(super) runs: Vec<Updates<T>>,
}

impl<T: EngineTime> Extracted<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Number of updates, not counting that some may cancel.
    pub(crate) fn len(&self) -> usize {
        self.runs.iter().map(Updates::len).sum()
    }

    /// Calls `each` with every row, in order, and its consolidated times.
    pub(crate) fn for_each<'a>(&'a self, each: impl FnMut(&'a [Word], &mut Vec<(T, Diff)>)) {
        merge_runs(&self.runs, each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Inner;
    use crate::random::random;

    type Sums<T> = BTreeMap<(T, Vec<Word>), Diff>;

    /// Takes out what is over, and compares it and what is left with `model`, from which it is taken too.
    fn extract<T: EngineTime>(ladder: &mut Ladder<T>, upper: &Antichain<T>, model: &mut Sums<T>) {
        let mut retained = Antichain::new();
        let extracted = ladder.extract(upper.borrow(), &mut retained);
        let mut found = Vec::new();
        extracted.for_each(|row, times| {
            found.extend(times.iter().map(|&(time, diff)| ((time, row.to_vec()), diff)));
        });
        found.sort();
        let mut expected = std::mem::take(model);
        *model = expected.extract_if(.., |(time, _), _| upper.less_equal(time)).collect();
        assert_eq!(found, expected.into_iter().filter(|&(_, diff)| diff != 0).collect::<Vec<_>>());
        assert!(model.keys().all(|(time, _)| retained.less_equal(time)));
    }

    fn agrees_with_sums<T: EngineTime>(seed: u64, times: impl Fn(&mut u64) -> T, uppers: &[Antichain<T>]) {
        let state = &mut seed.clone();
        let (mut ladder, mut model) = (Ladder::default(), Sums::new());
        for upper in uppers {
            for _ in 0..random(state, 4) {
                let (mut updates, one) = (Updates::new(2), times(state));
                let mixed = random(state, 2) == 0;
                for _ in 0..random(state, 30) {
                    let time = if mixed { times(state) } else { one };
                    if !upper.less_equal(&time) && random(state, 2) == 0 {
                        continue;
                    }
                    let row = [random(state, 3), random(state, 3)];
                    let diff = random(state, 3) as Diff - 1;
                    updates.push(&row, time, diff);
                    *model.entry((time, row.to_vec())).or_default() += diff;
                }
                ladder.insert(&mut updates);
                assert!(updates.is_empty());
            }
            extract(&mut ladder, upper, &mut model);
        }
        extract(&mut ladder, &Antichain::new(), &mut model);
        assert_eq!(ladder.held().get(), (0, 0));
    }

    #[test]
    fn what_is_over_is_given_away_and_the_rest_waits() {
        for seed in 0..50 {
            let uppers: Vec<_> = (0..20).map(Antichain::from_elem).collect();
            agrees_with_sums::<u64>(seed, |state| random(state, 25), &uppers);
            let inner = |state: &mut u64| Inner::new(random(state, 5), random(state, 5) as u32);
            let uppers: Vec<_> =
                (0..6).map(|at| Antichain::from_iter([Inner::new(at, 3), Inner::new(at + 1, 0)])).collect();
            agrees_with_sums::<Inner>(seed, inner, &uppers);
        }
    }

    #[test]
    fn what_waits_stays_where_it_is() {
        let (mut ladder, mut retained) = (Ladder::<u64>::default(), Antichain::new());
        let mut updates = Updates::new(1);
        (0..1000).for_each(|word| updates.push(&[word], word % 100, 1));
        ladder.insert(&mut updates);
        let _ = ladder.extract(AntichainRef::new(&[1]), &mut retained);
        let place = |ladder: &Ladder<u64>| ladder.later[&99].pending.words().as_ptr();
        let before = place(&ladder);
        for upper in 2..99 {
            assert_eq!(ladder.extract(AntichainRef::new(&[upper]), &mut retained).len(), 10);
            assert_eq!((place(&ladder), retained.elements()), (before, &[upper][..]));
        }
        assert_eq!(ladder.held().get().0, 20);
    }

    /// The lengths of runs after so many full ones of rows that `word` gives, in full runs.
    fn lengths(runs: u64, word: impl Fn(u64, u64) -> u64) -> Vec<usize> {
        let mut ladder = Ladder::<u64>::default();
        for run in 0..runs {
            let mut updates = Updates::new(1);
            (0..RUN_ROWS as u64).for_each(|row| updates.push(&[word(run, row)], 0, 1));
            ladder.insert(&mut updates);
        }
        ladder.recent.sorted.iter().map(|run| run.len() / RUN_ROWS).collect()
    }

    #[test]
    fn runs_that_are_alike_are_merged_early() {
        // Each row comes twice: in this run and in the next. What eight runs leave is one of about their length.
        let twice = |run: u64, row: u64| row * 30 + run / 2;
        assert_eq!(lengths(8, twice), [4]);
        assert_eq!(lengths(15, twice), [8]);
    }

    #[test]
    fn runs_that_differ_are_merged_late_and_only_with_their_like() {
        let once = |run: u64, row: u64| row * 100 + run;
        assert_eq!(lengths(63, once), [1; 63]);
        assert_eq!(lengths(67, once), [64, 1, 1, 1]);
    }
}
