//! Reads under way: the slices of a relation's contents on their way from all workers to the owner.

use std::sync::Arc;

use dataflow_engine::Changes;
use dataflow_protocol::dictionary::sweep::Pin;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::Time;
use dataflow_protocol::order::{By, First, Sorter};
use dataflow_protocol::request::Schema;
use dataflow_protocol::response::read::{self, Contents};
use dataflow_protocol::response::reply;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::Type;

use crate::connections::{Caller, Connections};
use crate::dispatch::Payload;

/// A `read`, from its request to its reply.
pub(crate) struct Read {
    pub(crate) caller: Caller,
    pub(crate) relation: Arc<Schema>,
    limit: Option<u64>,
    /// The rows that have come, if they are to be in an order; otherwise they are in `rows`.
    first: Option<First>,
    /// Its place in the order, once known.
    time: Option<Time>,
    rows: RowBuf,
    copies: Vec<i64>,
    missing: usize,
    /// More has come than a reply may hold: the rest isn't kept.
    overflown: bool,
    /// Keeps what the rows hold until they are encoded.
    _pin: Pin,
}

impl Read {
    pub(crate) fn new(
        caller: Caller,
        relation: Arc<Schema>,
        order: Option<&[By]>,
        limit: Option<u64>,
        workers: usize,
    ) -> Self {
        let types: Vec<Type> = relation.columns.iter().map(|column| column.ty).collect();
        let first = order.map(|order| First::new(Sorter::new(&types, order), limit));
        let rows = RowBuf::new(relation.columns.len());
        Read {
            caller,
            relation,
            limit,
            first,
            time: None,
            rows,
            copies: Vec::new(),
            missing: workers,
            overflown: false,
            _pin: Pin::new(),
        }
    }

    pub(crate) fn begin(&mut self, time: Time) {
        self.time = Some(time);
    }

    /// Adds a slice; whether it was the last.
    pub(crate) fn add(&mut self, changes: &Changes, end: bool, max_bytes: usize) -> bool {
        let unordered = self.first.is_none();
        let enough = unordered && self.limit.is_some_and(|limit| self.rows.len() as u64 >= limit);
        if !enough && !self.overflown {
            for (row, &copies) in changes.rows.iter().zip(&changes.diffs) {
                match &mut self.first {
                    Some(first) => first.add(row, copies),
                    None => self.rows.push(row),
                }
            }
            if unordered {
                self.copies.extend_from_slice(&changes.diffs);
            }
            // A row takes a byte at least in any encoding, and a column another one.
            let rows = self.first.as_ref().map_or(self.rows.len(), First::len);
            let least = rows * (1 + self.relation.columns.len());
            self.overflown = least > max_bytes && self.limit.is_none_or(|limit| limit as usize > max_bytes);
        }
        self.missing -= usize::from(end && self.missing > 0);
        self.missing == 0
    }

    /// Replies.
    pub(crate) fn finish(mut self, net: &mut Connections, max_bytes: usize) {
        if self.overflown {
            let message =
                format!("the contents of {:?} are larger than {max_bytes} bytes", self.relation.name);
            let hint =
                "Narrow it with `where` or `limit`, or subscribe: a snapshot is sent in parts.".to_owned();
            return net.error(&self.caller, &ErrorBody::new(ErrorCode::TooLarge, message).with_hint(hint));
        }
        if let Some(mut first) = self.first.take() {
            (self.rows, self.copies) = first.take();
        }
        let caller = self.caller.clone();
        let weight = self.rows.bytes();
        net.reply(&caller, Payload::Later(weight, Box::new(move || self.encode(max_bytes))));
    }

    fn encode(&self, max_bytes: usize) -> Vec<u8> {
        let Caller { id, encoding, .. } = &self.caller;
        let contents = Contents {
            columns: &self.relation.columns,
            rows: &self.rows,
            copies: &self.copies,
            limit: self.limit,
            time: self.time.unwrap_or_default(),
        };
        read::reply(*encoding, id, &contents, max_bytes)
            .unwrap_or_else(|error| reply::error(*encoding, id, &error))
    }
}
