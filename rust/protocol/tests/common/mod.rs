//! A small catalog, and JSON and MessagePack side by side.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use dataflow_protocol::dictionary;
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::ids::RelationId;
use dataflow_protocol::nearest::nearest;
use dataflow_protocol::request::{Decoded, Rejected, Schema, Schemas, decode};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::shape::{Branch, Composite, Shapes};
use dataflow_protocol::value::{Column, CompositeId, Type, Word};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Both encodings.
pub(crate) const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

/// Relations by name.
pub(crate) struct Catalog(BTreeMap<String, Arc<Schema>>);

impl Schemas for Catalog {
    fn schema(&self, relation: &str) -> Option<Arc<Schema>> {
        self.0.get(relation).map(Arc::clone)
    }

    fn nearest(&self, relation: &str) -> Option<String> {
        nearest(relation, self.0.keys().map(String::as_str)).map(str::to_owned)
    }
}

/// Columns from names and types.
pub(crate) fn columns(described: &[(&str, Type)]) -> Vec<Column> {
    described.iter().map(|&(name, ty)| Column::new(name, ty)).collect()
}

const LIST: Type = Type::Composite(CompositeId(1));
const TREE: Type = Type::Composite(CompositeId(2));

/// A column of a record type that contains itself, and one of an algebraic type.
fn nested() -> Vec<Column> {
    let branch = |name: Option<&str>, fields: &[(&str, Type)]| Branch {
        name: name.map(str::to_owned),
        fields: columns(fields),
    };
    let types = [
        Composite {
            id: CompositeId(1),
            name: "List".to_owned(),
            branches: vec![branch(None, &[("head", Type::Symbol), ("tail", LIST)])],
        },
        Composite {
            id: CompositeId(2),
            name: "Tree".to_owned(),
            branches: vec![
                branch(Some("Leaf"), &[("x", Type::Number)]),
                branch(Some("Node"), &[("left", TREE), ("right", TREE)]),
                branch(Some("Empty"), &[]),
            ],
        },
    ];
    let shapes = Arc::new(Shapes::new(&types));
    columns(&[("list", LIST), ("tree", TREE)])
        .into_iter()
        .map(|column| Column { shapes: Some(Arc::clone(&shapes)), ..column })
        .collect()
}

/// Inputs `likes`, `price`, `all` (a column of every type that both encodings write alike), `stamped` (one of those
/// that they don't), `nested` (a record and an algebraic type) and `flag` (nullary), and the derived `popular`.
pub(crate) fn catalog() -> Catalog {
    let relations = [
        ("likes", columns(&[("who", Type::Symbol), ("what", Type::Symbol)]), true),
        ("price", columns(&[("what", Type::Symbol), ("cents", Type::Number)]), true),
        ("flag", columns(&[]), true),
        (
            "all",
            columns(&[
                ("n", Type::Number),
                ("u", Type::Unsigned),
                ("f", Type::Float),
                ("s", Type::Symbol),
                ("b", Type::Bool),
            ]),
            true,
        ),
        ("stamped", columns(&[("at", Type::Instant), ("id", Type::Uuid), ("data", Type::Bytes)]), true),
        ("nested", nested(), true),
        ("popular", columns(&[("what", Type::Symbol), ("n", Type::Number)]), false),
    ];
    let schema = |(index, (name, columns, input)): (usize, (&str, Vec<Column>, bool))| {
        let id = RelationId(index as u64);
        (name.to_owned(), Arc::new(Schema { id, name: name.to_owned(), columns, input }))
    };
    Catalog(relations.into_iter().enumerate().map(schema).collect())
}

/// The MessagePack form of a JSON text: the same order of fields, duplicates included. A string that begins with
/// `raw:` stands for the bytes it has in hexadecimal, whatever value they are.
pub(crate) fn msgpack(json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    serde_json::from_str::<Tree>(json).unwrap().write(&mut out);
    out
}

/// A JSON value that keeps fields as they come.
enum Tree {
    Leaf(serde_json::Value),
    Array(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Tree::Leaf(serde_json::Value::String(text)) if text.starts_with("raw:") => {
                let digits = &text.as_bytes()[4..];
                out.extend(
                    digits
                        .chunks(2)
                        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()),
                );
            }
            Tree::Leaf(value) => out.extend(rmp_serde::to_vec(value).unwrap()),
            Tree::Array(elements) => {
                rmp::encode::write_array_len(out, elements.len() as u32).unwrap();
                elements.iter().for_each(|element| element.write(out));
            }
            Tree::Map(entries) => {
                rmp::encode::write_map_len(out, entries.len() as u32).unwrap();
                for (name, value) in entries {
                    rmp::encode::write_str(out, name).unwrap();
                    value.write(out);
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        struct Build;
        impl<'de> Visitor<'de> for Build {
            type Value = Tree;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Leaf(serde_json::Value::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Tree::Array(elements))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Tree::Map(entries))
            }
        }
        deserializer.deserialize_any(Build)
    }
}

/// A JSON text in an encoding.
pub(crate) fn encoded(json: &str, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Json => json.as_bytes().to_vec(),
        Encoding::MessagePack => msgpack(json),
    }
}

/// The request that a JSON text is in an encoding; panics if it is refused.
pub(crate) fn accepted(json: &str, encoding: Encoding) -> Decoded {
    decode(&encoded(json, encoding), encoding, &catalog())
        .unwrap_or_else(|rejected| panic!("{json}: {rejected:?}"))
}

/// Why a message is no request; panics if it is one.
pub(crate) fn refused(bytes: &[u8], encoding: Encoding) -> Rejected {
    match decode(bytes, encoding, &catalog()) {
        Ok(decoded) => panic!("{}: {decoded:?}", String::from_utf8_lossy(bytes)),
        Err(rejected) => *rejected,
    }
}

/// The word of a text.
pub(crate) fn symbol(text: &str) -> Word {
    dictionary::announced(text).unwrap()
}

/// Rows of words.
pub(crate) fn buffer(width: usize, rows: &[&[Word]]) -> RowBuf {
    let mut buffer = RowBuf::new(width);
    rows.iter().for_each(|row| buffer.push(row));
    buffer
}

/// The JSON form of an encoded message; panics if it isn't well-formed.
pub(crate) fn json(bytes: &[u8], encoding: Encoding) -> serde_json::Value {
    match encoding {
        Encoding::Json => serde_json::from_slice(bytes).unwrap(),
        Encoding::MessagePack => rmp_serde::from_slice(bytes).unwrap(),
    }
}
