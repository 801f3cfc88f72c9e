//! Running totals: a batcher that adds up what it is given.
//!
//! Rows aren't kept until their time is over, only the groups that they fall into: each row is looked up by its key and
//! added to the totals of its group at its time. When the time is over, the groups are put in order and added to
//! what the arrangement holds.

use std::collections::BTreeMap;

use dataflow_protocol::value::Word;
use differential_dataflow::batcher::{Batcher, Extract};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::batch::{BatchBuilder, RowBatch};
use super::cursors::Cursors;
use super::fold::Prior;
use crate::budget::Kind;
use crate::container::exchange::hash;
use crate::container::sort::consolidate;
use crate::container::{Diff, Updates};
use crate::meter::{Held, Meter};

/// Rows of a key and columns to add up become one row a key: a count, and for each column the sums of the upper and the
/// lower halves of its words, wrapping at 64 bits. The count may be negative: a `raw` relation can have less than nothing
/// of a row.
pub(crate) struct TotalsBatcher {
    key_width: usize,
    /// Columns added up.
    columns: usize,
    /// What came, by time.
    waiting: BTreeMap<u64, Groups>,
    retained: Antichain<u64>,
    prior: Prior<u64>,
    held: Held,
    meter: Meter,
}

impl TotalsBatcher {
    pub(crate) fn new(key_width: usize, columns: usize, prior: Prior<u64>, meter: &Meter) -> Self {
        TotalsBatcher {
            key_width,
            columns,
            waiting: BTreeMap::new(),
            retained: Antichain::new(),
            prior,
            held: Held::default(),
            meter: meter.clone(),
        }
    }

    /// Groups and bytes that wait.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    fn note(&self) {
        let groups = self.waiting.values();
        self.held.set(
            groups.fold((0, 0), |(count, bytes), groups| (count + groups.len(), bytes + groups.heap_bytes())),
        );
    }

    /// The groups of times that are over, in order: key, time, place.
    fn ordered(&self, ready: &BTreeMap<u64, Groups>) -> Updates<u64> {
        let count = ready.values().map(Groups::len).sum();
        let mut order = Updates::with_capacity(self.key_width + 2, count);
        for (&time, groups) in ready {
            for place in 0..groups.len() {
                let words = order.row_words();
                words.extend_from_slice(groups.key(place));
                words.extend([time, place as Word]);
                order.end_row(0, 1);
            }
        }
        consolidate(&mut order);
        order
    }

    /// What changes of the arrangement's rows by groups in order.
    fn changes(&self, ready: &BTreeMap<u64, Groups>) -> RowBatch<u64> {
        let width = 1 + 2 * self.columns;
        let mut prior = Cursors::new(self.prior.views());
        let mut builder = BatchBuilder::new(self.key_width, width);
        let (order, mut changes) = (self.ordered(ready), Updates::new(width));
        let (mut before, mut totals) = (Vec::new(), Vec::new());
        let mut next = 0;
        while next < order.len() {
            let key = &order.row(next)[..self.key_width];
            prior.find(key);
            if !prior.single(&mut totals) {
                totals.clear();
                totals.resize(width, 0);
            }
            while next < order.len()
                && let (same, &[time, place]) = order.row(next).split_at(self.key_width)
                && same == key
            {
                before.clone_from(&totals);
                ready[&time].add_to(&mut totals, place as usize);
                if totals != before {
                    // Totals below nothing (a `raw` relation can have them) are kept too; readers skip them.
                    let something = |totals: &[Word]| totals.iter().any(|&word| word != 0);
                    if something(&before) {
                        changes.push(&before, time, -1);
                    }
                    if something(&totals) {
                        changes.push(&totals, time, 1);
                    }
                }
                next += 1;
            }
            builder.end_key(key, &mut changes);
        }
        builder.done()
    }
}

