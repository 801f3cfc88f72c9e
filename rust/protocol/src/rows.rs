//! A flat buffer of rows, the unit in which data moves between rooms.

use serde::{Deserialize, Serialize};

use crate::value::Word;

/// Rows of one width, laid out one after the other. A row of width 0 is counted and takes no space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowBuf {
    width: usize,
    len: usize,
    words: Vec<Word>,
}

impl RowBuf {
    /// An empty buffer for rows of `width` words.
    pub fn new(width: usize) -> Self {
        RowBuf { width, len: 0, words: Vec::new() }
    }

    /// Words a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the rows themselves.
    pub fn bytes(&self) -> usize {
        self.words.len() * size_of::<Word>()
    }

    /// Adds a row. A slice of another length than the width is cut or padded with zeros.
    pub fn push(&mut self, row: &[Word]) {
        debug_assert_eq!(row.len(), self.width);
        self.words.extend_from_slice(&row[..row.len().min(self.width)]);
        self.len += 1;
        self.words.resize(self.len * self.width, 0);
    }

    /// Adds one word of a row under way; [`Self::end_row`] completes it.
    #[inline]
    pub fn push_word(&mut self, word: Word) {
        self.words.push(word);
    }

    /// Completes a row built of [`Self::push_word`]; `false`, and the row is dropped, if it hasn't the width.
    pub fn end_row(&mut self) -> bool {
        let whole = self.words.len() == (self.len + 1) * self.width;
        if whole {
            self.len += 1;
        } else {
            self.words.truncate(self.len * self.width);
        }
        whole
    }

    /// The row at `index`.
    #[inline]
    pub fn row(&self, index: usize) -> &[Word] {
        &self.words[index * self.width..(index + 1) * self.width]
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[Word]> {
        (0..self.len).map(|index| self.row(index))
    }

    /// All words of all rows.
    pub fn words(&self) -> &[Word] {
        &self.words
    }
}
