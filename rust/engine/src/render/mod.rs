//! From a valid plan to one dataflow of operators.
//!
//! * [`context`]: what a scope offers to the operators built in it; nodes and arrangements are built once each.
//! * [`keys`]: what relations are joined by.
//! * [`nodes`]: the operators that are the same in and outside a recursion.
//! * [`multijoin`]: several arrangements met at once.
//! * [`outer`]: the scope of the cluster's times.
//! * [`recursion`]: the scope of a recursive stratum; [`rules`]: what that is made of.
//! * [`facts`]: constant rows.

mod context;
mod facts;
mod keys;
mod multijoin;
mod nodes;
mod outer;
mod recursion;
mod rules;

pub(crate) use keys::{first_by_relation, joined};
pub(crate) use outer::{Built, Derived, Elsewhere, External, render};
