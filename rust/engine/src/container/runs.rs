//! Many sorted runs read as one, without being copied into one first.

use dataflow_protocol::value::Word;

use super::column::EngineTime;
use super::search::bisect;
use super::sort::consolidate_times;
use super::updates::{Diff, Updates};

/// Calls `each` with every distinct row of consolidated runs of one width, in order, and with the row's consolidated
/// times; rows whose differences cancel are left out.
pub(crate) fn merge_runs<'a, T: EngineTime>(
    runs: &'a [Updates<T>],
    mut each: impl FnMut(&'a [Word], &mut Vec<(T, Diff)>),
) {
    match runs.first().map_or(0, Updates::width) {
        0 => merge_by(runs, |_, _| (), &mut each),
        1 => merge_by(runs, |run, index| narrow::<1, T>(run, index), &mut each),
        2 => merge_by(runs, |run, index| narrow::<2, T>(run, index), &mut each),
        // What mostly tells wider rows apart stands where they are compared, not where they are kept.
        _ => merge_by(
            runs,
            |run, index| {
                let row = run.row(index);
                ([row[0], row[1]], &row[2..])
            },
            &mut each,
        ),
    }
}

/// Updates of the longest run that [`shrink`] looks at, and at most so many times as many of each.
const SAMPLE: usize = 256;

/// Whether merging leaves out a quarter of the updates or more, judged by some in the middle.
pub(crate) fn shrink<T: EngineTime>(runs: &[Updates<T>]) -> bool {
    let Some(longest) = runs.iter().max_by_key(|run| run.len()).filter(|run| !run.is_empty()) else {
        return false;
    };
    let middle = longest.len() / 2;
    let (first, last) = (longest.row(middle), longest.row((middle + SAMPLE).min(longest.len()) - 1));
    let sample = |run: &Updates<T>| {
        let start = bisect(0..run.len(), |at| run.row(at) < first);
        let end = bisect(start..run.len(), |at| run.row(at) <= last).min(start + 16 * SAMPLE);
        let mut sample = Updates::with_capacity(run.width(), end - start);
        sample.extend_from(run, start..end);
        sample
    };
    let samples: Vec<Updates<T>> = runs.iter().map(sample).collect();
    let (all, mut left) = (samples.iter().map(Updates::len).sum::<usize>(), 0);
    merge_runs(&samples, |_, times| left += times.len());
    left <= all - all / 4
}

/// Narrow rows, the usual ones, are compared as arrays.
#[inline]
fn narrow<const N: usize, T: EngineTime>(run: &Updates<T>, index: usize) -> [Word; N] {
    run.words().as_chunks::<N>().0[index]
}

