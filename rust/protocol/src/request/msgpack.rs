//! A deserializer of MessagePack that can hand out a value's raw bytes.
//!
//! Beside what serde asks for, it serves [`Raw`](super::source::Raw) values by position, which a reader behind
//! `std::io::Read` cannot, and it never looks at a declared length without looking at the bytes left. Nesting costs
//! no stack: visitors of this crate descend a fixed number of levels, and what they skip is skipped in a loop.

use rmp::Marker;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// The name of the newtype by which a visitor asks for a value's raw bytes.
pub(super) const RAW: &str = "dataflow_protocol::Raw";

/// The name of the newtype by which a visitor asks for an extension: as bytes, its type before its data.
pub(super) const EXTENSION: &str = "dataflow_protocol::Extension";

/// The type byte of the timestamp extension, −1.
pub(super) const TIMESTAMP: u8 = 0xff;

/// Why a value could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The bytes end inside a value.
    #[error("the message ends inside a value")]
    Truncated,
    /// A byte that begins no value.
    #[error("byte {0:#04x} begins no value")]
    Reserved(u8),
    /// A string that isn't UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// What a visitor says of a well-formed value.
    #[error("{0}")]
    Refused(String),
}

impl de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Error::Refused(message.to_string())
    }
}

/// Reads values from the front of a slice.
pub(super) struct Reader<'de> {
    rest: &'de [u8],
}

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// Bytes not read yet.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    fn slice(&mut self, length: usize) -> Result<&'de [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn text(&mut self, length: usize) -> Result<&'de str, Error> {
        std::str::from_utf8(self.slice(length)?).map_err(|_| Error::Utf8)
    }

    fn marker(&mut self) -> Result<Marker, Error> {
        Ok(Marker::from_u8(self.take::<1>()?[0]))
    }

    fn length8(&mut self) -> Result<usize, Error> {
        Ok(usize::from(self.take::<1>()?[0]))
    }

    fn length16(&mut self) -> Result<usize, Error> {
        Ok(usize::from(u16::from_be_bytes(self.take()?)))
    }

    fn length32(&mut self) -> Result<usize, Error> {
        Ok(u32::from_be_bytes(self.take()?) as usize)
    }

    /// Passes over one value and returns its bytes.
    fn skip(&mut self) -> Result<&'de [u8], Error> {
        let start = self.rest;
        let mut pending: u64 = 1;
        while pending > 0 {
            pending -= 1;
            pending += self.skip_head()?;
        }
        Ok(&start[..start.len() - self.rest.len()])
    }

    /// Passes over a value but for the values inside it, whose number is returned.
    fn skip_head(&mut self) -> Result<u64, Error> {
        let (bytes, inside) = match self.marker()? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => (0, 0),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(length) => return self.skip_text(usize::from(length)),
            Marker::Str8 => return self.length8().and_then(|length| self.skip_text(length)),
            Marker::Str16 => return self.length16().and_then(|length| self.skip_text(length)),
            Marker::Str32 => return self.length32().and_then(|length| self.skip_text(length)),
            Marker::Bin8 => (self.length8()?, 0),
            Marker::Bin16 => (self.length16()?, 0),
            Marker::Bin32 => (self.length32()?, 0),
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::Ext8 => (self.length8()? + 1, 0),
            Marker::Ext16 => (self.length16()? + 1, 0),
            Marker::Ext32 => (self.length32()? + 1, 0),
            Marker::FixArray(length) => (0, u64::from(length)),
            Marker::Array16 => (0, self.length16()? as u64),
            Marker::Array32 => (0, self.length32()? as u64),
            Marker::FixMap(length) => (0, 2 * u64::from(length)),
            Marker::Map16 => (0, 2 * self.length16()? as u64),
            Marker::Map32 => (0, 2 * self.length32()? as u64),
            Marker::Reserved => return Err(Error::Reserved(Marker::Reserved.to_u8())),
        };
        self.slice(bytes)?;
        Ok(inside)
    }

    /// What is skipped must be text all the same: an id is echoed, and a message is well-formed as a whole or not.
    fn skip_text(&mut self, length: usize) -> Result<u64, Error> {
        self.text(length).map(|_| 0)
    }

    fn seq<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> Result<V::Value, Error> {
        let mut elements = Elements { reader: self, left: length };
        let value = visitor.visit_seq(&mut elements)?;
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(value)
    }

    fn map<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> Result<V::Value, Error> {
        let mut elements = Elements { reader: self, left: length };
        let value = visitor.visit_map(&mut elements)?;
        while elements.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(value)
    }

    /// An extension that was not asked for: a visitor of anything sees it as bytes.
    fn extension<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.take::<1>()?;
        visitor.visit_borrowed_bytes(self.slice(length)?)
    }

    /// The type and the data of an extension; `None`, and nothing read, if the next value isn't one.
    fn read_extension(&mut self) -> Result<Option<&'de [u8]>, Error> {
        let start = self.rest;
        let length = match self.marker()? {
            Marker::FixExt1 => 1,
            Marker::FixExt2 => 2,
            Marker::FixExt4 => 4,
            Marker::FixExt8 => 8,
            Marker::FixExt16 => 16,
            Marker::Ext8 => self.length8()?,
            Marker::Ext16 => self.length16()?,
            Marker::Ext32 => self.length32()?,
            _ => {
                self.rest = start;
                return Ok(None);
            }
        };
        self.slice(1 + length).map(Some)
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.marker()? {
            Marker::FixPos(value) => visitor.visit_u64(u64::from(value)),
            Marker::FixNeg(value) => visitor.visit_i64(i64::from(value)),
            Marker::Null => visitor.visit_unit(),
            Marker::True => visitor.visit_bool(true),
            Marker::False => visitor.visit_bool(false),
            Marker::U8 => visitor.visit_u64(u64::from(self.take::<1>()?[0])),
            Marker::U16 => visitor.visit_u64(u64::from(u16::from_be_bytes(self.take()?))),
            Marker::U32 => visitor.visit_u64(u64::from(u32::from_be_bytes(self.take()?))),
            Marker::U64 => visitor.visit_u64(u64::from_be_bytes(self.take()?)),
            Marker::I8 => visitor.visit_i64(i64::from(i8::from_be_bytes(self.take()?))),
            Marker::I16 => visitor.visit_i64(i64::from(i16::from_be_bytes(self.take()?))),
            Marker::I32 => visitor.visit_i64(i64::from(i32::from_be_bytes(self.take()?))),
            Marker::I64 => visitor.visit_i64(i64::from_be_bytes(self.take()?)),
            Marker::F32 => visitor.visit_f64(f64::from(f32::from_be_bytes(self.take()?))),
            Marker::F64 => visitor.visit_f64(f64::from_be_bytes(self.take()?)),
            Marker::FixStr(length) => visitor.visit_borrowed_str(self.text(usize::from(length))?),
            Marker::Str8 => visitor.visit_borrowed_str(self.length8().and_then(|length| self.text(length))?),
            Marker::Str16 => {
                visitor.visit_borrowed_str(self.length16().and_then(|length| self.text(length))?)
            }
            Marker::Str32 => {
                visitor.visit_borrowed_str(self.length32().and_then(|length| self.text(length))?)
            }
            Marker::Bin8 => {
                visitor.visit_borrowed_bytes(self.length8().and_then(|length| self.slice(length))?)
            }
            Marker::Bin16 => {
                visitor.visit_borrowed_bytes(self.length16().and_then(|length| self.slice(length))?)
            }
            Marker::Bin32 => {
                visitor.visit_borrowed_bytes(self.length32().and_then(|length| self.slice(length))?)
            }
            Marker::FixExt1 => self.extension(1, visitor),
            Marker::FixExt2 => self.extension(2, visitor),
            Marker::FixExt4 => self.extension(4, visitor),
            Marker::FixExt8 => self.extension(8, visitor),
            Marker::FixExt16 => self.extension(16, visitor),
            Marker::Ext8 => self.length8().and_then(|length| self.extension(length, visitor)),
            Marker::Ext16 => self.length16().and_then(|length| self.extension(length, visitor)),
            Marker::Ext32 => self.length32().and_then(|length| self.extension(length, visitor)),
            Marker::FixArray(length) => self.seq(usize::from(length), visitor),
            Marker::Array16 => self.length16().and_then(|length| self.seq(length, visitor)),
            Marker::Array32 => self.length32().and_then(|length| self.seq(length, visitor)),
            Marker::FixMap(length) => self.map(usize::from(length), visitor),
            Marker::Map16 => self.length16().and_then(|length| self.map(length, visitor)),
            Marker::Map32 => self.length32().and_then(|length| self.map(length, visitor)),
            Marker::Reserved => Err(Error::Reserved(Marker::Reserved.to_u8())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.rest.first() == Some(&Marker::Null.to_u8()) {
            self.skip()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &str, visitor: V) -> Result<V::Value, Error> {
        match name {
            RAW => visitor.visit_borrowed_bytes(self.skip()?),
            EXTENSION => match self.read_extension()? {
                Some(extension) => visitor.visit_borrowed_bytes(extension),
                None => {
                    self.skip()?;
                    Err(de::Error::invalid_type(de::Unexpected::Other("another value"), &visitor))
                }
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.read_extension()? {
            Some(_) => Err(de::Error::invalid_type(de::Unexpected::Other("an extension"), &visitor)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier
    }
}

/// The elements of an array, or the entries of a map, that are still to be read.
struct Elements<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }
}
