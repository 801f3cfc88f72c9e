//! The order that a client wants rows in.
//!
//! An order names some columns; the others follow in the relation's order, so that it is total and alike on all
//! workers. Words aren't always in the order of their values, so rows are put into bytes that are ([`Sorter`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dictionary;
use crate::rows::RowBuf;
use crate::value::{Type, Word};

/// A column to order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct By {
    /// Which.
    pub column: usize,
    /// The greatest value first.
    pub descending: bool,
}

/// The first rows of a relation in an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ranking {
    /// Columns that must have these values, by column.
    pub filter: Vec<(usize, Word)>,
    /// By which columns.
    pub order: Vec<By>,
    /// How many rows, copies counted.
    pub limit: u64,
}

/// Writes rows as bytes that compare as the rows do, and reads them again.
///
/// A text is its bytes, each 0 followed by 255, then two zeros: shorter than what it begins. Whatever descends has its
/// bytes inverted. Records have no order of their own; they come in that of their words, which is alike everywhere.
#[derive(Clone, Debug)]
pub struct Sorter {
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    column: usize,
    ty: Type,
    /// What bytes are combined with: 255 where the column descends.
    mask: u8,
}

const END: [u8; 2] = [0, 0];
const ZERO: [u8; 2] = [0, 255];

impl Sorter {
    /// For rows of columns of these types, in an order of which no column is named twice.
    pub fn new(types: &[Type], order: &[By]) -> Self {
        let rest = (0..types.len()).filter(|column| order.iter().all(|by| by.column != *column));
        let rest = rest.map(|column| By { column, descending: false });
        let part = |by: By| {
            let mask = if by.descending { 255 } else { 0 };
            types.get(by.column).map(|&ty| Part { column: by.column, ty, mask })
        };
        Sorter { parts: order.iter().copied().chain(rest).filter_map(part).collect() }
    }

    /// Columns of a row.
    pub fn width(&self) -> usize {
        self.parts.len()
    }

    /// Writes a row to `key`, which is emptied before.
    pub fn write(&self, row: &[Word], key: &mut Vec<u8>) {
        key.clear();
        for part in &self.parts {
            let word = row.get(part.column).copied().unwrap_or_default();
            match part.ty {
                Type::Symbol => dictionary::with_text(word, |text| part.write(text.as_bytes(), key)),
                Type::Uuid | Type::Bytes => dictionary::with_bytes(word, |bytes| part.write(bytes, key)),
                _ => None,
            };
            // Where bytes decide, the word follows them only to be read again.
            if part.ty.ordered_by_bytes() {
                key.extend(END.map(|byte| byte ^ part.mask));
            }
            key.extend(word.to_be_bytes().map(|byte| byte ^ part.mask));
        }
    }

    /// Reads what [`Self::write`] has written.
    pub fn read(&self, mut key: &[u8], row: &mut Vec<Word>) {
        row.clear();
        row.resize(self.parts.len(), 0);
        for part in &self.parts {
            if part.ty.ordered_by_bytes() {
                key = part.skip(key);
            }
            let Some((word, rest)) = key.split_first_chunk::<8>() else { return };
            row[part.column] = Word::from_be_bytes(word.map(|byte| byte ^ part.mask));
            key = rest;
        }
    }
}

impl Part {
    fn write(&self, bytes: &[u8], key: &mut Vec<u8>) {
        for &byte in bytes {
            match byte {
                0 => key.extend(ZERO.map(|byte| byte ^ self.mask)),
                byte => key.push(byte ^ self.mask),
            }
        }
    }

    /// What follows the bytes and their end.
    fn skip<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        let mut at = 0;
        while let Some(&byte) = key.get(at) {
            match byte ^ self.mask {
                0 if key.get(at + 1).is_none_or(|next| next ^ self.mask == END[1]) => break,
                0 => at += 2,
                _ => at += 1,
            }
        }
        key.get(at + END.len()..).unwrap_or_default()
    }
}

/// The first of the rows that it is given, in order; all of them without a limit.
#[derive(Clone, Debug)]
pub struct First {
    sorter: Sorter,
    limit: u64,
    rows: BTreeMap<Box<[u8]>, u64>,
    /// Rows, copies counted.
    total: u64,
    key: Vec<u8>,
}