impl Batcher<Updates<u64>> for TotalsBatcher {
    fn insert(&mut self, rows: &mut Updates<u64>) {
        let _timed = self.meter.timed(Kind::Sort);
        let mut index = 0;
        while index < rows.len() {
            let time = rows.time(index);
            let groups =
                self.waiting.entry(time).or_insert_with(|| Groups::new(self.key_width, self.columns));
            let uniform = rows.times().uniform().is_some();
            while index < rows.len() && (uniform || rows.time(index) == time) {
                groups.add(rows.row(index), rows.diff(index));
                index += 1;
            }
        }
        rows.clear();
        self.note();
    }
}

impl Extract for TotalsBatcher {
    type Time = u64;
    type Output = RowBatch<u64>;

    fn extract<'a>(
        &'a mut self,
        upper: AntichainRef<'_, u64>,
    ) -> (Option<RowBatch<u64>>, AntichainRef<'a, u64>) {
        let meter = self.meter.clone();
        let _timed = meter.timed(Kind::Seal);
        let later = upper.first().map_or_else(BTreeMap::new, |upper| self.waiting.split_off(upper));
        let ready = std::mem::replace(&mut self.waiting, later);
        self.retained.clear();
        self.retained.extend(self.waiting.keys().next().copied());
        let batch = (!ready.is_empty()).then(|| self.changes(&ready)).filter(|batch| batch.len() > 0);
        self.note();
        (batch, self.retained.borrow())
    }
}

/// Totals of one time, found by their key.
struct Groups {
    key_width: usize,
    /// Words of totals.
    width: usize,
    keys: Vec<Word>,
    totals: Vec<Word>,
    /// Places of groups, each where its hash leads to or behind, with the upper half of the hash. A power of two.
    slots: Vec<Slot>,
}

/// The upper half of a hash, and one more than the place of the group; empty at 0.
type Slot = (u32, u32);

impl Groups {
    fn new(key_width: usize, columns: usize) -> Self {
        let slots = vec![Slot::default(); 16];
        Groups { key_width, width: 1 + 2 * columns, keys: Vec::new(), totals: Vec::new(), slots }
    }

    fn len(&self) -> usize {
        self.totals.len() / self.width
    }

    fn heap_bytes(&self) -> usize {
        8 * (self.keys.capacity() + self.totals.capacity() + self.slots.capacity())
    }

    fn key(&self, place: usize) -> &[Word] {
        &self.keys[place * self.key_width..(place + 1) * self.key_width]
    }

    #[inline]
    fn add(&mut self, row: &[Word], diff: Diff) {
        let (key, columns) = row.split_at(self.key_width);
        let start = self.place(key) * self.width;
        let (count, sums) = (diff as Word, &mut self.totals[start..start + self.width]);
        sums[0] = sums[0].wrapping_add(count);
        for (halves, &word) in sums[1..].as_chunks_mut::<2>().0.iter_mut().zip(columns) {
            halves[0] = halves[0].wrapping_add((word >> 32).wrapping_mul(count));
            halves[1] = halves[1].wrapping_add((word & Word::from(u32::MAX)).wrapping_mul(count));
        }
    }

    /// Adds the group at `place` to others.
    fn add_to(&self, totals: &mut [Word], place: usize) {
        let own = &self.totals[place * self.width..(place + 1) * self.width];
        totals.iter_mut().zip(own).for_each(|(total, &own)| *total = total.wrapping_add(own));
    }

    /// The place of a key's group, which is made if there is none.
    #[inline]
    fn place(&mut self, key: &[Word]) -> usize {
        let hash = hash(key);
        let (tag, mask) = ((hash >> 32) as u32, self.slots.len() - 1);
        let mut at = hash as usize & mask;
        loop {
            let (other, next) = self.slots[at];
            if next == 0 {
                return self.insert(key, at, tag);
            }
            let place = next as usize - 1;
            if other == tag && self.key(place).iter().eq(key) {
                return place;
            }
            at = (at + 1) & mask;
        }
    }

    fn insert(&mut self, key: &[Word], slot: usize, tag: u32) -> usize {
        let place = self.len();
        self.slots[slot] = (tag, place as u32 + 1);
        self.keys.extend_from_slice(key);
        self.totals.resize(self.totals.len() + self.width, 0);
        if 2 * (place + 1) > self.slots.len() {
            self.grow();
        }
        place
    }

