//! A relation's rows on their way to a file: from the changes of a snapshot to lines of text, in the order of values.
//!
//! * `described`: columns, from what clients are told of them.
//! * `changes`: rows, from MessagePack to keys.
//! * `key`: rows as bytes that compare as the rows do, and can be read again.
//! * `runs`: rows that came in a few orders at once, merged.
//! * `text`: lines, from keys.
//!
//! A row is kept as its key alone: it sorts without a look at types, and takes few bytes where values are small. The
//! dictionary isn't used: what is written to a file needn't be remembered. Nothing here can panic on what it is given.

mod changes;
mod described;
mod key;
mod runs;
#[cfg(test)]
mod tests;
mod text;

use std::cmp::Ordering;

use self::runs::Runs;
use crate::encoding::Encoding;
use crate::intake::NoSchemas;
use crate::request::{Context, parse};
use crate::value::Column;

/// Lines are handed out in pieces of about this many bytes.
pub const PIECE_BYTES: usize = 1 << 20;

/// Why rows can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No description of columns.
    #[error("cannot read the columns of a table")]
    Columns(#[source] serde_json::Error),
    /// A column of a type that nobody has defined.
    #[error("cannot read the columns of a table: unknown type {0:?}")]
    UnknownType(String),
    /// No changes of rows that have these columns.
    #[error("cannot read the changes of a relation: {0}")]
    Changes(String),
}

/// How lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Stands between fields.
    pub delimiter: String,
    /// Fields stand in quotes where they have to, as RFC 4180 has it.
    pub quoted: bool,
}

/// Where a row is, for putting rows in order.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The first bytes of its key, which decide most comparisons.
    prefix: [u8; PREFIX],
    /// Where its key begins.
    start: usize,
}

const PREFIX: usize = 8;

/// The rows of one relation.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    /// The key of each row, and behind it how often the row is there.
    keys: Vec<u8>,
    /// Of all rows, or none as long as they come in a few orders.
    places: Vec<Place>,
    order: Order,
    /// Rows, copies counted.
    rows: u64,
    /// The place of the next row to hand out, and how many copies of it have been.
    next: (usize, u64),
}

/// How rows came, and what was made of that.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    /// In a few orders, as workers give them whose words are in the order of values.
    Came(Runs),
    /// Otherwise.
    Mixed,
    /// Put in order since.
    Sorted,
}

impl Table {
    /// No rows yet, of columns as a client is told of them: JSON with `name`, `type` and, where that is one of them,
    /// the definitions of `types`.
    ///
    /// # Errors
    ///
    /// [`TableError::Columns`] and [`TableError::UnknownType`].
    pub fn new(columns: &str) -> Result<Self, TableError> {
        let columns = described::columns(columns)?;
        let (keys, places) = (Vec::new(), Vec::new());
        Ok(Table { columns, keys, places, order: Order::Came(Runs::default()), rows: 0, next: (0, 0) })
    }

    /// Adds rows: the `changes` of a message, in MessagePack. A row that isn't there, or less than that, is left out.
    ///
    /// # Errors
    ///
    /// [`TableError::Changes`], with nothing added.
    pub fn add(&mut self, changes: &[u8]) -> Result<(), TableError> {
        let before = (self.keys.len(), self.places.len(), self.rows);
        let came = matches!(self.order, Order::Came(_));
        let mut context = Context::new(Encoding::MessagePack, &NoSchemas);
        let seed = changes::Changes { table: self, context: &mut context };
        let read = parse(changes, Encoding::MessagePack, seed);
        if let Err(failure) = read {
            self.keys.truncate(before.0);
            self.places.truncate(before.1);
            self.rows = before.2;
            if came {
                self.find_places();
            }
            return Err(TableError::Changes(failure.what));
        }
        self.next = (0, 0);
        if let Order::Came(runs) = &mut self.order {
            runs.rewind();
        }
        Ok(())
    }

    /// Number of rows, copies counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// A line with the names of the columns.
    pub fn header(&self, form: &Form) -> String {
        let mut line = String::new();
        text::Lines::new(&self.columns, form).header(&mut line);
        line
    }

