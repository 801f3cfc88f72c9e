//! From a valid plan to one dataflow of operators.
//!
//! * [`context`]: what a scope offers to the operators built in it; nodes and arrangements are built once each.
//! * [`nodes`]: the operators that are the same in and outside a recursion.
//! * [`multijoin`]: several arrangements met at once.
//! * [`outer`]: the scope of the cluster's times.
//! * [`recursion`]: the scope of a recursive stratum.
//! * [`facts`]: constant rows.

mod context;
mod facts;
mod multijoin;
mod nodes;
mod outer;
mod recursion;

pub(crate) use context::{order, positions};
pub(crate) use outer::{Built, Elsewhere, External, joined, render};
