//! Rows, from MessagePack to keys.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Table, key};
use crate::request::{Cell, Context};
use crate::shape::{Composite, MAX_DEPTH, Shapes};
use crate::value::{self, Column, Type};

/// Seed of the changes of a message, `[[row, copies], …]`, which are added to a table.
pub(super) struct Changes<'t, 's> {
    pub(super) table: &'t mut Table,
    pub(super) context: &'t mut Context<'s>,
}

impl<'de> DeserializeSeed<'de> for Changes<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Changes<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of changes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(OneChange { table: self.table, context: self.context })?.is_some() {}
        Ok(())
    }
}

struct OneChange<'t, 's> {
    table: &'t mut Table,
    context: &'t mut Context<'s>,
}

impl<'de> DeserializeSeed<'de> for OneChange<'_, '_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OneChange<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a row and its copies")
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let start = self.table.keys.len();
        let Table { columns, keys, .. } = &mut *self.table;
        let row = Values { columns, shapes: None, context: self.context, key: keys, depth: 0 };
        let row = seq.next_element_seed(row)?;
        let copies = seq.next_element::<i64>()?;
        let (Some(()), Some(copies), None) = (row, copies, seq.next_element::<IgnoredAny>()?) else {
            return Err(de::Error::custom("a change is a row and its copies"));
        };
        self.table.end_row(start, copies);
        Ok(())
    }
}

/// Seed of an array of values, which are added to a key: a row, or the fields of a record.
struct Values<'t, 's> {
    columns: &'t [Column],
    /// What the types of fields are; columns bring their own.
    shapes: Option<&'t Shapes>,
    context: &'t mut Context<'s>,
    key: &'t mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Values<'_, '_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Values<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an array of {} values", self.columns.len())
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for (index, column) in self.columns.iter().enumerate() {
            let shapes = self.shapes.or(column.shapes.as_deref());
            let one = One { ty: column.ty, shapes, context: self.context, key: self.key, depth: self.depth };
            if seq.next_element_seed(one)?.is_none() {
                return Err(de::Error::invalid_length(index, &self));
            }
        }
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(de::Error::invalid_length(self.columns.len() + 1, &self)),
        }
    }
}

/// Seed of a value, which is added to a key.
struct One<'t, 's> {
    ty: Type,
    shapes: Option<&'t Shapes>,
    context: &'t mut Context<'s>,
    key: &'t mut Vec<u8>,
    /// How many records it stands in.
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for One<'_, '_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let One { ty, shapes, context, key, depth } = self;
        let mut word = |deserializer| {
            Cell { ty, shapes: None, context: &mut *context, asking: true, depth }.deserialize(deserializer)
        };
        match ty {
            Type::Number => key::number(value::to_number(word(deserializer)?), key),
            Type::Unsigned | Type::Bool => key::integer(false, word(deserializer)?, key),
            Type::Float | Type::Instant => key::word(word(deserializer)?, key),
            Type::Symbol => deserializer.deserialize_str(Text(key))?,
            Type::Uuid | Type::Bytes => deserializer.deserialize_bytes(Bytes { ty, key })?,
            Type::Composite(id) => match shapes.and_then(|shapes| Some((shapes, shapes.get(id)?))) {
                Some((shapes, composite)) if depth <= MAX_DEPTH => {
                    deserializer.deserialize_any(Record { composite, shapes, context, key, depth })?;
                }
                Some(_) => return Err(de::Error::custom("records too deep in one another")),
                None => return Err(de::Error::custom("a type that nobody has defined")),
            },
        }
        Ok(())
    }
}

struct Text<'t>(&'t mut Vec<u8>);

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    #[inline]
    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        key::bytes(text.as_bytes(), self.0);
        Ok(())
    }
}

struct Bytes<'t> {
    /// `bytes` or `uuid`.
    ty: Type,
    key: &'t mut Vec<u8>,
}

impl Visitor<'_> for Bytes<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.ty.name())
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<(), E> {
        match self.ty {
            Type::Uuid if bytes.len() != 16 => return Err(E::custom("a uuid has 16 bytes")),
            Type::Uuid => self.key.extend_from_slice(bytes),
            _ => key::bytes(bytes, self.key),
        }
        Ok(())
    }
}

struct Record<'t, 's> {
    composite: &'t Composite,
    shapes: &'t Shapes,
    context: &'t mut Context<'s>,
    key: &'t mut Vec<u8>,
    depth: usize,
}

impl<'t, 's> Record<'t, 's> {
    fn fields(self, columns: &'t [Column]) -> Values<'t, 's> {
        let Record { shapes, context, key, depth, .. } = self;
        Values { columns, shapes: Some(shapes), context, key, depth: depth + 1 }
    }
}

impl<'de> Visitor<'de> for Record<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.composite.name)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if self.composite.record().is_none() {
            return Err(E::invalid_type(de::Unexpected::Unit, &self));
        }
        self.key.push(key::NIL);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let Some(fields) = self.composite.record() else {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        };
        self.key.push(key::RECORD);
        self.fields(fields).visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let name = map.next_key::<Cow<'de, str>>()?;
        let name = name.as_deref().and_then(|name| name.strip_prefix('$'));
        let mut branches = (0u16..).zip(&self.composite.branches);
        let branch = branches.find(|(_, branch)| name.is_some() && branch.name.as_deref() == name);
        let Some((number, branch)) = branch else { return Err(de::Error::custom("no such branch")) };
        key::branch(number, self.key);
        map.next_value_seed(self.fields(&branch.fields))?;
        match map.next_key::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(de::Error::custom("more than one branch")),
        }
    }
}
