//! Requests: what a client may ask, typed, and how they are read from the wire.
//!
//! [`decode`] is the only door. It reads either encoding in one pass, straight into typed requests: rows become
//! words as they are met, by their relation's columns, without a tree of values in between. Nothing it is given can
//! make it panic or recurse without bound.
//!
//! * `decode`: the message as a whole, its id, its op, its fields.
//! * `fields`: names of ops and fields.
//! * `changes`: rows and filters, by a relation's columns; `cells`: the values in them.
//! * `context`: what is known meanwhile, and the error that comes of it.
//! * `skim`: a refused message, read once more for its id.
//! * `source`: values of either encoding, read through serde.
//! * `msgpack`: a deserializer of MessagePack that can hand out a value's raw bytes.

mod cells;
mod changes;
mod context;
mod decode;
mod fields;
mod msgpack;
mod skim;
mod source;

pub(crate) use cells::Cell;
pub(crate) use context::Context;
pub(crate) use source::{Locate, Raw, Step, parse};

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub use fields::Op;

use crate::dictionary::Content;
use crate::dictionary::sweep::Pin;
use crate::encoding::Encoding;
use crate::error::ErrorBody;
use crate::ids::{RelationId, Time};
use crate::order::{By, Ranking};
use crate::rows::RowBuf;
use crate::value::{Column, Word};

/// The version of the protocol that this build speaks.
pub const VERSION: u64 = 1;

/// A request's `id`, exactly as the client wrote it: raw bytes in the request's encoding.
///
/// Missing or unreadable ids are null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestId(Option<SmallVec<[u8; 14]>>);

impl RequestId {
    /// The id of a request that has none.
    pub const NULL: RequestId = RequestId(None);

    /// The id whose encoded bytes are `raw`; they must be one whole value of the encoding it is answered in.
    pub fn from_raw(raw: &[u8]) -> Self {
        RequestId(Some(SmallVec::from_slice(raw)))
    }

    /// The encoded bytes.
    pub fn raw(&self, encoding: Encoding) -> &[u8] {
        match (&self.0, encoding) {
            (Some(raw), _) => raw,
            (None, Encoding::Json) => b"null",
            (None, Encoding::MessagePack) => &[0xc0],
        }
    }
}

/// What decoding needs to know of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The relation.
    pub id: RelationId,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Whether clients may transact into it.
    pub input: bool,
}

/// The catalog, as far as decoding goes and as one client may see it.
pub trait Schemas {
    /// The relation of that name.
    fn schema(&self, relation: &str) -> Option<Arc<Schema>>;

    /// The name of a relation that somebody who wrote `relation` may have meant; see [`crate::nearest::nearest`].
    fn nearest(&self, relation: &str) -> Option<String>;

    /// Rows that one transaction may insert and delete together; with more it is `too-large`.
    fn transaction_rows(&self) -> usize {
        usize::MAX
    }

    /// Whether the client may ask `op` at all. Judged as soon as the op is known: nothing that the fields of a
    /// forbidden request bring is looked up or kept.
    ///
    /// # Errors
    ///
    /// What the client is told.
    fn permit(&self, _op: Op) -> Result<(), ErrorBody> {
        Ok(())
    }

    /// Whether the client may ask `op` of a relation, which need not exist; judged before it is looked up.
    ///
    /// # Errors
    ///
    /// What the client is told.
    fn permit_relation(&self, _op: Op, _relation: &str) -> Result<(), ErrorBody> {
        Ok(())
    }
}

/// Columns and the words they must equal: the `where` of a subscription or a read.
pub type Filter = Vec<(usize, Word)>;

/// When a transaction is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Its place in the order is fixed.
    #[default]
    Sequenced,
    /// The changed relations and all derived from them have finished its time.
    Visible,
}

/// What becomes of a subscription whose client takes less than it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slow {
    /// Consecutive times are merged; it ends only when too many rows wait even so.
    #[default]
    Coalesce,
    /// Times are never merged: it ends when too many rows wait.
    End,
}

/// Rows to remove from a relation and rows to add to it. The removals of a whole transaction come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The relation, an input.
    pub relation: Arc<Schema>,
    /// Rows to add, in message order.
    pub insert: RowBuf,
    /// Rows to remove, in message order.
    pub delete: RowBuf,
}