    #[cold]
    fn grow(&mut self) {
        let mut slots = vec![Slot::default(); 2 * self.slots.len()];
        let mask = slots.len() - 1;
        for place in 0..self.len() {
            let hash = hash(self.key(place));
            let mut at = hash as usize & mask;
            while slots[at].1 != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = ((hash >> 32) as u32, place as u32 + 1);
        }
        self.slots = slots;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random;

    #[test]
    fn groups_add_up_by_time_and_come_in_order() {
        for key_width in 0..3usize {
            let mut batcher = TotalsBatcher::new(key_width, 1, Prior::default(), &Meter::default());
            // By key and time: the count, and the sum of words that need both halves.
            let mut sums: BTreeMap<(Vec<Word>, u64), [Diff; 3]> = BTreeMap::new();
            let mut state = 3u64;
            let mut random = move |below| random(&mut state, below);
            for _ in 0..50 {
                let mut rows = Updates::new(key_width + 1);
                for _ in 0..40 {
                    let (time, diff) = (1 + random(3), random(3) as Diff - 1);
                    let mut row: Vec<Word> = (0..key_width).map(|_| random(40)).collect();
                    let group = sums.entry((row.clone(), time)).or_default();
                    let word = random(3) << 32 | random(5);
                    let added = [1, word >> 32, word & 0xffff_ffff];
                    group.iter_mut().zip(added).for_each(|(sum, added)| *sum += added as Diff * diff);
                    row.push(word);
                    rows.push(&row, time, diff);
                }
                batcher.insert(&mut rows);
            }
            let mut found = Vec::new();
            for upper in [3, 4] {
                let (batch, later) = batcher.extract(Antichain::from_elem(upper).borrow());
                assert_eq!(later.first(), (upper == 3).then_some(&3));
                let batch = batch.expect("there were rows at that time");
                let trie = batch.trie();
                for key in 0..trie.keys() {
                    for val in trie.values(key) {
                        let totals: Vec<Diff> = trie.value(val).iter().map(|&word| word as Diff).collect();
                        let updates =
                            trie.updates(val).map(|update| (batch.time(update), batch.diff(update)));
                        found.push((upper, trie.key(key).to_vec(), totals, updates.collect::<Vec<_>>()));
                    }
                }
            }
            assert_eq!(found, expected(&sums), "keys of {key_width} words");
            assert_eq!(batcher.held().get().0, 0);
        }
    }

    /// What two batches hold, of times 1 and 2 and of time 3, each over nothing.
    type Found = Vec<(u64, Vec<Word>, Vec<Diff>, Vec<(u64, Diff)>)>;

    fn expected(sums: &BTreeMap<(Vec<Word>, u64), [Diff; 3]>) -> Found {
        let mut expected = Vec::new();
        for (upper, times) in [(3, 1..3), (4, 3..4)] {
            let mut changes: BTreeMap<(Vec<Word>, [Word; 3], u64), Diff> = BTreeMap::new();
            let mut totals: BTreeMap<&[Word], [Diff; 3]> = BTreeMap::new();
            for time in times {
                for ((key, _), added) in sums.iter().filter(|((_, at), _)| *at == time) {
                    let total = totals.entry(key).or_default();
                    let before = *total;
                    total.iter_mut().zip(added).for_each(|(total, added)| *total += added);
                    for (totals, diff) in [(before, -1), (*total, 1)] {
                        if totals != [0; 3] {
                            let words = totals.map(|total| total as Word);
                            *changes.entry((key.clone(), words, time)).or_default() += diff;
                        }
                    }
                }
            }
            let mut rows: Found = Vec::new();
            for ((key, words, time), diff) in changes.into_iter().filter(|(_, diff)| *diff != 0) {
                let totals = words.map(|word| word as Diff).to_vec();
                match rows.last_mut() {
                    Some((_, last, same, updates)) if *last == key && *same == totals => {
                        updates.push((time, diff))
                    }
                    _ => rows.push((upper, key, totals, vec![(time, diff)])),
                }
            }
            expected.extend(rows);
        }
        expected
    }
}
