//! Column types, and the representation of a value as one word.
//!
//! A row is a run of 64-bit words, one a column (ADR 0003). The encoding of every ordered type preserves its order,
//! so comparing two words of one column as unsigned integers compares the values: the engine sorts, compares and
//! takes minima without looking at a type. Symbols are the exception; see [`crate::symbols`].

use serde::{Deserialize, Serialize};

/// One column's value, encoded.
pub type Word = u64;

const SIGN: u64 = 1 << 63;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
}

impl Type {
    /// The name that programs and the wire use.
    pub fn name(self) -> &'static str {
        match self {
            Type::Number => "number",
            Type::Unsigned => "unsigned",
            Type::Float => "float",
            Type::Symbol => "symbol",
            Type::Bool => "bool",
        }
    }
}

/// A named, typed column of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Name as declared.
    pub name: String,
    /// Type as declared, aliases resolved.
    #[serde(rename = "type")]
    pub ty: Type,
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