/// The fields of `subscribe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The relation.
    pub relation: Arc<Schema>,
    /// Whether the contents are sent first.
    pub snapshot: bool,
    /// Whether finished times are sent.
    pub progress: bool,
    /// Which rows; all where empty.
    pub filter: Filter,
    /// Only the first rows, in an order; the filter is in there, then.
    pub ranking: Option<Ranking>,
    /// The time and the history to go on from.
    pub since: Option<Since>,
    /// What happens when the client is slow.
    pub slow: Slow,
    /// How many rows may wait for it, if it wants fewer than the server allows.
    pub backlog: Option<u64>,
}

/// Where a subscriber that was here before left off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The last time it applied.
    pub time: Time,
    /// The history that this time belongs to.
    pub history: String,
}

/// Limits of one module: 0 is none, and what isn't given is as for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryLimits {
    /// Iterations of a recursion.
    pub iterations: Option<u64>,
    /// Rows held.
    pub rows: Option<u64>,
    /// Bytes held.
    pub bytes: Option<u64>,
    /// Milliseconds behind.
    pub lag_millis: Option<u64>,
}

/// The value given to a tunable.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// An integer.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
}

/// A client's request. An optional field that is null is taken as absent.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Opens the conversation.
    Hello {
        /// Always [`VERSION`]: another one is refused as `unsupported` while decoding.
        version: u64,
        /// What the client proves itself with.
        token: Option<String>,
    },
    /// Installs a program.
    Register {
        /// Its text.
        program: String,
        /// The module's name.
        name: Option<String>,
        /// What it may use.
        limits: Option<QueryLimits>,
    },
    /// Ends a module and what depends on it.
    Cancel {
        /// Its name.
        name: String,
    },
    /// Removes a relation or a module.
    Unregister {
        /// Its name.
        name: String,
    },
    /// Changes input relations, atomically.
    Transact {
        /// In message order; may be empty.
        changes: Vec<Change>,
        /// Makes repeating it harmless.
        key: Option<String>,
        /// When it is answered.
        wait: Wait,
    },
    /// Asks for a relation's changes.
    Subscribe(Subscribe),
    /// Ends a subscription.
    Unsubscribe {
        /// Which, of this connection.
        sub: u64,
    },
    /// Asks for a relation's contents.
    Read {
        /// The relation.
        relation: Arc<Schema>,
        /// Which rows; all where empty.
        filter: Filter,
        /// In which order; without one, in any.
        order: Option<Vec<By>>,
        /// At most how many.
        limit: Option<u64>,
    },
    /// Asks how a relation is computed.
    Explain {
        /// The relation.
        relation: Arc<Schema>,
        /// Whether the operators shall say what they hold and have done.
        analyze: bool,
    },
    /// Asks how the server is.
    Status,
    /// Has an external source feed relations.
    Attach {
        /// Of the source.
        name: String,
        /// What it is, a JSON object.
        source: String,
    },
    /// Ends an external source.
    Detach {
        /// Of the source.
        name: String,
    },
    /// Sets the clock on every worker.
    Advance {
        /// What it shows from then on, in µs since 1970.
        now: i64,
    },
    /// Sets tunables on every worker.
    Tune {
        /// By name, in message order, each name once; which names there are is the worker's to know.
        settings: Vec<(String, Setting)>,
    },
    /// Asks for a sign of life.
    Ping,
    /// Stops the cluster.
    Shutdown,
}

/// A request that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// To be echoed.
    pub id: RequestId,
    /// What is asked.
    pub request: Request,
    /// What some process may not know: it must be announced to the cluster with a sequenced command no later than
    /// the one that carries these rows.
    pub contents: Vec<Content>,
    /// Keeps what the words of its rows stand for.
    pub pin: Pin,
}

/// A request that is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// To be echoed.
    pub id: RequestId,
    /// Why.
    pub error: ErrorBody,
    /// What was met before the mistake. It may be announced with the next sequenced command, although this request
    /// has no effect.
    pub contents: Vec<Content>,
}

/// Reads a request.
///
/// # Errors
///
/// [`Rejected`] with the error to answer with: `incorrect`, `not-found` for a relation that `schemas` doesn't have,
/// what `schemas` doesn't permit, `unsupported` for another version of the protocol. A message that is not well-formed has a null id, whatever it
/// begins with; otherwise the id is echoed wherever it stands.
pub fn decode(bytes: &[u8], encoding: Encoding, schemas: &dyn Schemas) -> Result<Decoded, Box<Rejected>> {
    decode::decode(bytes, encoding, schemas)
}
