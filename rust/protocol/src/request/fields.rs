//! Names of ops and fields, and the shapes of single fields.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::Setting;
use super::source::clip;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Opens the conversation.
    Hello,
    /// Installs a program.
    Register,
    /// Removes a program or a relation.
    Unregister,
    /// Ends a program wherever it is.
    Cancel,
    /// Changes inputs.
    Transact,
    /// Follows a relation.
    Subscribe,
    /// Ends a subscription.
    Unsubscribe,
    /// Asks for a relation's contents.
    Read,
    /// Asks how a relation is computed.
    Explain,
    /// Asks how the server is.
    Status,
    /// Has an external source feed relations.
    Attach,
    /// Ends an external source.
    Detach,
    /// Sets the clock.
    Advance,
    /// Sets tunables.
    Tune,
    /// Asks for a sign of life.
    Ping,
    /// Stops the cluster.
    Shutdown,
}

impl Op {
    const ALL: [Op; 16] = [
        Op::Hello,
        Op::Register,
        Op::Unregister,
        Op::Cancel,
        Op::Transact,
        Op::Subscribe,
        Op::Unsubscribe,
        Op::Read,
        Op::Explain,
        Op::Status,
        Op::Attach,
        Op::Detach,
        Op::Advance,
        Op::Tune,
        Op::Ping,
        Op::Shutdown,
    ];

    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Op::Hello => "hello",
            Op::Register => "register",
            Op::Unregister => "unregister",
            Op::Cancel => "cancel",
            Op::Transact => "transact",
            Op::Subscribe => "subscribe",
            Op::Unsubscribe => "unsubscribe",
            Op::Read => "read",
            Op::Explain => "explain",
            Op::Status => "status",
            Op::Attach => "attach",
            Op::Detach => "detach",
            Op::Advance => "advance",
            Op::Tune => "tune",
            Op::Ping => "ping",
            Op::Shutdown => "shutdown",
        }
    }

    /// The op of that name.
    pub(super) fn named(name: &str) -> Option<Op> {
        Op::ALL.into_iter().find(|op| op.name() == name)
    }

    /// All names.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Op::ALL.into_iter().map(Op::name)
    }

    /// Its fields, besides `id` and `op`. Those of `tune` are the tunables.
    pub(super) fn fields(self) -> &'static [Field] {
        match self {
            Op::Hello => &[Field::Version, Field::Token],
            Op::Register => &[Field::Program, Field::Name, Field::Limits],
            Op::Unregister | Op::Cancel => &[Field::Name],
            Op::Transact => &[Field::Changes, Field::Key, Field::Wait],
            Op::Subscribe => &[
                Field::Relation,
                Field::Snapshot,
                Field::Progress,
                Field::Where,
                Field::Since,
                Field::History,
                Field::Slow,
                Field::Backlog,
                Field::Order,
                Field::Limit,
            ],
            Op::Unsubscribe => &[Field::Sub],
            Op::Read => &[Field::Relation, Field::Where, Field::Order, Field::Limit],
            Op::Explain => &[Field::Relation, Field::Analyze],
            Op::Attach => &[Field::Name, Field::Source],
            Op::Detach => &[Field::Name],
            Op::Advance => &[Field::Now],
            Op::Status | Op::Tune | Op::Ping | Op::Shutdown => &[],
        }
    }
}

/// The name of a field of a request or of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    Op,
    Version,
    Token,
    Program,
    Name,
    Changes,
    Key,
    Wait,
    Relation,
    Snapshot,
    Progress,
    Where,
    Since,
    History,
    Slow,
    Backlog,
    Sub,
    Order,
    Limit,
    Source,
    Limits,
    Analyze,
    Now,
    Insert,
    Delete,
    /// Any other, cut where it is long.
    Other(Box<str>),
}

/// Longest name quoted in a message, in bytes.
const LONGEST_NAME: usize = 80;

impl Field {
    const KNOWN: [(Field, &'static str); 26] = [
        (Field::Id, "id"),
        (Field::Op, "op"),
        (Field::Version, "version"),
        (Field::Token, "token"),
        (Field::Program, "program"),
        (Field::Name, "name"),
        (Field::Changes, "changes"),
        (Field::Key, "key"),
        (Field::Wait, "wait"),
        (Field::Relation, "relation"),
        (Field::Snapshot, "snapshot"),
        (Field::Progress, "progress"),
        (Field::Where, "where"),
        (Field::Since, "since"),
        (Field::History, "history"),
        (Field::Slow, "slow"),
        (Field::Backlog, "backlog"),
        (Field::Sub, "sub"),
        (Field::Order, "order"),
        (Field::Limit, "limit"),
        (Field::Source, "source"),
        (Field::Limits, "limits"),
        (Field::Analyze, "analyze"),
        (Field::Now, "now"),
        (Field::Insert, "insert"),
        (Field::Delete, "delete"),
    ];

    /// A bit of its own, for every name but others.
    pub(super) fn bit(&self) -> Option<u32> {
        Field::KNOWN.iter().position(|(known, _)| known == self).map(|index| 1 << index)
    }

    /// The word on the wire.
    pub(super) fn text(&self) -> &str {
        match self {
            Field::Other(text) => text,
            known => Field::KNOWN.iter().find(|(name, _)| name == known).map_or("", |(_, text)| text),
        }
    }
}

/// Seed of a field's name.
pub(super) struct FieldSeed;

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldSeed {
    type Value = Field;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text as the name of a field")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Field, E> {
        let known = Field::KNOWN.iter().find(|(_, known)| *known == text);
        Ok(known.map_or_else(|| Field::Other(clip(text, LONGEST_NAME).into()), |(name, _)| name.clone()))
    }
}

/// Seed of a tunable's value.
pub(super) struct SettingSeed;

impl<'de> DeserializeSeed<'de> for SettingSeed {
    type Value = Setting;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Setting, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for SettingSeed {
    type Value = Setting;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, a truth value or a text")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Setting, E> {
        Ok(Setting::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Setting, E> {
        Ok(Setting::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Setting, E> {
        Ok(i64::try_from(value).map_or(Setting::Float(value as f64), Setting::Integer))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Setting, E> {
        Ok(Setting::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Setting, E> {
        Ok(Setting::Text(value.to_owned()))
    }
}

/// Deepest nesting of a document.
const DEEPEST: usize = 8;

/// Seed of an object of whatever is in it, as JSON text.
pub(super) struct Document;

impl<'de> DeserializeSeed<'de> for Document {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        match (Inside { depth: 0 }).deserialize(deserializer)? {
            object @ Value::Object(_) => Ok(object.to_string()),
            _ => Err(de::Error::custom("expected an object")),
        }
    }
}

/// Seed of a value inside a document; how deep it may nest is bounded, since it is read by recursion.
#[derive(Clone, Copy)]
struct Inside {
    depth: usize,
}

impl Inside {
    fn deeper<E: de::Error>(self) -> Result<Inside, E> {
        if self.depth == DEEPEST {
            return Err(E::custom(format!("nested deeper than {DEEPEST} levels")));
        }
        Ok(Inside { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Inside {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inside {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value that JSON has")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inside)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            fields.insert(name, map.next_value_seed(inside)?);
        }
        Ok(Value::Object(fields))
    }
}
