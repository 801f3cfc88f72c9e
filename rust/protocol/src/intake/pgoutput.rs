//! PostgreSQL's logical replication: messages of its `pgoutput` plugin, to transactions.
//!
//! The messages themselves are read by `pg_walstream`. Values come as text, by the session's settings: the connection
//! must ask for ISO dates and UTC.

use std::collections::HashMap;

use pg_walstream::{ColumnData, LogicalReplicationMessage as Message, LogicalReplicationParser, TupleData};
use serde::Deserialize;

use super::cell::from_text;
use super::ledger::Ledger;
use super::{NoSchemas, OnBad, Target, Transaction};
use crate::dictionary::Content;
use crate::dictionary::sweep::Pin;
use crate::encoding::Encoding;
use crate::request::Context;
use crate::value::Word;

/// The version of the plugin's protocol: every message belongs to a transaction that has committed.
pub const VERSION: u32 = 1;

/// A table and the relation that follows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its schema.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The relation.
    pub target: Target,
    /// For each column of the relation the table's, and what stands for its null.
    pub columns: Vec<(String, Option<String>)>,
}

/// A transaction of the server's.
#[derive(Debug, PartialEq, Eq)]
pub struct Commit {
    /// The position behind it, from which one goes on after it.
    pub position: u64,
    /// What it changes; nothing where it touched no table that is followed.
    pub transaction: Transaction,
    /// Rows left out because they didn't fit.
    pub bad_rows: u64,
    /// The first of them.
    pub bad: Option<String>,
}

/// Why a stream can't be followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The bytes are no message of the plugin.
    #[error("a message of the replication stream can't be read: {0}")]
    Malformed(String),
    /// A row doesn't fit its relation.
    #[error("{0}")]
    Bad(String),
    /// The table lost a column that is needed.
    #[error("table {table} has no column {column:?}")]
    NoColumn {
        /// Schema and name.
        table: String,
        /// Which.
        column: String,
    },
    /// An update or delete came without what it takes to find the old row.
    #[error("table {0} doesn't send the old row of an update or delete: it needs REPLICA IDENTITY FULL")]
    NoOldRow(String),
    /// A transaction takes more memory than it may.
    #[error("a transaction of more than {limit} bytes")]
    TooLarge {
        /// How much it may.
        limit: usize,
    },
}

/// Where the columns of a relation stand in a table's rows.
struct Route {
    table: usize,
    places: Vec<usize>,
}

/// Follows a stream, message by message.
pub struct Decoder {
    parser: LogicalReplicationParser,
    tables: Vec<Table>,
    ledgers: Vec<Ledger>,
    routes: HashMap<u32, Route>,
    contents: Vec<Content>,
    /// For the rows of the transaction under way.
    pin: Option<Pin>,
    on_bad: OnBad,
    bad_rows: u64,
    bad: Option<String>,
    bytes: usize,
    limit: usize,
}

impl Decoder {
    /// Follows these tables; a transaction's rows may take `limit` bytes.
    pub fn new(tables: Vec<Table>, on_bad: OnBad, limit: usize) -> Self {
        let ledgers = tables.iter().map(|table| Ledger::new(table.target.clone())).collect();
        Decoder {
            parser: LogicalReplicationParser::with_protocol_version(VERSION),
            tables,
            ledgers,
            routes: HashMap::new(),
            contents: Vec::new(),
            pin: None,
            on_bad,
            bad_rows: 0,
            bad: None,
            bytes: 0,
            limit,
        }
    }

    /// Forgets a transaction that was begun: the stream starts again behind the last one that was committed.
    ///
    /// Texts that it brought are kept for the next: the dictionary takes them for announced.
    pub fn reset(&mut self) {
        self.begin();
        self.routes.clear();
    }

    fn begin(&mut self) {
        self.ledgers.iter_mut().for_each(|ledger| drop(ledger.take()));
        (self.bytes, self.bad_rows, self.bad, self.pin) = (0, 0, None, None);
    }

