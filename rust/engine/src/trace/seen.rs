//! Rows that only come, each once, while their order doesn't matter yet: a table of hashes over rows in the order in which
//! they came.

use std::cell::RefCell;

use dataflow_protocol::dictionary::sweep;
use dataflow_protocol::value::Word;

use super::batch::RowBatch;
use super::registry::{PIECE, State};
use crate::container::exchange::hash;
use crate::container::sort::consolidate;
use crate::container::{EngineTime, Updates, append};

/// Rows that lie together: so many that they are sorted as one run, and that none are moved to make room for others.
const SEGMENT: usize = 1 << 16;

/// Slots of an empty table.
const LEAST_SLOTS: usize = 1 << 6;

/// Rows that are put into a larger table at once.
const GROWN_AT_ONCE: usize = 1 << 10;

/// Rows that there can be, as places have 32 bits.
const MOST_ROWS: usize = 1 << 32;

/// There is no place for another row; so many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) usize);

/// Rows seen so far.
pub(crate) struct Seen {
    width: usize,
    /// All are full but the last.
    segments: Vec<Vec<Word>>,
    rows: usize,
    /// That there can be.
    most: usize,
    /// Of each slot some bits of its row's hash, so that other rows are seldom looked at; 0 where it is free.
    tags: Vec<u8>,
    /// Places of rows. A row stands in the slot that the upper bits of its hash say, since the lower ones say which worker it
    /// is on, or in the next free one.
    slots: Vec<u32>,
    /// Of the rows that are being taken in.
    hashes: Vec<u64>,
    /// So many rows have had their words marked (ADR 0008).
    marked: usize,
}

impl Seen {
    /// None yet, of so many words each.
    pub(crate) fn new(width: usize) -> Self {
        Seen::with_most(width, MOST_ROWS)
    }

    /// The same, for no more than `most` rows.
    pub(crate) fn with_most(width: usize, most: usize) -> Self {
        let (tags, slots) = (vec![0; LEAST_SLOTS], vec![0; LEAST_SLOTS]);
        Seen { width, segments: Vec::new(), rows: 0, most, tags, slots, hashes: Vec::new(), marked: 0 }
    }

    /// Rows, and bytes on the heap.
    pub(crate) fn held(&self) -> (usize, usize) {
        let words: usize = self.segments.iter().map(Vec::capacity).sum();
        (self.rows, 8 * words + 5 * self.slots.len())
    }

    #[inline]
    fn row(&self, place: usize) -> &[Word] {
        let start = place % SEGMENT * self.width;
        &self.segments[place / SEGMENT][start..start + self.width]
    }

    /// The slot in which a row of this hash is, unless others are in its way.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (hash >> (u64::BITS - self.slots.len().trailing_zeros())) as usize
    }

    /// Takes note of those of the rows that are there and new, and calls `fresh` with the index of each.
    ///
    /// # Errors
    ///
    /// [`Full`] at the first for which there is no place. Those before it are noted.
    pub(crate) fn insert<T: EngineTime>(
        &mut self,
        rows: &Updates<T>,
        mut fresh: impl FnMut(usize),
    ) -> Result<(), Full> {
        while (self.rows + rows.len()) * 8 > self.slots.len() * 7 {
            self.grow();
        }
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        hashes.extend((0..rows.len()).map(|index| hash(rows.row(index))));
        self.touch(&hashes);
        let mut inserted = Ok(());
        for (index, &hash) in hashes.iter().enumerate() {
            // A `raw` import may have fewer than no copies of a row.
            if rows.diff(index) > 0
                && let Some(slot) = self.slot_for(rows.row(index), hash)
            {
                if self.rows == self.most {
                    inserted = Err(Full(self.most));
                    break;
                }
                self.put(slot, rows.row(index), hash);
                fresh(index);
            }
        }
        self.hashes = hashes;
        inserted
    }

    /// Reads what will be read for these hashes. Here no read waits for another, so that memory gives many at a time.
    fn touch(&self, hashes: &[u64]) {
        let mut sum = self.touch_slots(hashes);
        for &hash in hashes {
            let slot = self.home(hash);
            if self.tags[slot] == tag(hash) {
                sum ^= self.row(self.slots[slot] as usize).first().copied().unwrap_or_default();
            }
        }
        std::hint::black_box(sum);
    }

    /// The same for slots alone; the sum of what is there.
    fn touch_slots(&self, hashes: &[u64]) -> u64 {
        let slots = hashes.iter().map(|&hash| self.home(hash));
        std::hint::black_box(slots.map(|slot| u64::from(self.tags[slot]) + u64::from(self.slots[slot])).sum())
    }

    /// The free slot for a row, if it isn't there.
    #[inline]
    fn slot_for(&self, row: &[Word], hash: u64) -> Option<usize> {
        let (mut slot, mask, tag) = (self.home(hash), self.slots.len() - 1, tag(hash));
        while self.tags[slot] != 0 {
            if self.tags[slot] == tag && self.row(self.slots[slot] as usize).iter().eq(row) {
                return None;
            }
            slot = (slot + 1) & mask;
        }
        Some(slot)
    }

    #[inline]
    fn put(&mut self, slot: usize, row: &[Word], hash: u64) {
        if self.rows.is_multiple_of(SEGMENT) {
            // The first one grows, so that few rows take little.
            let rows = if self.rows == 0 { 0 } else { SEGMENT };
            self.segments.push(Vec::with_capacity(rows * self.width));
        }
        if let Some(segment) = self.segments.last_mut() {
            append(segment, row);
        }
        (self.tags[slot], self.slots[slot]) = (tag(hash), self.rows as u32);
        self.rows += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let slots = 2 * self.slots.len();
        (self.tags, self.slots) = (vec![0; slots], vec![0; slots]);
        let mut hashes = std::mem::take(&mut self.hashes);
        for start in (0..self.rows).step_by(GROWN_AT_ONCE) {
            hashes.clear();
            hashes.extend((start..self.rows.min(start + GROWN_AT_ONCE)).map(|place| hash(self.row(place))));
            self.touch_slots(&hashes);
            for (place, &hash) in (start..).zip(&hashes) {
                let mut slot = self.home(hash);
                while self.tags[slot] != 0 {
                    slot = (slot + 1) & (slots - 1);
                }
                (self.tags[slot], self.slots[slot]) = (tag(hash), place as u32);
            }
        }
        self.hashes = hashes;
    }

    /// Takes out all rows, as a batch of `time`.
    pub(crate) fn take<T: EngineTime>(&mut self, time: T) -> RowBatch<T> {
        (self.tags, self.slots, self.marked) = (vec![0; LEAST_SLOTS], vec![0; LEAST_SLOTS], 0);
        let (width, mut left) = (self.width, std::mem::take(&mut self.rows));
        let mut runs = Vec::with_capacity(self.segments.len());
        for segment in std::mem::take(&mut self.segments) {
            let rows = left.min(SEGMENT);
            left -= rows;
            let mut run = Updates::of_words(width, rows, segment, time, 1);
            consolidate(&mut run);
            runs.push(run);
        }
        RowBatch::from_runs(&runs, width)
    }
}

