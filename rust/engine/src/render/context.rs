//! What a scope offers to the operators built in it.

use std::collections::BTreeMap;

use differential_dataflow::operators::arrange::Arranged;

use crate::analysis::Part;
use crate::container::EngineTime;
use crate::expr::Project;
use crate::meter::Meter;
use crate::operators::arrange::{arrange, readable};
use crate::operators::distinct::{distinct, first_times};
use crate::operators::linear::map;
use crate::operators::{ArrangedRows, Rows};
use crate::trace::Agent;
use crate::validate::Valid;

/// The order in which an arrangement keeps the columns of a row of `width`: the key's, then the others.
pub(crate) fn order(key: &[usize], width: usize) -> Vec<usize> {
    key.iter().copied().chain((0..width).filter(|column| !key.contains(column))).collect()
}

/// For each of `width` columns its position in an arrangement of this `order`.
pub(crate) fn positions(order: &[usize], width: usize) -> Vec<usize> {
    (0..width).map(|column| order.iter().position(|&at| at == column).unwrap_or(0)).collect()
}

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

    /// A node arranged by `key`, in the order that [`order`] gives.
    fn arranged(&mut self, node: usize, key: &[usize]) -> ArrangedRows<'scope, T> {
        let index = (node, key.to_vec());
        if let Some(arranged) = self.memo().arranged.get(&index) {
            return arranged.clone();
        }
        let arranged = match self.find_arranged(node, key) {
            Some(arranged) => arranged,
            None => {
                let order = order(key, self.width(node));
                let (rows, meter) = (self.rows(node), self.meter().aside(Part::Node(node)));
                readable(permuted(rows, order, self.width(node), key.len(), &meter))
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
                let rows = put_in_order(rows, key.to_vec(), self.width(node), &meter);
                readable(each_once(rows, "Keys", key.len(), self.grows(), &meter))
            }
        };
        self.memo().keys.insert(index, keys.clone());
        keys
    }
}

/// Rows of `width` arranged with their columns in `order`, the first `key_width` as key.
pub(super) fn permuted<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    order: Vec<usize>,
    width: usize,
    key_width: usize,
    meter: &Meter,
) -> Arranged<'scope, Agent<T>> {
    arrange(put_in_order(rows, order, width, meter), "Arrange", key_width, meter)
}

/// Rows of `width` with the columns in `order`.
fn put_in_order<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    order: Vec<usize>,
    width: usize,
    meter: &Meter,
) -> Rows<'scope, T> {
    let project = Project::columns(order);
    if project.is_identity(width) { rows } else { map(rows, "Permute", project, meter) }
}

/// Rows of `width`, each once, arranged; `grows` where they only come.
pub(super) fn each_once<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    name: &str,
    width: usize,
    grows: bool,
    meter: &Meter,
) -> Arranged<'scope, Agent<T>> {
    if grows {
        first_times(rows, name, width, None, meter)
    } else {
        distinct(arrange(rows, name, width, meter), "Distinct", meter)
    }
}