    /// Takes in a message; the transaction, if it was its end.
    ///
    /// # Errors
    ///
    /// The stream can't be followed beyond this message; [`Self::reset`] before another one is begun.
    pub fn message(&mut self, bytes: &[u8]) -> Result<Option<Commit>, StreamError> {
        let message = self.parser.parse_wal_message(bytes);
        let message = message.map_err(|error| StreamError::Malformed(error.to_string()))?.message;
        match message {
            Message::Begin { .. } => self.begin(),
            Message::Commit { end_lsn, .. } => return Ok(Some(self.commit(end_lsn))),
            Message::Relation { relation_id, namespace, relation_name, columns, .. } => {
                self.routes.remove(&relation_id);
                let followed =
                    |table: &Table| *table.namespace == *namespace && *table.name == *relation_name;
                if let Some(table) = self.tables.iter().position(followed) {
                    let place = |name: &str| columns.iter().position(|column| *column.name == *name);
                    let places = self.places(table, place)?;
                    self.routes.insert(relation_id, Route { table, places });
                }
            }
            Message::Insert { relation_id, tuple } => {
                if let Some(route) = self.routes.remove(&relation_id) {
                    let done = self.insert(&route, &tuple, None);
                    self.routes.insert(relation_id, route);
                    done?;
                }
            }
            Message::Update { relation_id, old_tuple, new_tuple, key_type } => {
                if let Some(route) = self.routes.remove(&relation_id) {
                    let done = self.update(&route, old_tuple.as_ref(), &new_tuple, key_type);
                    self.routes.insert(relation_id, route);
                    done?;
                }
            }
            Message::Delete { relation_id, old_tuple, key_type } => {
                if let Some(route) = self.routes.remove(&relation_id) {
                    let done = self.delete(&route, &old_tuple, key_type == 'O');
                    self.routes.insert(relation_id, route);
                    done?;
                }
            }
            Message::Truncate { relation_ids, .. } => {
                for id in relation_ids {
                    if let Some(route) = self.routes.get(&id) {
                        self.ledgers[route.table].clear();
                    }
                }
            }
            // Types, origins and messages of applications say nothing about rows; the rest belongs to later versions
            // of the protocol, which aren't asked for.
            _ => {}
        }
        if self.bytes > self.limit {
            return Err(StreamError::TooLarge { limit: self.limit });
        }
        Ok(None)
    }

    fn commit(&mut self, position: u64) -> Commit {
        let changes = self.ledgers.iter_mut().filter_map(Ledger::take).collect();
        let (contents, pin) = (std::mem::take(&mut self.contents), self.pin.take().unwrap_or_default());
        let transaction = Transaction { contents, changes, pin };
        Commit { position, transaction, bad_rows: self.bad_rows, bad: self.bad.take() }
    }

    fn places(&self, table: usize, place: impl Fn(&str) -> Option<usize>) -> Result<Vec<usize>, StreamError> {
        let columns = &self.tables[table].columns;
        let find = |(name, _): &(String, Option<String>)| {
            place(name)
                .ok_or_else(|| StreamError::NoColumn { table: self.title(table), column: name.clone() })
        };
        columns.iter().map(find).collect()
    }

    fn title(&self, table: usize) -> String {
        let table = &self.tables[table];
        format!("{}.{}", table.namespace, table.name)
    }

    /// Adds a row; `false` if it doesn't fit and is left out.
    fn insert(
        &mut self,
        route: &Route,
        tuple: &TupleData,
        old: Option<&TupleData>,
    ) -> Result<bool, StreamError> {
        let row = self.row(route, tuple, old, &|_| true)?;
        let fits = row.is_some();
        row.into_iter().for_each(|row| self.ledgers[route.table].insert(row));
        Ok(fits)
    }

