//! The flat representation of updates (ADR 0003): what flows on dataflow edges.
//!
//! * [`column`]: run-aware columns for times and differences, which mostly repeat.
//! * [`updates`]: rows of one width with a time and a difference each, a timely container.
//! * [`sort`]: sorting and consolidating such a container.
//! * [`runs`]: several sorted ones read as one. [`search`]: where something stands in them.
//! * [`exchange`]: their distribution over workers by the leading words of a row.

pub(crate) mod column;
pub(crate) mod exchange;
pub(crate) mod runs;
pub(crate) mod search;
pub(crate) mod sort;
pub(crate) mod updates;

pub(crate) use column::{EngineTime, Inner, RunVec, TimeColumn};
pub(crate) use updates::{Diff, Updates, append};
