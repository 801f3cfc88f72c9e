//! What is known while a request is read, and the error that comes of it.

use std::collections::HashSet;
use std::sync::Arc;

use serde::de;

use super::fields::{Field, Op};
use super::source::{self, Failure, Locate, Step, clip};
use super::{Schema, Schemas};
use crate::dictionary::{self, Content, Entry};
use crate::encoding::Encoding;
use crate::error::{ErrorBody, ErrorCode};
use crate::nearest::nearest;
use crate::value::{Column, Word};

/// Longest text of an error, in bytes: a message may quote the client.
const LONGEST_MESSAGE: usize = 400;

/// The two lists of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Delete = 0,
    Insert = 1,
}

impl List {
    /// The field.
    pub(super) fn name(self) -> &'static str {
        match self {
            List::Delete => "delete",
            List::Insert => "insert",
        }
    }
}

/// Where a value doesn't fit.
#[derive(Debug)]
pub(super) enum Spot {
    /// In a row of a change; without a column, the row itself.
    Row { relation: Arc<Schema>, change: usize, list: List, row: usize, column: Option<usize> },
    /// In a filter.
    Where { relation: Arc<Schema>, column: usize },
}

/// What is known while a request is read. Seeds below the message share it.
pub(crate) struct Context<'s> {
    pub(super) encoding: Encoding,
    pub(super) schemas: &'s dyn Schemas,
    /// What some process may not know, each once.
    pub(crate) contents: Vec<Content>,
    /// Their words.
    told: HashSet<Word>,
    /// Rows of the transaction that has been read so far.
    rows: usize,
    /// What is asked, once that is known.
    pub(super) op: Option<Op>,
    /// The field being read, to name it if its value has the wrong type.
    pub(super) field: Option<Field>,
    /// The value that doesn't fit.
    pub(super) spot: Option<Spot>,
    /// Number of values in a row of the wrong width.
    pub(super) width: Option<usize>,
    /// What a seed found wrong, when it knew better than serde.
    refusal: Option<ErrorBody>,
}

impl<'s> Context<'s> {
    pub(crate) fn new(encoding: Encoding, schemas: &'s dyn Schemas) -> Self {
        Context {
            encoding,
            schemas,
            contents: Vec::new(),
            told: HashSet::new(),
            rows: 0,
            op: None,
            field: None,
            spot: None,
            width: None,
            refusal: None,
        }
    }

    /// The word of a value's content. One that is only asked about isn't remembered; one that is about to be
    /// transacted is, and noted if it must be announced.
    #[inline]
    pub(crate) fn word<E: de::Error>(&mut self, entry: Entry<'_>, asking: bool) -> Result<Word, E> {
        let known = if asking {
            dictionary::word_of(entry).map(|word| (word, false))
        } else {
            dictionary::intern(entry)
        };
        match known {
            Ok((word, false)) => Ok(word),
            Ok((word, true)) => {
                if self.told.insert(word) {
                    self.contents.push(entry.to_content());
                }
                Ok(word)
            }
            Err(collision) => Err(self.refuse(ErrorBody::incorrect(collision.to_string()))),
        }
    }

    /// Keeps the error for the client and returns one for serde, which ends the reading.
    pub(super) fn refuse<E: de::Error>(&mut self, body: ErrorBody) -> E {
        self.refusal.get_or_insert(body);
        E::custom("refused")
    }

    /// The relation of that name, if the client may ask for it.
    pub(super) fn relation<E: de::Error>(&mut self, name: &str) -> Result<Arc<Schema>, E> {
        if let Some(op) = self.op {
            self.schemas.permit_relation(op, name).map_err(|body| self.refuse(body))?;
        }
        self.schemas.schema(name).ok_or_else(|| {
            let hint = self.schemas.nearest(name).map(|near| format!("Did you mean `{near}`?"));
            self.refuse(ErrorBody::not_found(format!("unknown relation `{name}`")).with_hint(hint))
        })
    }

    /// Takes note of one more row.
    #[inline]
    pub(super) fn count_row<E: de::Error>(&mut self) -> Result<(), E> {
        self.rows += 1;
        let most = self.schemas.transaction_rows();
        if self.rows <= most {
            return Ok(());
        }
        let body = ErrorBody::new(ErrorCode::TooLarge, format!("a transaction may have {most} rows"))
            .with_hint("Send them in several transactions.".to_owned());
        Err(self.refuse(body))
    }

    /// The error to answer with, for a message that is well-formed but failed to be read with `failure`.
    pub(super) fn explain(&mut self, bytes: &[u8], failure: &Failure) -> ErrorBody {
        let mut body = match (self.refusal.take(), &self.spot, &self.field) {
            (Some(body), ..) => body,
            (None, Some(spot), _) => ErrorBody::incorrect(self.misfit(bytes, spot)),
            (None, None, Some(field)) => {
                ErrorBody::incorrect(format!("field `{}`: {}", field.text(), failure.what))
            }
            (None, None, None) => ErrorBody::incorrect(failure.what.clone()),
        };
        body.message = clip(&body.message, LONGEST_MESSAGE);
        body
    }

    /// Names relation, row, column and value.
    fn misfit(&self, bytes: &[u8], spot: &Spot) -> String {
        match spot {
            Spot::Where { relation, column } => {
                let column = &relation.columns[*column];
                let value = self.value(bytes, &[Step::Field("where"), Step::Field(&column.name)]);
                let (name, ty) = (&column.name, column.type_name());
                format!(
                    "in `where`, {value} does not fit column `{name}` ({ty}) of relation `{}`",
                    relation.name
                )
            }
            Spot::Row { relation, change, list, row, column } => {
                let head = [Step::Field("changes"), Step::Element(*change), Step::Field(list.name())];
                let mut path = [&head[..], &[Step::Element(*row)]].concat();
                let (verb, name) = match list {
                    List::Insert => ("insert into", &relation.name),
                    List::Delete => ("delete from", &relation.name),
                };
                let why = match (
                    column.and_then(|index| Some((index, relation.columns.get(index)?))),
                    self.width,
                ) {
                    (Some((index, column)), _) => {
                        path.push(Step::Element(index));
                        let value = self.value(bytes, &path);
                        format!("{value} does not fit column `{}` ({})", column.name, column.type_name())
                    }
                    (None, Some(width)) => {
                        let columns = relation.columns.len();
                        format!("it has {}, the relation {}", count(width, "value"), count(columns, "column"))
                    }
                    (None, None) => format!("{} is not an array", self.value(bytes, &path)),
                };
                format!("cannot {verb} relation `{name}`, row {row}: {why}")
            }
        }
    }

    fn value(&self, bytes: &[u8], path: &[Step<'_>]) -> String {
        let found = source::parse(bytes, self.encoding, Locate { path, encoding: self.encoding });
        found.ok().flatten().map_or_else(|| "the value".to_owned(), source::Raw::render)
    }
}

/// The error for a column of a `field` that a relation doesn't have.
pub(super) fn unknown_column(relation: &str, name: &str, columns: &[Column], field: &str) -> ErrorBody {
    let near = nearest(name, columns.iter().map(|column| column.name.as_str()));
    ErrorBody::incorrect(format!("unknown column `{name}` of relation `{relation}` in `{field}`"))
        .with_hint(near.map(|near| format!("Did you mean `{near}`?")))
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
