//! What the planner may know of a relation: how many rows it has, and how many different values its columns.
//!
//! It is one worker's view, put up to the whole cluster: rows are spread over workers by a hash, so each has a fair sample.
//! Plans may be made from it, as a plan is made once and then sequenced; nothing that all workers do by themselves may.

use std::collections::{BTreeMap, BTreeSet};

use dataflow_protocol::ids::RelationId;
use dataflow_protocol::value::Word;
use differential_dataflow::trace::TraceReader;
use serde::Serialize;

use crate::engine::Engine;
use crate::layout::Kept;
use crate::trace::view::views;
use crate::trace::{Agent, View};

/// Rows that are looked at to tell how many different values a column has.
const SAMPLE: usize = 1 << 10;

/// What is known of a relation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Its rows, about.
    pub rows: u64,
    /// For each column the number of different values, about.
    pub distinct: Vec<u64>,
    /// For each arrangement of it the columns, and about how many different values these have together.
    pub keys: Vec<(Vec<usize>, u64)>,
}

impl Engine {
    /// What is known of a relation on a cluster of so many workers.
    pub fn statistics(&self, relation: RelationId, workers: usize) -> Option<Statistics> {
        let stored = self.stored(relation)?;
        let Kept { agent: base, layout } = &stored.base;
        let workers = workers as u64;
        let share = count(base, |view| view.trie().vals()) as u64;
        // Who has no row of a relation that has been written to may have none because there are only few.
        let few = share == 0 && workers > 1 && self.is_written(relation);
        let rows = if few { 1 } else { share * workers };
        let sample = sample(base);
        let distinct =
            |place| estimate(sample.iter().map(|row: &Vec<Word>| row[place]), sample.len() as u64, rows);
        let distinct = layout.positions().into_iter().map(distinct).collect();
        let keys = self.arrangements(relation).chain([(layout.key(), base)]);
        let keys =
            keys.map(|(key, agent)| (key.to_vec(), count(agent, |view| view.trie().keys()) as u64 * workers));
        Some(Statistics { rows, distinct, keys: keys.collect() })
    }
}

fn count(agent: &Agent<u64>, of: impl Fn(&View<u64>) -> usize) -> usize {
    let mut sum = 0;
    agent.map_spans(|span| sum += span.inner.as_ref().map_or(0, &of));
    sum
}

/// Rows at random, or all if they are few; the same ones each time.
fn sample(agent: &Agent<u64>) -> Vec<Vec<Word>> {
    let views = views(agent);
    let total: usize = views.iter().map(|view| view.trie().vals()).sum();
    let row = |mut at: usize| {
        let view = views.iter().find(|view| {
            let here = at < view.trie().vals();
            if !here {
                at -= view.trie().vals();
            }
            here
        });
        view.map_or_else(Vec::new, |view| {
            let trie = view.trie();
            [trie.key(trie.key_of(at)), trie.value(at)].concat()
        })
    };
    if total <= 2 * SAMPLE {
        return (0..total).map(row).collect();
    }
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut places = BTreeSet::new();
    while places.len() < SAMPLE {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        places.insert((random >> 11) as usize % total);
    }
    places.into_iter().map(row).collect()
}

/// About how many different values a column of `rows` rows has, of which a sample is `values` (Haas and Stokes's Duj1).
fn estimate(values: impl Iterator<Item = Word>, sampled: u64, rows: u64) -> u64 {
    let mut seen: BTreeMap<Word, u64> = BTreeMap::new();
    values.for_each(|value| *seen.entry(value).or_default() += 1);
    let distinct = seen.len() as u64;
    if sampled == 0 || sampled >= rows {
        return distinct;
    }
    let once = seen.values().filter(|&&times| times == 1).count() as f64;
    let (sampled, rows) = (sampled as f64, rows as f64);
    let estimated = sampled * distinct as f64 / (sampled - once + once * sampled / rows);
    (estimated as u64).clamp(distinct, rows as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimated(rows: u64, value: impl Fn(u64) -> u64) -> u64 {
        let mut random = 1_u64;
        let places: BTreeSet<u64> = std::iter::repeat_with(|| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (random >> 11) % rows
        })
        .take(SAMPLE)
        .collect();
        let sampled = places.len() as u64;
        estimate(places.into_iter().map(value), sampled, rows)
    }

    #[test]
    fn a_sample_tells_a_key_from_a_flag() {
        let rows = 1_000_000;
        assert_eq!(estimated(rows, |row| row % 2), 2);
        assert!((90..=110).contains(&estimated(rows, |row| row % 100)));
        assert!((5_000..=20_000).contains(&estimated(rows, |row| row % 10_000)));
        assert!(estimated(rows, |row| row) > rows / 2);
    }

    #[test]
    fn what_is_seen_whole_is_known() {
        assert_eq!(estimate([3, 3, 5].into_iter(), 3, 3), 2);
        assert_eq!(estimate([].into_iter(), 0, 0), 0);
    }
}
