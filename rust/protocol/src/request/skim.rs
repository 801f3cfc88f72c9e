//! A message that was refused, read once more: is it well-formed, and what is its id?

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::RequestId;
use super::fields::Field;
use super::source::RawSeed;
use crate::encoding::Encoding;

/// Seed that reads any well-formed value and finds the id of one that is a map.
pub(super) struct Skim(pub(super) Encoding);

impl<'de> DeserializeSeed<'de> for Skim {
    type Value = RequestId;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RequestId, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skim {
    type Value = RequestId;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RequestId, A::Error> {
        let mut id = None;
        while let Some(is_id) = map.next_key_seed(IsId)? {
            if is_id && id.is_none() {
                id = Some(RequestId::from_raw(map.next_value_seed(RawSeed(self.0))?.bytes()));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(id.unwrap_or_default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RequestId, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RequestId::NULL)
    }

    fn visit_bool<E>(self, _: bool) -> Result<RequestId, E> {
        Ok(RequestId::NULL)
    }

    fn visit_i64<E>(self, _: i64) -> Result<RequestId, E> {
        Ok(RequestId::NULL)
    }

    fn visit_u64<E>(self, _: u64) -> Result<RequestId, E> {
        Ok(RequestId::NULL)
    }

    fn visit_f64<E>(self, _: f64) -> Result<RequestId, E> {
        Ok(RequestId::NULL)
    }

    fn visit_str<E>(self, _: &str) -> Result<RequestId, E> {
        Ok(RequestId::NULL)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<RequestId, E> {
        Ok(RequestId::NULL)
    }

    fn visit_unit<E>(self) -> Result<RequestId, E> {
        Ok(RequestId::NULL)
    }
}

/// Seed of a key of any type: whether it is `id`.
struct IsId;

impl<'de> DeserializeSeed<'de> for IsId {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for IsId {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == Field::Id.text())
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(false)
    }
}
