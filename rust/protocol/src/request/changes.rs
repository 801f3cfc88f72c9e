//! Rows and filters, by a relation's columns.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::{SmallVec, smallvec};

use super::context::{Context, List, Spot, unknown_column};
use super::fields::{Field, FieldSeed};
use super::source::{Here, Kept, Raw, RawSeed, Slot};
use super::{Change, Filter, Schema, msgpack};
use crate::dictionary::{self, Entry, TooLarge};
use crate::encoding::Encoding;
use crate::error::ErrorBody;
use crate::rows::RowBuf;
use crate::shape::{Composite, MAX_DEPTH, Shapes};
use crate::spelling;
use crate::value::{self, Column, NIL, Type, Word};

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

/// Seed of a value of a column.
pub(crate) struct Cell<'c, 's> {
    pub(crate) ty: Type,
    /// What a composite type is.
    pub(crate) shapes: Option<&'c Shapes>,
    pub(crate) context: &'c mut Context<'s>,
    /// The value is only asked for: it brings nothing new.
    pub(crate) asking: bool,
    /// How many records it stands in.
    pub(crate) depth: usize,
}

impl<'c, 's> Cell<'c, 's> {
    #[inline]
    pub(crate) fn new(column: &'c Column, context: &'c mut Context<'s>, asking: bool) -> Self {
        Cell { ty: column.ty, shapes: column.shapes.as_deref(), context, asking, depth: 0 }
    }
}

impl<'de> DeserializeSeed<'de> for Cell<'_, '_> {
    type Value = Word;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Word, D::Error> {
        match self.ty {
            Type::Number => deserializer.deserialize_i64(NumberCell),
            Type::Unsigned => deserializer.deserialize_u64(UnsignedCell),
            // Any, not f64: the names of what isn't a JSON number must come through.
            Type::Float => deserializer.deserialize_any(FloatCell(self.context.encoding)),
            Type::Symbol => {
                deserializer.deserialize_str(SymbolCell { context: self.context, asking: self.asking })
            }
            Type::Bool => deserializer.deserialize_bool(BoolCell),
            Type::Instant => match self.context.encoding {
                Encoding::Json => deserializer.deserialize_str(InstantCell),
                Encoding::MessagePack => {
                    deserializer.deserialize_newtype_struct(msgpack::EXTENSION, InstantCell)
                }
            },
            Type::Uuid | Type::Bytes => {
                let cell = BytesCell { ty: self.ty, context: self.context, asking: self.asking };
                match cell.context.encoding {
                    Encoding::Json => deserializer.deserialize_str(cell),
                    Encoding::MessagePack => deserializer.deserialize_bytes(cell),
                }
            }
            Type::Composite(id) => match self.shapes.and_then(|shapes| shapes.get(id)) {
                // A `nil` may stand in the innermost record; one more record is refused when it is made.
                Some(composite) if self.depth <= MAX_DEPTH => {
                    deserializer.deserialize_any(CompositeCell { composite, cell: self })
                }
                Some(_) => Err(de::Error::custom(TooLarge)),
                None => Err(de::Error::custom("a type that nobody has defined")),
            },
        }
    }
}

struct NumberCell;

impl Visitor<'_> for NumberCell {
    type Value = Word;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an integer of 64 bits")
    }

    #[inline]
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Word, E> {
        Ok(value::from_number(number))
    }

    #[inline]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Word, E> {
        i64::try_from(number).map(value::from_number).map_err(|_| E::custom("too great"))
    }
}

struct UnsignedCell;

impl Visitor<'_> for UnsignedCell {
    type Value = Word;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an unsigned integer of 64 bits")
    }

    #[inline]
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Word, E> {
        Word::try_from(number).map_err(|_| E::custom("negative"))
    }

    #[inline]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Word, E> {
        Ok(number)
    }
}

struct FloatCell(Encoding);

impl Visitor<'_> for FloatCell {
    type Value = Word;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number")
    }

    #[inline]
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Word, E> {
        Ok(value::from_float(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Word, E> {
        Ok(value::from_float(number as f64))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Word, E> {
        Ok(value::from_float(number as f64))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
        match (self.0, text) {
            (Encoding::Json, "NaN") => Ok(value::from_float(f64::NAN)),
            (Encoding::Json, "inf") => Ok(value::from_float(f64::INFINITY)),
            (Encoding::Json, "-inf") => Ok(value::from_float(f64::NEG_INFINITY)),
            _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
    }
}

struct SymbolCell<'c, 's> {
    context: &'c mut Context<'s>,
    asking: bool,
}

impl Visitor<'_> for SymbolCell<'_, '_> {
    type Value = Word;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    #[inline]
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
        self.context.word(Entry::Text(text), self.asking)
    }
}

struct InstantCell;

impl Visitor<'_> for InstantCell {
    type Value = Word;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an instant")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
        spelling::parse_instant(text).map(value::from_number).ok_or_else(|| E::custom("no instant"))
    }

    /// An extension with its type before its data.
    fn visit_bytes<E: de::Error>(self, extension: &[u8]) -> Result<Word, E> {
        timestamp(extension).map(value::from_number).ok_or_else(|| E::custom("no instant"))
    }
}

