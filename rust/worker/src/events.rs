//! What workers tell Python, what they ask of it, and its answers.

use dataflow_protocol::error::ErrorBody;
use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::plan::InputMode;
use dataflow_protocol::shape::Composite;
use dataflow_protocol::value::{Column, Type};
use serde::Serialize;

use crate::command::Ticket;

/// Something that Python is to know, or to answer with [`crate::host::Host::answer`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The cluster is formed: requests are served from now on.
    Formed {
        /// Counted up; all processes call it the same.
        generation: u64,
    },
    /// The generation is over: its catalog is gone, what was asked on its behalf needs no answer. Another one follows.
    Fallen {
        /// The number that it was formed under.
        generation: u64,
        /// Why.
        why: String,
    },
    /// A client asks for a program; to be answered with a plan.
    Register {
        /// Of the request.
        ticket: Ticket,
        /// Its text.
        program: String,
        /// The module's name, where the client gave one.
        name: Option<String>,
        /// What is known of the relations that it may be about, JSON by name.
        statistics: String,
    },
    /// A client asks how a relation is computed; to be answered with a tree of operators.
    Explain {
        /// Of the request.
        ticket: Ticket,
        /// The relation's name.
        relation: String,
        /// The plan of its module, JSON.
        plan: String,
        /// What its operators hold and have done, JSON, if that is asked for: a list with an entry for each worker.
        analysis: Option<String>,
    },
    /// The catalog has grown by a module. Version by version, the changes come in sequenced order.
    Registered {
        /// Counted from 1; equal on all processes.
        version: u64,
        /// The module as JSON: name, digest and relations.
        module: String,
    },
    /// Relations have left the catalog.
    Unregistered {
        /// Counted from 1; equal on all processes.
        version: u64,
        /// Modules that are gone.
        modules: Vec<String>,
        /// Relations that are gone.
        relations: Vec<RelationId>,
    },
    /// A client asks to attach a source; to be answered with the source as it will be run.
    Attach {
        /// Of the request.
        ticket: Ticket,
        /// Of the source.
        name: String,
        /// What it is, JSON.
        source: String,
    },
    /// A source is attached to this process, which begins to run it.
    Attached {
        /// Tells it from all others that this process has or had.
        attachment: Ticket,
        /// Of the source.
        name: String,
        /// What it is, JSON.
        source: String,
    },
    /// A source of this process's configuration isn't attached: its name is taken.
    Unattached {
        /// Of the source.
        name: String,
        /// Why.
        reason: String,
    },
    /// A source of this process is to end; to be answered once it has.
    Detach {
        /// Of the answer.
        ticket: Ticket,
        /// As it was told by [`Event::Attached`], before this, while others' ends may be told after a beginning that
        /// they made room for.
        attachment: Ticket,
        /// Of the source.
        name: String,
    },
    /// All workers of the process have ended. The last event.
    Stopped(Ending),
}

/// How the workers of a process have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As they were told to, the whole cluster in step.
    Clean,
    /// As they were told to, but the rest of the cluster wasn't to be reached.
    Alone,
    /// The process can't form another generation; why.
    Failed(String),
}

/// Python's answer to an event.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The compiled plan, JSON, to [`Event::Register`].
    Plan(String),
    /// The tree of operators, JSON, to [`Event::Explain`].
    Explanation(String),
    /// The source, JSON, to [`Event::Attach`].
    Source(String),
    /// To [`Event::Detach`]: it has ended.
    Detached {
        /// Of its last transaction.
        time: Time,
        /// What it had to leave behind, in words.
        left: Vec<String>,
    },
    /// To no event: a source of the configuration is to be attached.
    Attach {
        /// Of the source.
        name: String,
        /// What it is, JSON.
        source: String,
    },
    /// Why not, to any that asks.
    Rejected(ErrorBody),
}

/// A module as Python's mirror of the catalog wants it.
#[derive(Serialize)]
pub(crate) struct ModuleView<'a> {
    pub(crate) name: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) time: Time,
    pub(crate) types: &'a [Composite],
    pub(crate) relations: Vec<RelationView<'a>>,
}

/// A relation in a [`ModuleView`].
#[derive(Serialize)]
pub(crate) struct RelationView<'a> {
    pub(crate) id: RelationId,
    pub(crate) name: &'a str,
    pub(crate) columns: Vec<ColumnView<'a>>,
    pub(crate) input: &'a Option<InputMode>,
    pub(crate) output: bool,
}

/// A column in a [`RelationView`]; its type goes by what plans call it.
#[derive(Serialize)]
pub(crate) struct ColumnView<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    ty: Type,
}

impl<'a> ColumnView<'a> {
    pub(crate) fn new(column: &'a Column) -> Self {
        ColumnView { name: &column.name, ty: column.ty }
    }
}
