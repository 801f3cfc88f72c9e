//! Values of either encoding, read through serde.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::msgpack;
use crate::encoding::Encoding;

/// Why a value could not be read, in words; whether the whole message is well-formed is another question.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What is wrong.
    pub(crate) what: String,
    /// Where, for a text.
    pub(crate) place: Option<String>,
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let whole = error.to_string();
        let what = whole.strip_suffix(&place).unwrap_or(&whole).to_owned();
        Failure { what, place: (error.line() > 0).then_some(place) }
    }
}

impl From<msgpack::Error> for Failure {
    fn from(error: msgpack::Error) -> Self {
        Failure { what: error.to_string(), place: None }
    }
}

/// Reads `bytes` as one value and nothing after it.
pub(crate) fn parse<'de, S: DeserializeSeed<'de>>(
    bytes: &'de [u8],
    encoding: Encoding,
    seed: S,
) -> Result<S::Value, Failure> {
    match encoding {
        Encoding::Json => {
            // Checked as a whole first, since the parser would pass over skipped strings unchecked.
            let text = std::str::from_utf8(bytes)
                .map_err(|error| Failure { what: format!("not UTF-8: {error}"), place: None })?;
            parse_json(text, seed)
        }
        Encoding::MessagePack => {
            let mut reader = msgpack::Reader::new(bytes);
            let value = seed.deserialize(&mut reader)?;
            match reader.remaining() {
                0 => Ok(value),
                bytes => Err(Failure { what: format!("{bytes} bytes follow the message"), place: None }),
            }
        }
    }
}

fn parse_json<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Result<S::Value, Failure> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// A well-formed value, kept as it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'de> {
    Json(&'de RawValue),
    MessagePack(&'de [u8]),
}

impl<'de> Raw<'de> {
    /// The value's bytes.
    pub(super) fn bytes(self) -> &'de [u8] {
        match self {
            Raw::Json(raw) => raw.get().as_bytes(),
            Raw::MessagePack(bytes) => bytes,
        }
    }

    /// Reads it after all.
    pub(crate) fn parse<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Failure> {
        match self {
            Raw::Json(raw) => parse_json(raw.get(), seed),
            Raw::MessagePack(bytes) => parse(bytes, Encoding::MessagePack, seed),
        }
    }

    /// The value for a message to people: JSON as it was written, MessagePack in much the same form.
    pub(crate) fn render(self) -> String {
        match self {
            Raw::Json(raw) => clip(raw.get(), LONGEST_VALUE),
            Raw::MessagePack(bytes) => {
                parse(bytes, Encoding::MessagePack, Rendered).unwrap_or_else(|_| "a value".to_owned())
            }
        }
    }
}

/// Longest value quoted in a message, in bytes.
const LONGEST_VALUE: usize = 80;

/// At most `limit` bytes of a text, and whether there was more.
pub(super) fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// Seed of a [`Raw`] value in a given encoding.
#[derive(Clone, Copy)]
pub(super) struct RawSeed(pub(super) Encoding);

impl<'de> DeserializeSeed<'de> for RawSeed {
    type Value = Raw<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw<'de>, D::Error> {
        match self.0 {
            Encoding::Json => <&RawValue>::deserialize(deserializer).map(Raw::Json),
            Encoding::MessagePack => deserializer.deserialize_newtype_struct(msgpack::RAW, self),
        }
    }
}

impl<'de> Visitor<'de> for RawSeed {
    type Value = Raw<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Raw<'de>, E> {
        Ok(Raw::MessagePack(bytes))
    }
}

/// A field's value: the next one of a map, or one that was kept because it could not be understood yet.
pub(super) trait Slot<'de> {
    /// Of the map.
    type Error: de::Error;

    /// Reads it.
    fn read<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Self::Error>;
}

/// The value that follows the key just read.
pub(super) struct Here<'m, A>(pub(super) &'m mut A);

impl<'de, A: MapAccess<'de>> Slot<'de> for Here<'_, A> {
    type Error = A::Error;

    fn read<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

/// A value that was kept.
pub(super) struct Kept<'de, E>(pub(super) Raw<'de>, pub(super) PhantomData<E>);

impl<'de, E: de::Error> Slot<'de> for Kept<'de, E> {
    type Error = E;

    fn read<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, E> {
        self.0.parse(seed).map_err(|failure| E::custom(failure.what))
    }
}

/// A step into a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'p> {
    /// The first field of that name.
    Field(&'p str),
    /// The element at that index.
    Element(usize),
}

/// Seed that finds the value at the end of a path, for messages about it.
pub(crate) struct Locate<'p> {
    pub(crate) path: &'p [Step<'p>],
    pub(crate) encoding: Encoding,
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = Option<Raw<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.path.first() {
            None => RawSeed(self.encoding).deserialize(deserializer).map(Some),
            Some(Step::Field(_)) => deserializer.deserialize_map(self),
            Some(Step::Element(_)) => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = Option<Raw<'de>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("what the path says")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.path {
                [Step::Field(wanted), path @ ..] if found.is_none() && name == *wanted => {
                    found = map.next_value_seed(Locate { path, encoding: self.encoding })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let [Step::Element(wanted), path @ ..] = self.path else { return Ok(None) };
        for _ in 0..*wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = seq.next_element_seed(Locate { path, encoding: self.encoding })?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found.flatten())
    }
}

/// Seed that turns a MessagePack value into words.
struct Rendered;

impl<'de> DeserializeSeed<'de> for Rendered {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rendered {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(format!("{value:?}"))
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(format!("{:?}", clip(value, LONGEST_VALUE)))
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<String, E> {
        Ok(format!("{} bytes of binary", value.len()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Ok("an array".to_owned())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Ok("a map".to_owned())
    }
}
