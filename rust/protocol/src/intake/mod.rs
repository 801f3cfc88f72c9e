//! Rows of external sources, from their bytes to words. No files, no sockets: whoever reads them hands over bytes.
//!
//! * `cell`: a value written as text.
//! * [`csv`], [`ndjson`]: lines of files; a record that isn't complete yet is left for the next call.
//! * [`pgoutput`]: PostgreSQL's stream of changes, one transaction at a time.
//!
//! Nothing here can panic on what it is given; what doesn't fit a relation is a [`BadRow`] that says where it stands.

mod cell;
pub mod csv;
mod ledger;
pub mod ndjson;
pub mod pgoutput;

use std::sync::Arc;

use serde::Deserialize;

use crate::dictionary::Content;
use crate::dictionary::sweep::Pin;
use crate::ids::RelationId;
use crate::plan::InputMode;
use crate::request::{Schema, Schemas};
use crate::rows::RowBuf;
use crate::value::Column;

/// Longest list of bad rows that a call returns; the others are counted.
pub const MAX_BAD: usize = 16;

/// The relation that rows are for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Target {
    /// The relation.
    pub id: RelationId,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// What inserts and deletes mean in it.
    pub input: InputMode,
}

/// What a source changes in one relation, to take effect in the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which relation.
    pub relation: RelationId,
    /// Everything that is in it goes first.
    pub clear: bool,
    /// Rows of an `upsert` relation that go by their key; the other columns mean nothing.
    pub erase: RowBuf,
    /// Rows that go.
    pub delete: RowBuf,
    /// Rows that come.
    pub insert: RowBuf,
}

impl Change {
    /// No change of a relation with so many columns.
    pub fn new(relation: RelationId, width: usize) -> Self {
        Change {
            relation,
            clear: false,
            erase: RowBuf::new(width),
            delete: RowBuf::new(width),
            insert: RowBuf::new(width),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.erase.len() + self.delete.len() + self.insert.len()
    }

    /// Bytes of the rows.
    pub fn bytes(&self) -> usize {
        self.erase.bytes() + self.delete.bytes() + self.insert.bytes()
    }
}

/// What a source changes at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Texts that some process may not know; they must be announced with a command no later than these rows.
    pub contents: Vec<Content>,
    /// At most one a relation.
    pub changes: Vec<Change>,
    /// Keeps what the words of its rows stand for.
    pub pin: Pin,
}

impl Transaction {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.changes.iter().map(Change::rows).sum()
    }

    /// Bytes that it occupies, roughly.
    pub fn bytes(&self) -> usize {
        let contents = self.contents.iter().map(Content::bytes).sum::<usize>();
        64 + contents + self.changes.iter().map(Change::bytes).sum::<usize>()
    }
}

/// What is done with a row that doesn't fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// Nothing behind it is read.
    Stop,
    /// It is counted and left out.
    Skip,
}

/// A row that doesn't fit its relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The line it begins on, counted from 0 within what was handed over.
    pub line: u64,
    /// The column, where it is one.
    pub column: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// What was made of a piece of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Rows that fit.
    pub rows: RowBuf,
    /// As in [`Transaction::contents`].
    pub contents: Vec<Content>,
    /// As in [`Transaction::pin`].
    pub pin: Pin,
    /// Bytes that are done with; what follows is the beginning of a record, or a bad row at which to stop.
    pub consumed: usize,
    /// Ends of lines in them.
    pub lines: u64,
    /// The first bad rows.
    pub bad: Vec<BadRow>,
    /// How many there were.
    pub bad_rows: u64,
    /// How many rows fit, also once they have been handed on.
    pub taken_rows: u64,
}

impl Parsed {
    fn bad(&mut self, bad: BadRow) {
        self.bad_rows += 1;
        if self.bad.len() < MAX_BAD {
            self.bad.push(bad);
        }
    }
}

/// No relation: rows of sources name none.
pub(crate) struct NoSchemas;

impl Schemas for NoSchemas {
    fn schema(&self, _relation: &str) -> Option<Arc<Schema>> {
        None
    }

    fn nearest(&self, _relation: &str) -> Option<String> {
        None
    }
}
