//! Column types, and the representation of a value as one word.
//!
//! A row is a run of 64-bit words, one a column (ADR 0003). The encoding of every ordered type preserves its order,
//! so comparing two words of one column as unsigned integers compares the values: the engine sorts, compares and
//! takes minima without looking at a type. Symbols, uuids and bytes are the exception; see [`crate::dictionary`].

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};

use crate::shape::Shapes;

/// One column's value, encoded.
pub type Word = u64;

const SIGN: u64 = 1 << 63;

/// The record that is nothing, of whatever record type.
pub const NIL: Word = 0;

/// Names a record type or an algebraic one by its definition: the first bytes of its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CompositeId(pub u64);

impl From<CompositeId> for String {
    fn from(id: CompositeId) -> String {
        format!("#{:016x}", id.0)
    }
}

impl TryFrom<String> for CompositeId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 16);
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.map(CompositeId).ok_or_else(|| format!("unknown type {text:?}"))
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Signed 64-bit integer.
    Number,
    /// Unsigned 64-bit integer.
    Unsigned,
    /// 64-bit float; −0.0 is 0.0 and NaN equals NaN.
    Float,
    /// UTF-8 text.
    Symbol,
    /// Truth value.
    Bool,
    /// Microseconds since 1970, UTC, within the years 1 to 9999; encoded as a number is.
    Instant,
    /// Sixteen bytes, kept in the dictionary.
    Uuid,
    /// Bytes.
    Bytes,
    /// A record or a value of an algebraic type, kept in the dictionary; see [`crate::shape`].
    Composite(CompositeId),
}

/// The types that have names of their own.
const SIMPLE: [Type; 8] = [
    Type::Number,
    Type::Unsigned,
    Type::Float,
    Type::Symbol,
    Type::Bool,
    Type::Instant,
    Type::Uuid,
    Type::Bytes,
];

/// As plans have it: by name, or by what is defined.
impl Serialize for Type {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.plan_name())
    }
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match Type::simple(&text) {
            Some(ty) => Ok(ty),
            None => CompositeId::try_from(text).map(Type::Composite).map_err(de::Error::custom),
        }
    }
}

impl Type {
    /// The name that programs and the wire use; a composite type has one in its definition.
    pub fn name(self) -> &'static str {
        match self {
            Type::Number => "number",
            Type::Unsigned => "unsigned",
            Type::Float => "float",
            Type::Symbol => "symbol",
            Type::Bool => "bool",
            Type::Instant => "instant",
            Type::Uuid => "uuid",
            Type::Bytes => "bytes",
            Type::Composite(_) => "record",
        }
    }

    /// The type that has this name, if it isn't a composite one.
    pub fn simple(name: &str) -> Option<Type> {
        SIMPLE.into_iter().find(|ty| ty.name() == name)
    }

    /// What plans call it.
    pub fn plan_name(self) -> Cow<'static, str> {
        match self {
            Type::Composite(id) => Cow::Owned(id.into()),
            simple => Cow::Borrowed(simple.name()),
        }
    }

    /// Whether the order of words isn't the order of values, which is that of their bytes.
    pub fn ordered_by_bytes(self) -> bool {
        matches!(self, Type::Symbol | Type::Uuid | Type::Bytes)
    }
}

/// A named, typed column of a relation, or field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Name as declared.
    pub name: String,
    /// Type as declared, aliases resolved.
    #[serde(rename = "type")]
    pub ty: Type,
    /// What a composite type and those in it are; absent in plans, which have the definitions once.
    #[serde(skip)]
    pub shapes: Option<Arc<Shapes>>,
}

impl Column {
    /// A column whose type, if it is composite, isn't defined here.
    pub fn new(name: impl Into<String>, ty: Type) -> Self {
        Column { name: name.into(), ty, shapes: None }
    }

    /// The type's name as programs and the wire have it.
    pub fn type_name(&self) -> Cow<'_, str> {
        match &self.shapes {
            Some(shapes) => Cow::Borrowed(shapes.name(self.ty)),
            None => self.ty.plan_name(),
        }
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Column", 2)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("type", &self.type_name())?;
        fields.end()
    }
}

/// Encodes a signed integer; the order of words is the order of numbers.
#[inline]
pub fn from_number(value: i64) -> Word {
    (value as u64) ^ SIGN
}

/// Decodes a signed integer.
#[inline]
pub fn to_number(word: Word) -> i64 {
    (word ^ SIGN) as i64
}

/// Encodes a float; −0.0 becomes 0.0, every NaN the same word, greater than all others.
#[inline]
pub fn from_float(value: f64) -> Word {
    let value = if value == 0.0 { 0.0 } else { value };
    let bits = if value.is_nan() { f64::NAN.to_bits() & !SIGN } else { value.to_bits() };
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// Decodes a float.
#[inline]
pub fn to_float(word: Word) -> f64 {
    f64::from_bits(if word & SIGN != 0 { word & !SIGN } else { !word })
}

/// Encodes a truth value.
#[inline]
pub fn from_bool(value: bool) -> Word {
    u64::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_the_order_of_numbers_and_floats() {
        let numbers = [i64::MIN, -7, -1, 0, 1, 42, i64::MAX];
        assert!(numbers.windows(2).all(|w| from_number(w[0]) < from_number(w[1])));
        assert!(numbers.iter().all(|&n| to_number(from_number(n)) == n));
        let floats = [f64::NEG_INFINITY, -1e300, -1.5, -1e-300, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN];
        assert!(floats.windows(2).all(|w| from_float(w[0]) < from_float(w[1])));
        assert!(floats.iter().all(|&f| from_float(to_float(from_float(f))) == from_float(f)));
    }

    #[test]
    fn zero_and_nan_have_one_word_each() {
        assert_eq!(from_float(-0.0), from_float(0.0));
        assert_eq!(from_float(-f64::NAN), from_float(f64::NAN));
    }
}
