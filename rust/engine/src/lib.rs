//! The engine: plans become dataflows, relations become shared, compacted traces.
//!
//! Every worker holds an [`Engine`] and gives all of them the same commands in the same order; the differences between
//! workers live inside operators. The engine knows plans, relations and the workers that own an interest in them. It
//! knows nothing of sockets, clients or Python.
//!
//! * [`engine`]: the commands, and what a turn does. Start there.
//! * [`catalog`]: what is registered; equal on all workers.
//! * [`validate`], [`multijoin`], [`render`]: from a plan to a dataflow. [`input`]: how transacted rows enter.
//! * [`operators`], [`expr`]: what dataflows are made of.
//! * [`budget`]: how long they go on within a step. [`meter`], [`limits`], [`analysis`]: what they report
//!   meanwhile. [`faults`]: what goes wrong in them, for tests.
//! * [`trace`], [`container`]: arrangements and updates, flat (ADR 0003). [`layout`]: which column stands where in them.
//! * [`statistics`]: what the planner may know of relations.
//! * [`snapshot`]: contents as of a time, for those who come late.

mod analysis;
mod budget;
mod catalog;
mod container;
mod engine;
mod error;
mod expr;
mod faults;
mod input;
mod layout;
mod limits;
mod meter;
mod multijoin;
mod operators;
#[cfg(test)]
mod random;
mod render;
mod snapshot;
mod statistics;
mod trace;
mod validate;

use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::rows::RowBuf;
use serde::{Deserialize, Serialize};

pub use analysis::{Analysis, ArrangementFigures, OperatorFigures, Part};
pub use catalog::{ModuleInfo, RelationInfo};
pub use engine::{Earlier, Engine, Registered};
pub use error::EngineError;
pub use limits::{Failure, Figures};
pub use statistics::Statistics;
pub use validate::STACK_BYTES;

/// Rows with the copies of each added or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The rows.
    pub rows: RowBuf,
    /// For each row a non-zero number of copies.
    pub diffs: Vec<i64>,
}

/// The changes of a relation at a time that every worker has finished; each row stands once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which relation.
    pub relation: RelationId,
    /// At which time.
    pub time: Time,
    /// What changed.
    pub changes: Changes,
}

/// A part of a snapshot, from one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// What the owner gave with its request.
    pub token: u64,
    /// Rows that are there, with their copies.
    pub changes: Changes,
    /// The last slice of this worker; the snapshot is complete with as many of these as there are workers.
    pub end: bool,
}

/// What a worker's catalogued arrangements hold; those inside programs' dataflows are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of arrangements.
    pub arrangements: usize,
    /// Updates in them, which is at least their rows.
    pub updates: usize,
    /// Bytes of their batches.
    pub bytes: usize,
}

/// How much a turn may spend on snapshots.
#[derive(Clone, Copy, Debug)]
pub struct EmitBudget {
    /// Rows looked at in a turn.
    pub rows: usize,
    /// Rows looked at for one snapshot before the next gets its turn.
    pub slice_rows: usize,
}

impl Default for EmitBudget {
    fn default() -> Self {
        EmitBudget { rows: 1 << 15, slice_rows: 1 << 13 }
    }
}
