//! The constants of a plan.

use dataflow_protocol::dictionary::Collision;
use dataflow_protocol::plan::{Expr, Node, Plan};
use dataflow_protocol::value::Word;

use super::Scalar;
use super::eval::constant;

/// The words that the plan's operators will have of it, constant rows included. They are interned, so that building can't
/// fail any more.
///
/// # Errors
///
/// [`Collision`] from interning a symbol.
pub(crate) fn of(plan: &Plan) -> Result<Vec<Word>, Collision> {
    let mut words = Vec::new();
    for node in &plan.nodes {
        match node {
            Node::Rows { rows, .. } => {
                for value in rows.iter().flatten() {
                    words.push(constant(value)?);
                }
            }
            Node::Map { filter, project, .. }
            | Node::Join { filter, project, .. }
            | Node::Multijoin { filter, project, .. } => exprs(filter.iter().chain(project), &mut words)?,
            Node::Window { since, until, .. } => exprs(since.iter().chain(until), &mut words)?,
            Node::Range { start, stop, step, .. } => {
                exprs([start, stop].into_iter().chain(step), &mut words)?;
            }
            _ => {}
        }
    }
    Ok(words)
}

fn exprs<'a>(exprs: impl IntoIterator<Item = &'a Expr>, words: &mut Vec<Word>) -> Result<(), Collision> {
    exprs.into_iter().try_for_each(|expr| {
        collect(&Scalar::compile(expr, &|column| column)?, words);
        Ok(())
    })
}

fn collect(scalar: &Scalar, words: &mut Vec<Word>) {
    match scalar {
        Scalar::Const(word) => words.push(*word),
        Scalar::Compare(_, left, right) => [left, right].into_iter().for_each(|arg| collect(arg, words)),
        Scalar::Pair(_, _, args) => args.iter().for_each(|arg| collect(arg, words)),
        Scalar::Call(_, _, args) => args.iter().for_each(|arg| collect(arg, words)),
        Scalar::Col(_) | Scalar::Fault(_) | Scalar::Total(_) => {}
    }
}
