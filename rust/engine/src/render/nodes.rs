//! The operators that are the same in and outside a recursion.

use dataflow_protocol::plan::{Expr, Node};
use differential_dataflow::AsCollection;
use timely::dataflow::operators::Concatenate;

use super::context::{Context, each_once, put_in_order};
use crate::container::EngineTime;
use crate::expr::Project;
use crate::layout::Layout;
use crate::operators::Rows;
use crate::operators::arrange::readable;
use crate::operators::join::{Pairing, join};
use crate::operators::linear::{flatten, map};
use crate::operators::range::range;

/// Builds a node that is neither a relation, nor constant, nor a reduction.
pub(super) fn build<'scope, T: EngineTime, C: Context<'scope, T>>(
    context: &mut C,
    node: usize,
) -> Rows<'scope, T> {
    match context.valid().plan.nodes[node].clone() {
        Node::Map { input, filter, project } => context.build_map(node, input, &filter, &project),
        Node::Range { input, over, start, stop, step } => {
            let bounds: Vec<Expr> = [start, stop].into_iter().chain(step).collect();
            let bounds = compile(context, &[], &bounds, |column| column);
            let width = context.width(input);
            range(context.rows(input), width, over, bounds, &context.meter_of(node))
        }
        Node::Join { left, right, left_key, right_key, filter, project } => {
            let sides = Sides { left, right, left_key, right_key };
            sides.join(context, node, &filter, &project)
        }
        Node::Antijoin { left, right, left_key, right_key } => {
            Sides { left, right, left_key, right_key }.antijoin(context, node)
        }
        Node::Union { inputs } => concatenate(inputs.into_iter().map(|input| context.rows(input)).collect()),
        Node::Distinct { input } => {
            let (width, meter) = (context.width(input), context.meter_of(node));
            let (rows, grows) = (context.rows(input), context.grows());
            let distinct = each_once(rows, "Count", &Layout::whole(width), grows, &meter.preparing());
            flatten(&readable(distinct), "Rows", Project::columns((0..width).collect()), &meter)
        }
        Node::Get { .. }
        | Node::Rows { .. }
        | Node::Reduce { .. }
        | Node::Window { .. }
        | Node::Multijoin { .. } => {
            unreachable!("built by the scope itself")
        }
    }
}

/// The rows of a node with their columns in `order`, in which they are made where nothing else reads the node.
pub(super) fn in_order<'scope, T: EngineTime, C: Context<'scope, T>>(
    context: &mut C,
    node: usize,
    order: &[usize],
) -> Rows<'scope, T> {
    let valid = context.valid();
    let width = context.width(node);
    let apart = order.iter().copied().eq(0..width) || valid.uses[node] > 1 || !context.is_built_here(node);
    let project = |project: &[Expr]| -> Vec<Expr> { order.iter().map(|&at| project[at].clone()).collect() };
    match valid.plan.nodes[node].clone() {
        Node::Union { inputs } if !apart => {
            concatenate(inputs.into_iter().map(|input| in_order(context, input, order)).collect())
        }
        Node::Map { input, filter, project: columns } if !apart => {
            context.build_map(node, input, &filter, &project(&columns))
        }
        Node::Join { left, right, left_key, right_key, filter, project: columns } if !apart => {
            Sides { left, right, left_key, right_key }.join(context, node, &filter, &project(&columns))
        }
        _ => {
            let meter = context.meter_of(node).preparing();
            put_in_order(context.rows(node), order, width, &meter)
        }
    }
}

/// Filters and projects the rows of `input`, which `node` does.
pub(super) fn mapped<'scope, T: EngineTime, C: Context<'scope, T>>(
    context: &mut C,
    node: usize,
    input: usize,
    (filter, project): (&[Expr], &[Expr]),
) -> Rows<'scope, T> {
    let project = compile(context, filter, project, |column| column);
    map(context.rows(input), "Map", project, &context.meter_of(node))
}

/// Compiles against the row at hand. Symbols of the plan were interned before building began, so this can't collide.
pub(super) fn compile<'scope, T: EngineTime, C: Context<'scope, T>>(
    context: &C,
    filter: &[Expr],
    project: &[Expr],
    column: impl Fn(usize) -> usize,
) -> Project {
    Project::compile(filter, project, column, &context.meter())
        .unwrap_or_else(|collision| unreachable!("interned before: {collision}"))
}

/// All rows of these, of which there is at least one.
pub(super) fn concatenate<T: EngineTime>(mut rows: Vec<Rows<'_, T>>) -> Rows<'_, T> {
    match rows.pop() {
        Some(only) if rows.is_empty() => only,
        Some(last) => {
            let scope = last.inner.scope();
            scope.concatenate(rows.into_iter().chain([last]).map(|rows| rows.inner)).as_collection()
        }
        None => unreachable!("a valid union has inputs"),
    }
}

struct Sides {
    left: usize,
    right: usize,
    left_key: Vec<usize>,
    right_key: Vec<usize>,
}

impl Sides {
    fn join<'scope, T: EngineTime, C: Context<'scope, T>>(
        &self,
        context: &mut C,
        node: usize,
        filter: &[Expr],
        project: &[Expr],
    ) -> Rows<'scope, T> {
        let (left_width, right_width) = (context.width(self.left), context.width(self.right));
        let left_layout = Layout::by(&self.left_key, left_width);
        let (left_at, left_len) = (left_layout.positions(), left_layout.order().len());
        let right_at = Layout::by(&self.right_key, right_width).positions();
        let key_width = self.left_key.len();
        // The row at hand is the key, then the rest of the left row, then the rest of the right one.
        let project = compile(context, filter, project, |column| match column.checked_sub(left_width) {
            None => left_at[column],
            Some(column) if right_at[column] < key_width => right_at[column],
            Some(column) => left_len + right_at[column] - key_width,
        });
        let left = context.arranged(self.left, &self.left_key);
        let right = context.arranged(self.right, &self.right_key);
        join(left, right, "Join", Pairing { project, sign: 1 }, &context.meter_of(node))
    }

    /// All left rows, less those that meet a key of the right.
    fn antijoin<'scope, T: EngineTime, C: Context<'scope, T>>(
        &self,
        context: &mut C,
        node: usize,
    ) -> Rows<'scope, T> {
        let width = context.width(self.left);
        let at = Layout::by(&self.left_key, width).positions();
        let rows = context.rows(self.left);
        let left = context.arranged(self.left, &self.left_key);
        let keys = context.keys(self.right, &self.right_key);
        let pairing = Pairing { project: Project::columns(at), sign: -1 };
        let met = join(left, keys, "Semijoin", pairing, &context.meter_of(node));
        rows.concat(met)
    }
}
