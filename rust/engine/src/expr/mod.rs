//! Expressions over a row, compiled once and total: evaluation returns a word or fails, it never panics.
//!
//! * [`types`]: the type of an expression, and all that can be wrong with it.
//! * [`eval`]: from plan expressions to something that runs.
//! * [`functions`]: what each function does to words.
//! * [`totals`]: what goes into running totals and comes out of them.

pub(crate) mod constants;
pub(crate) mod eval;
pub(crate) mod functions;
pub(crate) mod totals;
pub(crate) mod types;

pub(crate) use eval::{Project, Scalar};
