//! What goes through the sequencer, and what comes back by mail.
//!
//! One [`Element`] a turn and worker. It carries headers, never rows: those stay with the owner, which introduces
//! them when the header comes back in sequenced order. Everything here crosses processes in timely's own encoding,
//! which knows neither skipped nor tagged fields; a plan therefore travels as the document it arrived as.

use dataflow_engine::{Analysis, Figures};
use dataflow_protocol::dictionary::Content;
use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::order::Ranking;
use dataflow_protocol::request::QueryLimits;
use dataflow_protocol::value::Word;
use serde::{Deserialize, Serialize};

use crate::config::Tunables;
use crate::forget::Sweep;
use crate::keys::Key;
use crate::limits::Interruption;

/// Names a request at its owner; not unique beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// What a worker's turn has to tell all workers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Element {
    /// What the origin's clients used and not every process may know; every process interns it on receipt.
    pub contents: Vec<Content>,
    /// Transactions, in order of effect.
    pub transactions: Vec<Transaction>,
    /// Commands that take effect after all transactions of the time, in order.
    pub commands: Vec<Command>,
}

impl Element {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty() && self.transactions.is_empty() && self.commands.is_empty()
    }
}

/// The header of a transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transaction {
    /// Changed relations; if one is gone at delivery, the transaction has no effect.
    pub relations: Vec<RelationId>,
    /// The client's idempotency key.
    pub key: Option<Key>,
}

/// Which rows of a relation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Part {
    /// Those with these values in these columns.
    Rows(Vec<(usize, Word)>),
    /// The first in an order, of each worker's own; the owner finds the first of all.
    First(Ranking),
    /// The first in an order, which are kept for those who subscribe to them.
    Kept(Ranking),
}

/// What every worker does at the command's time, whichever of them owns the request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Builds a program; every worker acknowledges to the owner ([`Letter::Done`]), which then replies.
    Register {
        /// Of the request.
        ticket: Ticket,
        /// The plan document, JSON.
        plan: String,
        /// Its own limits, where it has some.
        limits: Option<QueryLimits>,
        /// The time of day at the origin, for a clock that nobody has read of late.
        now: Option<i64>,
    },
    /// Drops a program; acknowledged like [`Command::Register`].
    Unregister {
        /// Of the request.
        ticket: Ticket,
        /// Relation or module.
        name: String,
    },
    /// From this time on the origin wants the relation's steps; the owner's subscription begins.
    Subscribe {
        /// Of the subscription.
        ticket: Ticket,
        /// Which.
        relation: RelationId,
        /// Of its first rows in an order, where it is only these.
        ranking: Option<Ranking>,
    },
    /// Takes one such wish of the origin back.
    Unsubscribe {
        /// Of the request, if there was one.
        ticket: Ticket,
        /// Which.
        relation: RelationId,
        /// As the wish was.
        ranking: Option<Ranking>,
    },
    /// The relation's contents as of this time for the origin, from every worker.
    Contents {
        /// Of the subscription or read; names the slices.
        ticket: Ticket,
        /// Which.
        relation: RelationId,
        /// What of it.
        part: Part,
    },
    /// Ends a module and all that depend on it; acknowledged like [`Command::Register`].
    Cancel {
        /// Of the request.
        ticket: Ticket,
        /// The module.
        name: String,
    },
    /// The same by a worker that has noticed a reason. Nobody waits for it; no effect if the module is gone.
    Interrupt {
        /// The module.
        module: String,
        /// When it was registered: one of the same name may have come since.
        since: Time,
        /// The reason.
        why: Interruption,
    },
    /// Programs that aren't to be built: the cluster fell over them in earlier generations.
    Quarantine {
        /// Of the programs.
        digests: Vec<String>,
    },
    /// Every worker reports to the owner ([`Letter::Report`]).
    Status {
        /// Of the request.
        ticket: Ticket,
    },
    /// Every worker says what the operators of the relation's module hold and have done ([`Letter::Analysis`]).
    Analyze {
        /// Of the request.
        ticket: Ticket,
        /// Which.
        relation: RelationId,
    },
    /// The clock shows so many µs since 1970; no effect if it would go back.
    Tick {
        /// Since 1970, in µs.
        now: i64,
    },
    /// The same for a client.
    Advance {
        /// Of the request.
        ticket: Ticket,
        /// Since 1970, in µs.
        now: i64,
    },
    /// A step of a sweep of the dictionary.
    Sweep(Sweep),
    /// New values, on every worker; acknowledged.
    Tune {
        /// Of the request.
        ticket: Ticket,
        /// By name; checked at the owner.
        values: Vec<(String, u64)>,
    },
    /// A source is attached to the origin's process, unless its name is taken.
    Attach {
        /// Of the request.
        ticket: Ticket,
        /// Of the source.
        name: String,
    },
    /// A source is no longer attached; the process that runs it ends it and tells the origin ([`Letter::Detached`]).
    Detach {
        /// Of the request.
        ticket: Ticket,
        /// Of the source.
        name: String,
    },
    /// Every worker stops.
    Shutdown {
        /// Of the request, where it was a client's.
        ticket: Option<Ticket>,
    },
}

/// A message to the owner of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Letter {
    /// The sender has applied the command, and has this digest of the catalog since.
    Done(Ticket, u64),
    /// A source has ended: the time of its last transaction, and what it had to leave behind.
    Detached(Ticket, Time, Vec<String>),
    /// What the sender has to say about itself, its share of every module, and, if it speaks for its process, about
    /// the sources there, each a JSON document.
    Report(Ticket, Report, Vec<Share>, Vec<String>),
    /// The sender's share of a module; none if the relation is gone.
    Analysis(Ticket, Option<Analysis>),
    /// The sender's rows and bytes of the module of this name and time, to the worker that adds them up.
    Share(String, Time, u64, u64),
}

/// A worker's share of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Which.
    pub module: String,
    /// What it holds, and how far it is.
    pub figures: Figures,
    /// Whether it has something to do.
    pub computing: bool,
}

/// A worker's own figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its process.
    pub process: usize,
    /// Connections it owns.
    pub clients: u64,
    /// Subscriptions of these.
    pub subscriptions: u64,
    /// Turns of its loop.
    pub turns: u64,
    /// Commands and transactions it has applied.
    pub commands: u64,
    /// Rows its clients have transacted.
    pub rows: u64,
    /// Rows dropped because their derivation failed.
    pub dropped_rows: u64,
    /// Rows that windows have looked at.
    pub window_rows: u64,
    /// Milliseconds it has spent parked.
    pub parked_millis: u64,
    /// Dataflows it steps, the standing ones included.
    pub dataflows: u64,
    /// Traces that are catalogued: relations, and arrangements shared between programs.
    pub traces: u64,
    /// Updates in these traces, at least one a row.
    pub updates: u64,
    /// Bytes of these traces.
    pub trace_bytes: u64,
}

/// The tunables after `values` have been set; those that aren't valid have been refused at the owner.
pub fn tuned(tunables: &Tunables, values: &[(String, u64)]) -> Result<Tunables, String> {
    let mut tuned = tunables.clone();
    values.iter().try_for_each(|(name, value)| tuned.set(name, *value))?;
    Ok(tuned)
}
