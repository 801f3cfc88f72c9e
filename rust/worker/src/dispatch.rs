//! What an owner wants done with its connections: carried out at once, or by the thread that has their sockets.
//!
//! Encoding rows is the expensive part, so what is sent to clients comes as rows where there may be many: whoever has
//! the sockets encodes them.

use std::fmt;
use std::sync::Arc;

use dataflow_engine::{Changes, Step};
use dataflow_net::connection::ConnectionId;
use dataflow_net::error::Close;
use dataflow_net::http::HttpResponse;
use dataflow_protocol::dictionary::sweep::Pin;
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::request::{Filter, Schema};
use dataflow_protocol::response::push::{self, Tail};

use crate::backlog::filtered;

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Dispatch {
    /// Answer a request.
    Reply(ConnectionId, Encoding, Payload),
    /// Answer a plain HTTP request.
    Respond(ConnectionId, HttpResponse),
    /// Send a message of a subscription.
    Push(ConnectionId, u64, Tail),
    /// Send rows to subscriptions of connections.
    Parcel(Parcel, Vec<(ConnectionId, u64)>),
    /// Say so when the client has taken all but fewer bytes than these.
    AwaitRoom(ConnectionId, usize),
    /// Close the connection if its client takes nothing for a while.
    LimitStall(ConnectionId),
    /// Read on after a request that others must not overtake.
    Resume(ConnectionId),
    /// The client has said who it is.
    Admit(ConnectionId),
    /// Close a connection whose client isn't let in; what it was told goes out before.
    Expel(ConnectionId),
    /// Close all connections of an owner.
    CloseAll(usize, Close),
}

/// An answer.
pub(crate) enum Payload {
    /// Encoded.
    Bytes(Vec<u8>),
    /// To be encoded, from about as many bytes as said.
    Later(usize, Box<dyn FnOnce() -> Vec<u8> + Send>),
}

impl Payload {
    /// About how many bytes it will have.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Later(weight, _) => *weight,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Payload({})", self.weight())
    }
}

/// Rows of a step or of a part of a snapshot.
#[derive(Clone, Debug)]
pub(crate) enum Rows {
    /// A step, as it came.
    Step(Arc<Step>),
    /// Somebody's own.
    Own(Arc<Changes>),
}

/// What is encoded once for all who get it.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) encoding: Encoding,
    pub(crate) relation: Arc<Schema>,
    pub(crate) step: push::Step,
    pub(crate) rows: Rows,
    /// Which of the rows.
    pub(crate) filter: Filter,
    /// Where to cut it into several messages.
    pub(crate) batch_bytes: usize,
    /// Keeps what the rows hold until they are encoded.
    pub(crate) _pin: Pin,
}

impl Parcel {
    fn changes(&self) -> &Changes {
        match &self.rows {
            Rows::Step(step) => &step.changes,
            Rows::Own(changes) => changes,
        }
    }

    /// About how many bytes it will have.
    pub(crate) fn weight(&self) -> usize {
        let changes = self.changes();
        changes.rows.bytes() + changes.diffs.len() * size_of::<i64>()
    }

    /// Its messages; none if a filter leaves no row of a step.
    pub(crate) fn encode(&self) -> Vec<Tail> {
        let columns = &self.relation.columns;
        let encode = |changes: &Changes| {
            push::changes(self.encoding, columns, self.step, &changes.rows, &changes.diffs, self.batch_bytes)
        };
        if self.filter.is_empty() {
            return encode(self.changes());
        }
        let part = filtered(self.changes(), &self.filter);
        if part.rows.is_empty() { Vec::new() } else { encode(&part) }
    }
}
