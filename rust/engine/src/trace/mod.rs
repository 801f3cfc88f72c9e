//! Arrangements: indexed, shared, compacted histories of rows (ADR 0003).
//!
//! * [`batch`]: immutable sorted runs of updates, keyed by the leading words of a row.
//! * [`sample`]: how a key is found in a long one.
//! * [`merge`]: how the spine merges two of them, bit by bit.
//! * [`view`]: batches as an operator sees them, its own or another dataflow's as of a time; and their traces.
//! * [`ladder`]: updates that wait until their times are over.
//! * [`batcher`]: from unordered updates to batches.
//! * [`cursors`]: several batches walked together, key by key.
//! * [`fold`], [`totals`]: batchers whose output depends on what is there: input semantics and running totals.
//! * [`first`]: a batcher of rows that only come, for those that weren't there.
//! * [`seen`]: the same while order doesn't matter yet.
//! * [`scan`]: reading the contents as of a time.
//! * [`registry`]: which batches there are, to find what their rows hold.

pub(crate) mod batch;
pub(crate) mod batcher;
pub(crate) mod cursors;
pub(crate) mod first;
pub(crate) mod fold;
pub(crate) mod ladder;
pub(crate) mod merge;
pub(crate) mod registry;
mod sample;
pub(crate) mod scan;
pub(crate) mod seen;
pub(crate) mod totals;
pub(crate) mod view;

pub(crate) use batch::RowBatch;
pub(crate) use view::{Agent, Reader, RowSpine, View};
