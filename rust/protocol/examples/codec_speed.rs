//! How many rows a second the codecs read and write: `cargo run --release -p dataflow-protocol --example codec_speed`.

#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::ids::RelationId;
use dataflow_protocol::request::{Request, Schema, Schemas, decode};
use dataflow_protocol::response::push::{self, Step};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Column, Type};

/// Rows a message, and messages a measurement.
const ROWS: usize = 100_000;
const ROUNDS: usize = 20;

/// A catalog of one relation.
struct One(Arc<Schema>);

impl Schemas for One {
    fn schema(&self, _: &str) -> Option<Arc<Schema>> {
        Some(Arc::clone(&self.0))
    }

    fn nearest(&self, _: &str) -> Option<String> {
        None
    }
}

fn main() {
    for (name, types) in [
        ("two numbers", vec![Type::Number; 2]),
        ("a number, a float, a bool", vec![Type::Number, Type::Float, Type::Bool]),
        ("two short symbols, a number", vec![Type::Symbol, Type::Symbol, Type::Number]),
    ] {
        let column = |(index, ty): (usize, Type)| Column::new(format!("c{index}"), ty);
        let columns: Vec<Column> = types.iter().copied().enumerate().map(column).collect();
        let schema =
            Schema { id: RelationId(0), name: "r".to_owned(), columns: columns.clone(), input: true };
        let rows: Vec<Vec<serde_json::Value>> =
            (0..ROWS).map(|index| types.iter().map(|&ty| value(ty, index)).collect()).collect();
        let message =
            Message { id: 1, op: "transact", changes: vec![Change { relation: "r", insert: rows }] };
        let catalog = One(Arc::new(schema));
        for (encoding, bytes) in [
            (Encoding::Json, serde_json::to_vec(&message).unwrap_or_default()),
            (Encoding::MessagePack, rmp_serde::to_vec_named(&message).unwrap_or_default()),
        ] {
            measure(name, encoding, &bytes, &columns, &catalog);
        }
    }
}

#[derive(serde::Serialize)]
struct Message {
    id: u64,
    op: &'static str,
    changes: Vec<Change>,
}

#[derive(serde::Serialize)]
struct Change {
    relation: &'static str,
    insert: Vec<Vec<serde_json::Value>>,
}

fn value(ty: Type, index: usize) -> serde_json::Value {
    match ty {
        Type::Number | Type::Unsigned => (index * 7919 % 1_000_003).into(),
        Type::Float => (index as f64 / 7.0).into(),
        Type::Symbol => format!("s{}", index % 5000).into(),
        Type::Bool => index.is_multiple_of(2).into(),
        Type::Instant => format!("2026-11-23T21:00:00.{:06}Z", index % 1_000_000).into(),
        Type::Uuid => format!("00112233-4455-6677-8899-{:012x}", index % 5000).into(),
        Type::Composite(_) => serde_json::Value::Null,
        Type::Bytes => format!("{:08}", index % 5000).into(),
    }
}

fn measure(name: &str, encoding: Encoding, bytes: &[u8], columns: &[Column], catalog: &One) {
    let start = Instant::now();
    let mut rows = RowBuf::new(0);
    for _ in 0..ROUNDS {
        if let Ok(decoded) = decode(bytes, encoding, catalog)
            && let Request::Transact { mut changes, .. } = decoded.request
        {
            rows = changes.swap_remove(0).insert;
        }
    }
    let read = (ROWS * ROUNDS) as f64 / start.elapsed().as_secs_f64() / 1e6;
    let diffs = vec![1; rows.len()];
    let start = Instant::now();
    let mut written = 0;
    for _ in 0..ROUNDS {
        let tails = push::changes(encoding, columns, Step::default(), &rows, &diffs, 256 << 10);
        written += tails.iter().map(|tail| tail.bytes().len()).sum::<usize>();
    }
    let write = (rows.len() * ROUNDS) as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!(
        "{name}, {encoding:?}: {read:.1} M rows/s read ({} bytes each), {write:.1} M rows/s written ({})",
        bytes.len() / ROWS,
        written / ROUNDS / ROWS
    );
}
