//! Rows of one width with a time and a difference each: the container on every dataflow edge.

use std::cell::{Cell, OnceCell};
use std::io::Write;

use dataflow_protocol::dictionary::{self, Content};
use dataflow_protocol::value::Word;
use differential_dataflow::collection::containers::{Enter, Leave, Negate, ResultsIn};
use timely::container::Accountable;
use timely::dataflow::channels::ContainerBytes;
use timely::order::Product;
use timely::progress::{PathSummary, Timestamp};

use super::column::{EngineTime, Inner, RunVec, TimeColumn};

/// Copies added or removed.
///
/// 64 bits wide, since a row may have more than 2³¹ derivations; a column of ones takes no space.
pub(crate) type Diff = i64;

/// Appends the words of a row. Of narrow rows, the usual ones, copying takes less than a call to do it.
#[inline]
pub(crate) fn append(words: &mut Vec<Word>, row: &[Word]) {
    match *row {
        [] => {}
        [first] => words.push(first),
        [first, second] => words.extend_from_slice(&[first, second]),
        [first, second, third] => words.extend_from_slice(&[first, second, third]),
        _ => words.extend_from_slice(row),
    }
}

/// Updates `(row, time, difference)` of rows of one width, laid out flat.
#[derive(Clone, Debug)]
pub(crate) struct Updates<T: EngineTime> {
    width: usize,
    len: usize,
    words: Vec<Word>,
    times: T::Column,
    diffs: RunVec<Diff>,
    /// Fixed once serialisation has begun, since another thread may announce a content between measuring and writing.
    foreign: OnceCell<Vec<Content>>,
    /// See [`Self::charged`].
    charge: Cell<i64>,
}

impl<T: EngineTime> Default for Updates<T> {
    fn default() -> Self {
        Updates::new(0)
    }
}

impl<T: EngineTime> Updates<T> {
    pub(crate) fn new(width: usize) -> Self {
        Updates {
            width,
            len: 0,
            words: Vec::new(),
            times: T::Column::default(),
            diffs: RunVec::default(),
            foreign: OnceCell::new(),
            charge: Cell::new(0),
        }
    }

    /// Makes the container count as so many records once, for who asks first, which is the driver of the join that
    /// made it; from then on it counts its rows.
    pub(crate) fn charged(self, records: i64) -> Self {
        self.charge.set(records);
        self
    }

    pub(crate) fn with_capacity(width: usize, rows: usize) -> Self {
        let mut updates = Updates { words: Vec::with_capacity(width * rows), ..Updates::new(width) };
        TimeColumn::<T>::expect(&mut updates.times, rows);
        updates.diffs.expect(rows);
        updates
    }

    /// Rows whose words are given, all with one time and difference.
    pub(crate) fn of_words(width: usize, rows: usize, words: Vec<Word>, time: T, diff: Diff) -> Self {
        debug_assert_eq!(words.len(), rows * width);
        let mut updates = Updates { words, len: rows, ..Updates::new(width) };
        (0..rows).for_each(|_| {
            TimeColumn::<T>::push(&mut updates.times, time);
            updates.diffs.push(diff);
        });
        updates
    }

    #[inline]
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn row(&self, index: usize) -> &[Word] {
        &self.words[index * self.width..(index + 1) * self.width]
    }

    #[inline]
    pub(crate) fn time(&self, index: usize) -> T {
        self.times.get(index)
    }

    #[inline]
    pub(crate) fn diff(&self, index: usize) -> Diff {
        self.diffs.get(index)
    }

    pub(crate) fn words(&self) -> &[Word] {
        &self.words
    }

    pub(crate) fn times(&self) -> &T::Column {
        &self.times
    }

    #[inline]
    pub(crate) fn push(&mut self, row: &[Word], time: T, diff: Diff) {
        debug_assert_eq!(row.len(), self.width);
        append(&mut self.words, row);
        self.end_row(time, diff);
    }

    /// The buffer that a row's words are pushed to before [`Self::end_row`].
    #[inline]
    pub(crate) fn row_words(&mut self) -> &mut Vec<Word> {
        &mut self.words
    }

    /// Takes back the words pushed since the last [`Self::end_row`].
    pub(crate) fn abandon_row(&mut self) {
        self.words.truncate(self.len * self.width);
    }

    #[inline]
    pub(crate) fn end_row(&mut self, time: T, diff: Diff) {
        self.times.push(time);
        self.diffs.push(diff);
        self.len += 1;
        debug_assert_eq!(self.words.len(), self.len * self.width);
    }

    /// Appends `other`'s updates in `range`.
    pub(crate) fn extend_from(&mut self, other: &Self, range: std::ops::Range<usize>) {
        debug_assert_eq!(self.width, other.width);
        self.words.extend_from_slice(&other.words[range.start * self.width..range.end * self.width]);
        self.times.extend_from(&other.times, range.clone());
        self.diffs.extend_from(&other.diffs, range.clone());
        self.len += range.len();
    }

    pub(crate) fn clear(&mut self) {
        self.words.clear();
        self.times.clear();
        self.diffs.clear();
        self.len = 0;
        self.foreign = OnceCell::new();
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        8 * self.words.capacity() + self.times.heap_bytes() + self.diffs.heap_bytes()
    }