/// Never 0, and of other bits than those that say the slot and the worker.
#[inline]
fn tag(hash: u64) -> u8 {
    (hash >> 16) as u8 | 0x80
}

impl State for RefCell<Seen> {
    fn begin(&self) {
        self.borrow_mut().marked = 0;
    }

    fn mark(&self) -> usize {
        let mut seen = self.borrow_mut();
        let places = seen.marked..seen.rows.min(seen.marked + PIECE);
        places.clone().for_each(|place| sweep::mark(seen.row(place)));
        seen.marked = places.end;
        places.len() * seen.width
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::container::Diff;
    use crate::random::random;

    #[test]
    fn each_row_is_new_once_and_all_come_out_in_order() {
        let mut state = 5u64;
        let mut random = move || random(&mut state, 1 << 31);
        for width in 0..4usize {
            for (count, bound) in [(0, 1), (5, 9), (2_000, 40), (SEGMENT * 5, 1 << 20)] {
                let (mut seen, mut known) = (Seen::new(width), BTreeSet::new());
                for from in (0..count).step_by(1_000) {
                    let (mut rows, mut expected, mut found) = (Updates::new(width), Vec::new(), Vec::new());
                    for index in 0..(count - from).min(1_000) {
                        let row: Vec<Word> = (0..width).map(|_| random() % bound).collect();
                        let copies = (random() % 4) as Diff - 1;
                        rows.push(&row, 3u64, copies);
                        expected.extend((copies > 0 && known.insert(row)).then_some(index));
                    }
                    assert_eq!(seen.insert(&rows, |index| found.push(index)), Ok(()));
                    assert_eq!(found, expected);
                }
                assert_eq!(seen.held().0, known.len());
                let batch = seen.take(7u64);
                let found = (0..batch.trie().keys()).map(|key| batch.trie().key(key).to_vec());
                assert!(found.eq(known.iter().cloned()), "{count} rows of width {width}");
                assert_eq!((batch.len(), seen.held().0), (known.len(), 0));
                assert!(known.is_empty() || batch.only_time() == Some(7));
            }
        }
    }

    #[test]
    fn a_row_without_a_place_is_an_error_and_one_that_is_there_is_not() {
        let rows = |numbers: &[Word]| {
            let mut rows = Updates::new(1);
            numbers.iter().for_each(|&number| rows.push(&[number], 3u64, 1));
            rows
        };
        let (mut seen, mut found) = (Seen::with_most(1, 3), Vec::new());
        assert_eq!(seen.insert(&rows(&[7, 8, 7, 9]), |index| found.push(index)), Ok(()));
        assert_eq!(seen.insert(&rows(&[9, 8]), |index| found.push(index)), Ok(()));
        assert_eq!(seen.insert(&rows(&[7, 5, 6]), |index| found.push(index)), Err(Full(3)));
        assert_eq!((found, seen.held().0), (vec![0, 1, 3], 3));
    }
}
