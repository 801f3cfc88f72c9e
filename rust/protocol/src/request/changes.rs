//! Rows and filters, by a relation's columns.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::cells::Cell;
use super::context::{Context, List, Spot, unknown_column};
use super::fields::{Field, FieldSeed};
use super::source::{Here, Kept, Raw, RawSeed, Slot};
use super::{Change, Filter, Schema};
use crate::error::ErrorBody;
use crate::rows::RowBuf;

/// Seed of the `changes` of a transaction.
pub(super) struct Changes<'c, 's>(pub(super) &'c mut Context<'s>);

impl<'de> DeserializeSeed<'de> for Changes<'_, '_> {
    type Value = Vec<Change>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Change>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Changes<'_, '_> {
    type Value = Vec<Change>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of changes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Change>, A::Error> {
        let mut changes = Vec::new();
        while let Some(change) = seq.next_element_seed(OneChange { context: self.0, index: changes.len() })? {
            changes.push(change);
        }
        Ok(changes)
    }
}

/// Seed of one change.
struct OneChange<'c, 's> {
    context: &'c mut Context<'s>,
    index: usize,
}

impl<'de> DeserializeSeed<'de> for OneChange<'_, '_> {
    type Value = Change;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Change, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneChange<'_, '_> {
    type Value = Change;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "change {} to be an object with `relation`, `insert`, `delete`", self.index)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Change, A::Error> {
        let mut relation = None;
        let mut lists: [Option<RowBuf>; 2] = [None, None];
        let mut kept: [Option<Raw<'de>>; 2] = [None, None];
        while let Some(name) = map.next_key_seed(FieldSeed)? {
            let list = match name {
                Field::Relation if relation.is_none() => {
                    let name = map.next_value::<std::borrow::Cow<'de, str>>()?;
                    relation = Some(self.input(&name)?);
                    continue;
                }
                Field::Delete => List::Delete,
                Field::Insert => List::Insert,
                other => return Err(self.unexpected(&other)),
            };
            if lists[list as usize].is_some() || kept[list as usize].is_some() {
                return Err(self.unexpected(&name));
            }
            match &relation {
                Some(relation) => lists[list as usize] = self.rows(relation, list, Here(&mut map))?,
                None => kept[list as usize] = Some(map.next_value_seed(RawSeed(self.context.encoding))?),
            }
        }
        let Some(relation) = relation else {
            let body = ErrorBody::incorrect(format!("change {} has no `relation`", self.index));
            return Err(self.context.refuse(body));
        };
        for list in [List::Delete, List::Insert] {
            if let Some(raw) = kept[list as usize].take() {
                lists[list as usize] = self.rows(&relation, list, Kept(raw, PhantomData))?;
            }
        }
        let width = relation.columns.len();
        let [delete, insert] = lists.map(|rows| rows.unwrap_or_else(|| RowBuf::new(width)));
        Ok(Change { relation, insert, delete })
    }
}

impl OneChange<'_, '_> {
    fn input<E: de::Error>(&mut self, name: &str) -> Result<Arc<Schema>, E> {
        let schema = self.context.relation(name)?;
        if schema.input {
            return Ok(schema);
        }
        let body = ErrorBody::incorrect(format!("cannot transact into relation `{name}`: it is derived"))
            .with_hint("Change the input relations that it is derived from.".to_owned());
        Err(self.context.refuse(body))
    }

    fn unexpected<E: de::Error>(&mut self, name: &Field) -> E {
        let known = [Field::Relation, Field::Insert, Field::Delete];
        let what = if known.contains(name) { "duplicate" } else { "unknown" };
        let body = ErrorBody::incorrect(format!("{what} field `{}` in change {}", name.text(), self.index));
        self.context.refuse(body)
    }

    fn rows<'de, S: Slot<'de>>(
        &mut self,
        relation: &Arc<Schema>,
        list: List,
        slot: S,
    ) -> Result<Option<RowBuf>, S::Error> {
        slot.read(Rows { context: self.context, relation, list, change: self.index })
    }
}

/// Seed of a list of rows; `None` for null.
struct Rows<'c, 's> {
    context: &'c mut Context<'s>,
    relation: &'c Arc<Schema>,
    list: List,
    change: usize,
}

impl<'de> DeserializeSeed<'de> for Rows<'_, '_> {
    type Value = Option<RowBuf>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<RowBuf>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = Option<RowBuf>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` of change {} to be an array of rows", self.list.name(), self.change)
    }

    fn visit_unit<E>(self) -> Result<Option<RowBuf>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<RowBuf>, A::Error> {
        let mut rows = RowBuf::new(self.relation.columns.len());
        let mut column = None;
        loop {
            let row =
                Row { context: self.context, schema: self.relation, rows: &mut rows, column: &mut column };
            match seq.next_element_seed(row) {
                Ok(Some(())) => self.context.count_row()?,
                Ok(None) => return Ok(Some(rows)),
                Err(error) => {
                    self.context.spot.get_or_insert_with(|| Spot::Row {
                        relation: Arc::clone(self.relation),
                        change: self.change,
                        list: self.list,
                        row: rows.len(),
                        column,
                    });
                    return Err(error);
                }
            }
        }
    }
}

/// Seed of a row, which is added to a buffer.
struct Row<'c, 's> {
    context: &'c mut Context<'s>,
    schema: &'c Schema,
    rows: &'c mut RowBuf,
    /// The column being read, for the message if its value doesn't fit.
    column: &'c mut Option<usize>,
}

impl<'de> DeserializeSeed<'de> for Row<'_, '_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.column = None;
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for (index, column) in self.schema.columns.iter().enumerate() {
            *self.column = Some(index);
            match seq.next_element_seed(Cell::new(column, self.context, false))? {
                Some(word) => self.rows.push_word(word),
                None => {
                    *self.column = None;
                    self.context.width = Some(index);
                    return Err(de::Error::custom("too short"));
                }
            }
        }
        *self.column = None;
        let mut width = self.schema.columns.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            width += 1;
            self.context.width = Some(width);
        }
        if self.context.width.is_some() || !self.rows.end_row() {
            return Err(de::Error::custom("too long"));
        }
        Ok(())
    }
}

/// Seed of a `where`; null is no condition.
pub(super) struct Where<'c, 's> {
    pub(super) context: &'c mut Context<'s>,
    pub(super) relation: &'c Arc<Schema>,
}

impl<'de> DeserializeSeed<'de> for Where<'_, '_> {
    type Value = Filter;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Filter, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Where<'_, '_> {
    type Value = Filter;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object from column names to values")
    }

    fn visit_unit<E>(self) -> Result<Filter, E> {
        Ok(Filter::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Filter, A::Error> {
        let mut filter = Filter::new();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let columns = &self.relation.columns;
            let Some(index) = columns.iter().position(|column| column.name == name) else {
                let body = unknown_column(&self.relation.name, &name, columns, "where");
                return Err(self.context.refuse(body));
            };
            if filter.iter().any(|&(column, _)| column == index) {
                let body = ErrorBody::incorrect(format!("duplicate column `{name}` in `where`"));
                return Err(self.context.refuse(body));
            }
            match map.next_value_seed(Cell::new(&columns[index], self.context, true)) {
                Ok(word) => filter.push((index, word)),
                Err(error) => {
                    let spot = Spot::Where { relation: Arc::clone(self.relation), column: index };
                    self.context.spot.get_or_insert(spot);
                    return Err(error);
                }
            }
        }
        Ok(filter)
    }
}