    fn retime<U: EngineTime>(self, logic: impl Fn(T) -> U) -> Updates<U> {
        let mut times = U::Column::default();
        match self.times.uniform() {
            Some(time) => (0..self.len).for_each(|_| times.push(logic(time))),
            None => (0..self.len).for_each(|index| times.push(logic(self.times.get(index)))),
        }
        Updates { words: self.words, len: self.len, times, diffs: self.diffs, ..Updates::new(self.width) }
    }
}

impl<T: EngineTime> Accountable for Updates<T> {
    fn record_count(&self) -> i64 {
        match self.charge.take() {
            0 => self.len as i64,
            charge => charge,
        }
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: EngineTime> Negate for Updates<T> {
    fn negate(mut self) -> Self {
        self.diffs = self.diffs.map(|diff| -diff);
        self
    }
}

impl Enter<u64, Inner> for Updates<u64> {
    type InnerContainer = Updates<Inner>;
    fn enter(self) -> Updates<Inner> {
        self.retime(Inner::from_outer)
    }
}

impl Leave<Inner, u64> for Updates<Inner> {
    type OuterContainer = Updates<u64>;
    fn leave(self) -> Updates<u64> {
        self.retime(EngineTime::outer)
    }
}

impl ResultsIn<<Inner as Timestamp>::Summary> for Updates<Inner> {
    fn results_in(mut self, step: &<Inner as Timestamp>::Summary) -> Self {
        // An iteration past 2³² has no time; the updates at it are gone, and with them the rest of a runaway loop.
        let checked = if self.times.uniform().is_some() { self.len.min(1) } else { self.len };
        if (0..checked).all(|index| step.results_in(&self.times.get(index)).is_some()) {
            return self.retime(|time| step.results_in(&time).unwrap_or(time));
        }
        let mut kept = Updates::new(self.width);
        for index in 0..self.len {
            if let Some(time) = step.results_in(&self.times.get(index)) {
                kept.push(self.row(index), time, self.diff(index));
            }
        }
        self.clear();
        kept
    }
}

/// Little-endian: width, rows, words, times, differences, and the contents of words that only the sender may know.
///
/// Each content is its kind, its length in bytes and its bytes, padded to a multiple of eight.
impl<T: EngineTime> ContainerBytes for Updates<T> {
    fn from_bytes(bytes: timely::bytes::arc::Bytes) -> Self {
        let mut reader = Reader(&bytes);
        let (width, len) = (reader.word() as usize, reader.word() as usize);
        let mut updates = Updates::with_capacity(width, len);
        updates.words.extend((0..width * len).map(|_| reader.word()));
        for _ in 0..len {
            let (outer, iteration) = (reader.word(), reader.word() as u32);
            TimeColumn::<T>::push(&mut updates.times, T::compose(outer, iteration));
        }
        (0..len).for_each(|_| updates.diffs.push(reader.word() as Diff));
        updates.len = len;
        for _ in 0..reader.word() {
            let (kind, length) = (reader.word(), reader.word() as usize);
            if let Some(content) = Content::from_parts(kind, reader.padded(length)) {
                // A collision would have been refused by the sender, had it known both; see `dictionary::intern`.
                let _ = dictionary::intern(&content);
            }
        }
        updates
    }

    fn length_in_bytes(&self) -> usize {
        let contents: usize =
            self.foreign().iter().map(|content| 16 + content.parts().1.len().next_multiple_of(8)).sum();
        8 * (3 + self.words.len() + 3 * self.len) + contents
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        // Writes go to memory that `length_in_bytes` sized.
        let mut put = |word: u64| {
            let _ = writer.write_all(&word.to_le_bytes());
        };
        put(self.width as u64);
        put(self.len as u64);
        self.words.iter().for_each(|&word| put(word));
        for index in 0..self.len {
            let time = self.times.get(index);
            put(time.outer());
            put(u64::from(time.iteration()));
        }
        (0..self.len).for_each(|index| put(self.diffs.get(index) as u64));
        let foreign = self.foreign();
        put(foreign.len() as u64);
        for content in foreign {
            let (kind, bytes) = content.parts();
            let padding = bytes.len().next_multiple_of(8) - bytes.len();
            let _ = writer.write_all(&kind.to_le_bytes());
            let _ = writer.write_all(&(bytes.len() as u64).to_le_bytes());
            let _ = writer.write_all(&bytes);
            let _ = writer.write_all(&[0; 8][..padding]);
        }
    }
}

impl<T: EngineTime> Updates<T> {
    /// Contents of words in here that other processes may not know.
    fn foreign(&self) -> &[Content] {
        self.foreign.get_or_init(|| dictionary::foreign(self.words.iter().copied()))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn word(&mut self) -> u64 {
        let (word, rest) = self.0.split_first_chunk().map_or(([0; 8], &[][..]), |(word, rest)| (*word, rest));
        self.0 = rest;
        u64::from_le_bytes(word)
    }

    fn padded(&mut self, length: usize) -> &'a [u8] {
        let (text, rest) = self.0.split_at(length.next_multiple_of(8).min(self.0.len()));
        self.0 = rest;
        &text[..length.min(text.len())]
    }
}

/// One iteration further.
pub(crate) fn next_iteration() -> <Inner as Timestamp>::Summary {
    Product::new(Default::default(), 1)
}