impl First {
    /// None yet.
    pub fn new(sorter: Sorter, limit: Option<u64>) -> Self {
        let limit = limit.unwrap_or(u64::MAX);
        First { sorter, limit, rows: BTreeMap::new(), total: 0, key: Vec::new() }
    }

    /// Rows kept, each counted once.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds so many copies of a row.
    pub fn add(&mut self, row: &[Word], copies: i64) {
        let copies = u64::try_from(copies).unwrap_or(0).min(self.limit);
        if copies == 0 {
            return;
        }
        self.sorter.write(row, &mut self.key);
        let full = self.total >= self.limit;
        if full && self.rows.last_key_value().is_some_and(|(last, _)| last[..] < self.key[..]) {
            return;
        }
        *self.rows.entry(self.key.as_slice().into()).or_default() += copies;
        self.total += copies;
        while self.total > self.limit
            && let Some(mut last) = self.rows.last_entry()
        {
            let excess = (self.total - self.limit).min(*last.get());
            *last.get_mut() -= excess;
            self.total -= excess;
            if *last.get() == 0 {
                last.remove();
            }
        }
    }

    /// The rows in order, with the copies of each.
    pub fn take(&mut self) -> (RowBuf, Vec<i64>) {
        let mut rows = RowBuf::new(self.sorter.width());
        let mut copies = Vec::with_capacity(self.rows.len());
        let mut row = Vec::new();
        self.total = 0;
        for (key, count) in std::mem::take(&mut self.rows) {
            self.sorter.read(&key, &mut row);
            rows.push(&row);
            copies.push(i64::try_from(count).unwrap_or(i64::MAX));
        }
        (rows, copies)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::{from_float, from_number};

    fn word(text: &str) -> Word {
        dictionary::intern(text).map(|(word, _)| word).unwrap()
    }

    fn key(sorter: &Sorter, row: &[Word]) -> Vec<u8> {
        let mut key = Vec::new();
        sorter.write(row, &mut key);
        let mut read = Vec::new();
        sorter.read(&key, &mut read);
        assert_eq!(read, row, "what was written can be read");
        key
    }

    proptest! {
        #[test]
        fn keys_are_in_the_order_of_values(
            rows in prop::collection::vec(
                (prop::sample::select(vec!["", "a", "a\0", "a\0\0", "a\0b", "ab", "long enough for a word", "long enough for a\0", "é"]),
                 -2i64..3, -2i32..3), 0..20),
            descending in any::<[bool; 2]>(),
            reversed in any::<bool>(),
        ) {
            let types = [Type::Symbol, Type::Number, Type::Float];
            let mut order = vec![By { column: 0, descending: descending[0] }, By { column: 1, descending: descending[1] }];
            if reversed {
                order.reverse();
            }
            let sorter = Sorter::new(&types, &order);
            let compare = |a: &(&str, i64, i32), b: &(&str, i64, i32)| {
                let turned = |by: &By| {
                    let order = if by.column == 0 { a.0.cmp(b.0) } else { a.1.cmp(&b.1) };
                    if by.descending { order.reverse() } else { order }
                };
                turned(&order[0]).then(turned(&order[1])).then(a.2.cmp(&b.2))
            };
            let words = |(text, number, float): &(&str, i64, i32)| {
                [word(text), from_number(*number), from_float(f64::from(*float))]
            };
            for a in &rows {
                for b in &rows {
                    prop_assert_eq!(key(&sorter, &words(a)).cmp(&key(&sorter, &words(b))), compare(a, b));
                }
            }
        }

        #[test]
        fn the_first_rows_are_those_of_the_sorted_list(
            rows in prop::collection::vec((0u64..20, -1i64..4), 0..40),
            limit in prop::option::of(0u64..12),
        ) {
            let sorter = Sorter::new(&[Type::Unsigned], &[By { column: 0, descending: true }]);
            let mut first = First::new(sorter, limit);
            let mut all: Vec<u64> = Vec::new();
            for &(value, copies) in &rows {
                first.add(&[value], copies);
                (0..copies).for_each(|_| all.push(value));
            }
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.truncate(limit.unwrap_or(u64::MAX) as usize);
            let (found, copies) = first.take();
            let flat: Vec<u64> = found
                .iter()
                .zip(&copies)
                .flat_map(|(row, &copies)| std::iter::repeat_n(row[0], copies as usize))
                .collect();
            prop_assert_eq!(flat, all);
            prop_assert!(first.is_empty());
        }
    }
}
