//! Values, by the types of columns.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::{SmallVec, smallvec};

use super::context::Context;
use super::msgpack;
use crate::dictionary::{self, Entry, TooLarge};
use crate::encoding::Encoding;
use crate::shape::{Composite, MAX_DEPTH, Shapes};
use crate::spelling;
use crate::value::{self, Column, NIL, Type, Word};

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