    fn update(
        &mut self,
        route: &Route,
        old: Option<&TupleData>,
        new: &TupleData,
        kind: Option<char>,
    ) -> Result<(), StreamError> {
        let whole = old.filter(|_| kind == Some('O'));
        match old {
            Some(old) => self.delete(route, old, whole.is_some())?,
            // The key is as it was, and the new row takes the old one's place by it.
            None if self.keyed(route) => {}
            None => return Err(StreamError::NoOldRow(self.title(route.table))),
        }
        // A row that doesn't fit takes nobody's place, but the old one is gone all the same.
        if !self.insert(route, new, whole)? && self.keyed(route) {
            self.delete(route, new, false)?;
        }
        Ok(())
    }

    fn delete(&mut self, route: &Route, old: &TupleData, whole: bool) -> Result<(), StreamError> {
        let key = match &self.ledgers[route.table].target().input {
            crate::plan::InputMode::Upsert(key) => Some(key.clone()),
            _ if whole => None,
            _ => return Err(StreamError::NoOldRow(self.title(route.table))),
        };
        // A row that didn't fit was never there.
        let (bad_rows, bad) = (self.bad_rows, self.bad.take());
        let row = self.row(route, old, None, &|column| key.as_ref().is_none_or(|key| key.contains(&column)));
        (self.bad_rows, self.bad) = (bad_rows, bad);
        if let Some(row) = row? {
            self.ledgers[route.table].delete(row);
        }
        Ok(())
    }

    fn keyed(&self, route: &Route) -> bool {
        matches!(self.ledgers[route.table].target().input, crate::plan::InputMode::Upsert(_))
    }

    /// The words of a row, those of the columns that are needed; none if it doesn't fit and is skipped.
    fn row(
        &mut self,
        route: &Route,
        tuple: &TupleData,
        old: Option<&TupleData>,
        needed: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Vec<Word>>, StreamError> {
        self.pin.get_or_insert_default();
        let mut context = Context::new(Encoding::Json, &NoSchemas);
        let table = &self.tables[route.table];
        let mut words = Vec::with_capacity(route.places.len());
        let mut wrong = None;
        for (index, (&place, (name, null))) in route.places.iter().zip(&table.columns).enumerate() {
            let word = if needed(index) {
                let ty = table.target.columns[index].ty;
                value(tuple, old, place, null.as_deref()).and_then(|text| from_text(ty, text, &mut context))
            } else {
                Ok(0)
            };
            match word {
                Ok(word) => words.push(word),
                Err(message) => {
                    wrong = Some(format!("table {}, column {name:?}: {message}", self.title(route.table)));
                    break;
                }
            }
        }
        self.bytes += 32 + words.len() * size_of::<Word>();
        self.bytes += context.contents.iter().map(Content::bytes).sum::<usize>();
        self.contents.append(&mut context.contents);
        match (wrong, self.on_bad) {
            (None, _) => Ok(Some(words)),
            (Some(message), OnBad::Stop) => Err(StreamError::Bad(message)),
            (Some(message), OnBad::Skip) => {
                self.bad_rows += 1;
                self.bad.get_or_insert(message);
                Ok(None)
            }
        }
    }
}

/// The text of a value; a large one that an update left as it was isn't sent again, but stands in the old row, if that
/// was sent.
fn value<'t>(
    tuple: &'t TupleData,
    old: Option<&'t TupleData>,
    place: usize,
    null: Option<&'t str>,
) -> Result<&'t str, String> {
    let given = |tuple: &'t TupleData| tuple.get_column(place).filter(|data| !data.is_unchanged());
    let data: &ColumnData = given(tuple)
        .or_else(|| old.and_then(given))
        .ok_or("a large value that the update left as it was isn't sent: REPLICA IDENTITY FULL would")?;
    if data.is_null() {
        return null.ok_or_else(|| "null, and nothing is given to stand for it".to_owned());
    }
    std::str::from_utf8(data.as_bytes()).map_err(|_| "not UTF-8".to_owned())
}
