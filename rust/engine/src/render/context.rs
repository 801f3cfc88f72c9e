//! What a scope offers to the operators built in it.

use std::collections::BTreeMap;

use dataflow_protocol::plan::Expr;
use differential_dataflow::operators::arrange::Arranged;

use crate::analysis::Part;
use crate::container::EngineTime;
use crate::expr::Project;
use crate::layout::Layout;
use crate::meter::Meter;
use crate::operators::arrange::{arrange, readable};
use crate::operators::distinct::{distinct, first_times};
use crate::operators::linear::map;
use crate::operators::{ArrangedRows, Rows};
use crate::trace::Agent;
use crate::validate::Valid;

/// Nodes and arrangements built so far in a scope.
pub(super) struct Memo<'scope, T: EngineTime> {
    rows: BTreeMap<usize, Rows<'scope, T>>,
    arranged: BTreeMap<(usize, Vec<usize>), ArrangedRows<'scope, T>>,
    /// Arranged distinct keys, for antijoins.
    keys: BTreeMap<(usize, Vec<usize>), ArrangedRows<'scope, T>>,
}

impl<T: EngineTime> Default for Memo<'_, T> {
    fn default() -> Self {
        Memo { rows: BTreeMap::new(), arranged: BTreeMap::new(), keys: BTreeMap::new() }
    }
}

/// A scope under construction.
pub(super) trait Context<'scope, T: EngineTime> {
    fn valid(&self) -> &Valid<'_>;
    /// Of the whole program.
    fn meter(&self) -> Meter;
    fn memo(&mut self) -> &mut Memo<'scope, T>;

    /// Builds the rows of a node.
    fn build_rows(&mut self, node: usize) -> Rows<'scope, T>;

    /// Builds the rows of a node that filters and projects another one.
    fn build_map(&mut self, node: usize, input: usize, filter: &[Expr], project: &[Expr]) -> Rows<'scope, T>;

    /// Whether a node is built in this scope, and not taken from the one around it.
    fn is_built_here(&self, node: usize) -> bool;

    /// Whether rows only come here, each once and for all, so that nothing of them has to be counted.
    fn grows(&self) -> bool;

    /// An arrangement of a node that exists elsewhere, if one does.
    fn find_arranged(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'scope, T>>;

    /// Arranged distinct keys that exist elsewhere.
    fn find_keys(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'scope, T>>;

    /// For the operators that make a node's rows.
    fn meter_of(&self, node: usize) -> Meter {
        self.meter().of(Part::Node(node))
    }

    fn width(&self, node: usize) -> usize {
        self.valid().types[node].len()
    }

    /// The rows of a node.
    fn rows(&mut self, node: usize) -> Rows<'scope, T> {
        if let Some(rows) = self.memo().rows.get(&node) {
            return rows.clone();
        }
        let rows = self.build_rows(node);
        self.memo().rows.insert(node, rows.clone());
        rows
    }

    /// A node arranged by `key`, as [`Layout::by`] says.
    fn arranged(&mut self, node: usize, key: &[usize]) -> ArrangedRows<'scope, T> {
        let index = (node, key.to_vec());
        if let Some(arranged) = self.memo().arranged.get(&index) {
            return arranged.clone();
        }
        let arranged = match self.find_arranged(node, key) {
            Some(arranged) => arranged,
            None => {
                let order = Layout::by(key, self.width(node)).order();
                let (rows, meter) = (self.rows(node), self.meter().aside(Part::Node(node)));
                let rows = put_in_order(rows, &order, self.width(node), &meter);
                readable(arrange(rows, "Arrange", key.len(), &meter))
            }
        };
        self.memo().arranged.insert(index, arranged.clone());
        arranged
    }

    /// The distinct values of `key` in a node, arranged.
    fn keys(&mut self, node: usize, key: &[usize]) -> ArrangedRows<'scope, T> {
        let index = (node, key.to_vec());
        if let Some(keys) = self.memo().keys.get(&index) {
            return keys.clone();
        }
        let keys = match self.find_keys(node, key) {
            Some(keys) => keys,
            None => {
                let (rows, meter) = (self.rows(node), self.meter().aside(Part::Node(node)));
                let rows = put_in_order(rows, key, self.width(node), &meter);
                readable(each_once(rows, "Keys", &Layout::whole(key.len()), self.grows(), &meter))
            }
        };
        self.memo().keys.insert(index, keys.clone());
        keys
    }
}

/// Rows of `width` with the columns in `order`.
pub(super) fn put_in_order<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    order: &[usize],
    width: usize,
    meter: &Meter,
) -> Rows<'scope, T> {
    let project = Project::columns(order.to_vec());
    if project.is_identity(width) { rows } else { map(rows, "Permute", project, meter) }
}

/// Each row once, of rows that are laid out so already; `grows` where they only come.
pub(super) fn each_once<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    name: &str,
    layout: &Layout,
    grows: bool,
    meter: &Meter,
) -> Arranged<'scope, Agent<T>> {
    if grows {
        first_times(rows, name, layout, None, meter)
    } else {
        distinct(arrange(rows, name, layout.key().len(), meter), "Distinct", meter)
    }
}