    /// The next lines, about [`PIECE_BYTES`] of them; empty when all have been handed out. A row that is added later
    /// begins it anew.
    pub fn lines(&mut self, form: &Form) -> String {
        self.put_in_order();
        let mut piece = String::with_capacity(PIECE_BYTES + PIECE_BYTES / 16);
        let lines = text::Lines::new(&self.columns, form);
        while piece.len() < PIECE_BYTES {
            let start = match &mut self.order {
                Order::Came(runs) => runs.next(&self.keys),
                _ => self.places.get(self.next.0).map(|place| place.start),
            };
            let Some(start) = start else { break };
            let line = piece.len();
            let mut rest = key::Reader::new(self.keys.get(start..).unwrap_or_default());
            lines.row(&mut rest, &mut piece);
            let copies = rest.integer().map_or(0, |(_, copies)| copies);
            let end = (self.keys.len() - rest.left()).max(start + 1);
            self.next.1 += 1;
            let line = line..piece.len();
            while self.next.1 < copies && piece.len() < PIECE_BYTES {
                piece.extend_from_within(line.clone());
                self.next.1 += 1;
            }
            if self.next.1 >= copies {
                self.next = (self.next.0 + 1, 0);
                if let Order::Came(runs) = &mut self.order {
                    runs.pass(end);
                }
            }
        }
        piece
    }

    /// Completes the row whose key begins at `start` and is the last.
    #[inline]
    fn end_row(&mut self, start: usize, copies: i64) {
        let Some(copies) = u64::try_from(copies).ok().filter(|&copies| copies > 0) else {
            self.keys.truncate(start);
            return;
        };
        if !matches!(self.order, Order::Came(_)) {
            self.order = Order::Mixed;
            self.places.push(Place::new(&self.keys, start));
        }
        self.rows = self.rows.saturating_add(copies);
        key::integer(false, copies, &mut self.keys);
        if let Order::Came(runs) = &mut self.order
            && !runs.push(start..self.keys.len(), &self.keys)
        {
            self.find_places();
        }
    }

    /// Notes where the rows are.
    #[cold]
    fn find_places(&mut self) {
        self.order = Order::Mixed;
        let form = Form { delimiter: String::new(), quoted: false };
        let (lines, mut line) = (text::Lines::new(&self.columns, &form), String::new());
        let mut start = 0;
        while start < self.keys.len() {
            self.places.push(Place::new(&self.keys, start));
            // A key ends where it has been read.
            let mut rest = key::Reader::new(self.keys.get(start..).unwrap_or_default());
            line.clear();
            lines.row(&mut rest, &mut line);
            if rest.integer().is_none() {
                return;
            }
            start = self.keys.len() - rest.left();
        }
    }

    /// A trace gives its rows in order of their words, so that often little is left to do: the sort that keeps equal
    /// ones as they are is the one that makes use of it.
    fn put_in_order(&mut self) {
        if self.order == Order::Mixed {
            let keys = &self.keys;
            self.places.sort_by(|a, b| compare(keys, a, b));
            self.order = Order::Sorted;
        }
    }
}

impl Place {
    /// Of the key that begins at `start`, and that nothing follows yet, or what does counts for nothing.
    fn new(keys: &[u8], start: usize) -> Place {
        let mut prefix = [0; PREFIX];
        let key = keys.get(start..).unwrap_or_default();
        let length = key.len().min(PREFIX);
        prefix[..length].copy_from_slice(&key[..length]);
        Place { prefix, start }
    }
}

/// No key begins another, so that what follows a key decides nothing unless both are equal.
#[inline]
fn compare(keys: &[u8], a: &Place, b: &Place) -> Ordering {
    let prefix = |place: &Place| u64::from_be_bytes(place.prefix);
    let rest = |place: &Place| keys.get(place.start + PREFIX..).unwrap_or_default();
    prefix(a).cmp(&prefix(b)).then_with(|| rest(a).cmp(rest(b)))
}