fn merge_by<'a, K: Ord + Copy, T: EngineTime>(
    runs: &'a [Updates<T>],
    key: impl Fn(&'a Updates<T>, usize) -> K,
    each: &mut impl FnMut(&'a [Word], &mut Vec<(T, Diff)>),
) {
    let head = |run: usize, at: usize| (at < runs[run].len()).then(|| key(&runs[run], at));
    let mut next = vec![0; runs.len()];
    let mut heads = Tournament::new((0..runs.len()).map(|run| head(run, 0)).collect());
    let mut times = Vec::new();
    while let Some((run, row)) = heads.least() {
        let at = next[run];
        times.clear();
        let (mut from, mut current) = (run, Some(row));
        while current == Some(row) {
            let index = next[from];
            times.push((runs[from].time(index), runs[from].diff(index)));
            next[from] += 1;
            heads.replace(from, head(from, index + 1));
            (from, current) = heads.least().map_or((from, None), |(run, row)| (run, Some(row)));
        }
        consolidate_times(&mut times);
        if !times.is_empty() {
            each(runs[run].row(at), &mut times);
        }
    }
}

/// A tournament of losers: the least of many heads, at about one comparison for each doubling of their number.
struct Tournament<K> {
    /// Of each run, what it has next.
    heads: Vec<Option<K>>,
    /// Losers of the matches, the first match at 1; that of 0 is the winner of all.
    losers: Vec<usize>,
}

impl<K: Ord + Copy> Tournament<K> {
    fn new(mut heads: Vec<Option<K>>) -> Self {
        let size = heads.len().next_power_of_two();
        heads.resize(size, None);
        let mut tournament = Tournament { heads, losers: vec![0; size] };
        tournament.losers[0] = tournament.play(1);
        tournament
    }

    /// Plays all matches below `matched`; the winner.
    fn play(&mut self, matched: usize) -> usize {
        let size = self.losers.len();
        if matched >= size {
            return matched - size;
        }
        let (left, right) = (self.play(2 * matched), self.play(2 * matched + 1));
        let (winner, loser) = if self.beats(right, left) { (right, left) } else { (left, right) };
        self.losers[matched] = loser;
        winner
    }

    /// Whether `left`'s head is less; runs that have ended lose against all.
    #[inline]
    fn beats(&self, left: usize, right: usize) -> bool {
        match (&self.heads[left], &self.heads[right]) {
            (Some(left), Some(right)) => left < right,
            (left, _) => left.is_some(),
        }
    }

    #[inline]
    fn least(&self) -> Option<(usize, K)> {
        let winner = self.losers[0];
        self.heads[winner].map(|head| (winner, head))
    }

    /// Gives the run that has the least head its next one.
    #[inline]
    fn replace(&mut self, run: usize, head: Option<K>) {
        self.heads[run] = head;
        let mut winner = run;
        let mut matched = (run + self.losers.len()) / 2;
        while matched > 0 {
            let other = self.losers[matched];
            if self.beats(other, winner) {
                self.losers[matched] = winner;
                winner = other;
            }
            matched /= 2;
        }
        self.losers[0] = winner;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::container::sort::consolidate;
    use crate::random::random;

    #[test]
    fn runs_merge_to_what_they_add_up_to() {
        let mut state = 7u64;
        let mut random = move |below| random(&mut state, below);
        for width in 0..6usize {
            for count in [0usize, 1, 2, 3, 5, 8, 13] {
                let mut sums: BTreeMap<(Vec<Word>, u64), Diff> = BTreeMap::new();
                let mut runs = Vec::new();
                for _ in 0..count {
                    let mut run = Updates::<u64>::new(width);
                    for _ in 0..random(40) {
                        let row: Vec<Word> = (0..width).map(|_| random(3)).collect();
                        let (time, diff) = (random(3), random(3) as i64 - 1);
                        run.push(&row, time, diff);
                        *sums.entry((row, time)).or_default() += diff;
                    }
                    consolidate(&mut run);
                    runs.push(run);
                }
                let mut found = Vec::new();
                merge_runs(&runs, |row, times| {
                    found.extend(times.iter().map(|&(time, diff)| ((row.to_vec(), time), diff)));
                });
                let expected: Vec<_> = sums.into_iter().filter(|(_, diff)| *diff != 0).collect();
                assert_eq!(found, expected, "{count} runs of width {width}");
            }
        }
    }

    #[test]
    fn what_would_be_left_out_is_judged_by_the_middle() {
        let run = |first: u64, rows: u64, step: u64| {
            let mut run = Updates::<u64>::new(1);
            (0..rows).for_each(|row| run.push(&[first + row * step], 0, 1));
            run
        };
        let equal = [run(0, 5_000, 3), run(0, 5_000, 3)];
        assert!(shrink(&equal));
        assert!(!shrink(&[run(0, 5_000, 3), run(1, 5_000, 3)]));
        // Of unequal lengths: the short one's few rows are all in the long one, which they leave as long as it is.
        assert!(!shrink(&[run(0, 50_000, 1), run(0, 50, 1_000)]));
        assert!(!shrink(&equal[..1]) && !shrink::<u64>(&[]) && !shrink(&[run(0, 0, 1), run(0, 0, 1)]));
        // Many equal rows of no width, each at a time of its own, differ.
        let mut empty = Updates::<u64>::new(0);
        (0..10_000).for_each(|time| empty.push(&[], time, 1));
        assert!(!shrink(&[empty.clone()]));
        assert!(shrink(&[empty.clone(), empty]));
    }
}