/// MessagePack's timestamp in its three sizes.
fn timestamp(extension: &[u8]) -> Option<i64> {
    match extension {
        [msgpack::TIMESTAMP, data @ ..] if data.len() == 4 => {
            spelling::instant_of(i64::from(u32::from_be_bytes(data.try_into().ok()?)), 0)
        }
        [msgpack::TIMESTAMP, data @ ..] if data.len() == 8 => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            spelling::instant_of((both & ((1 << 34) - 1)) as i64, (both >> 34) as u32)
        }
        [msgpack::TIMESTAMP, data @ ..] if data.len() == 12 => {
            let (nanos, seconds) = data.split_first_chunk::<4>()?;
            spelling::instant_of(i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanos))
        }
        _ => None,
    }
}

struct BytesCell<'c, 's> {
    /// `bytes` or `uuid`.
    ty: Type,
    context: &'c mut Context<'s>,
    asking: bool,
}

impl Visitor<'_> for BytesCell<'_, '_> {
    type Value = Word;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.ty.name())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
        // A text is JSON's way alone.
        match (self.context.encoding, self.ty) {
            (Encoding::Json, Type::Uuid) => {
                let bytes = spelling::parse_uuid(text).ok_or_else(|| E::custom("no uuid"))?;
                self.context.word(Entry::Bytes(&bytes), self.asking)
            }
            (Encoding::Json, _) => {
                let bytes = spelling::parse_bytes(text).ok_or_else(|| E::custom("no base64"))?;
                self.context.word(Entry::Bytes(&bytes), self.asking)
            }
            (Encoding::MessagePack, _) => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Word, E> {
        if self.ty == Type::Uuid && bytes.len() != 16 {
            return Err(E::custom("a uuid has 16 bytes"));
        }
        self.context.word(Entry::Bytes(bytes), self.asking)
    }
}

struct BoolCell;

impl Visitor<'_> for BoolCell {
    type Value = Word;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("true or false")
    }

    #[inline]
    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Word, E> {
        Ok(value::from_bool(truth))
    }
}

struct CompositeCell<'c, 's> {
    composite: &'c Composite,
    cell: Cell<'c, 's>,
}

impl CompositeCell<'_, '_> {
    /// Reads the fields of a branch, and makes the value.
    fn fields<'de, A: SeqAccess<'de>>(self, branch: usize, mut seq: A) -> Result<Word, A::Error> {
        let Cell { shapes, context, asking, depth, .. } = self.cell;
        let mut words: SmallVec<[Word; 8]> = smallvec![branch as Word];
        let fields = self.composite.branches.get(branch).map_or(&[][..], |branch| &branch.fields);
        for field in fields {
            let cell = Cell { ty: field.ty, shapes, context, asking, depth: depth + 1 };
            match seq.next_element_seed(cell)? {
                Some(word) => words.push(word),
                None => return Err(de::Error::custom("too few fields")),
            }
        }
        if seq.next_element::<IgnoredAny>()?.is_some() {
            return Err(de::Error::custom("too many fields"));
        }
        dictionary::check_record(&words).map_err(de::Error::custom)?;
        context.word(Entry::Record(&words), asking)
    }
}

impl<'de> Visitor<'de> for CompositeCell<'_, '_> {
    type Value = Word;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.composite.name)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Word, E> {
        match self.composite.record() {
            Some(_) => Ok(NIL),
            None => Err(E::invalid_type(de::Unexpected::Unit, &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Word, A::Error> {
        match self.composite.record() {
            Some(_) => self.fields(0, seq),
            None => Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Word, A::Error> {
        let name = map.next_key::<std::borrow::Cow<'de, str>>()?;
        let branch = name.as_deref().and_then(|name| name.strip_prefix('$')).and_then(|name| {
            self.composite.branches.iter().position(|branch| branch.name.as_deref() == Some(name))
        });
        let Some(branch) = branch else { return Err(de::Error::custom("no such branch")) };
        let word = map.next_value_seed(Fields { branch, value: self })?;
        match map.next_key::<IgnoredAny>()? {
            None => Ok(word),
            Some(_) => Err(de::Error::custom("more than one branch")),
        }
    }
}

/// Seed of the fields of a branch.
struct Fields<'c, 's> {
    branch: usize,
    value: CompositeCell<'c, 's>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_, '_> {
    type Value = Word;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Word, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_, '_> {
    type Value = Word;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of fields")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Word, A::Error> {
        self.value.fields(self.branch, seq)
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
