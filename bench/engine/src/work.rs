//! The computations.

use std::path::Path;

use crate::data::{Batch, Table, graph, program, read};

/// A computation; `bench/engine/programs` has each as a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Transitive closure of a random graph.
    Closure,
    /// Triangles of a graph in which few nodes are in most edges.
    Triangles,
    /// Rows by key.
    Counts,
    /// Pairs of nodes of a tree that are as far from a common ancestor.
    SameGeneration,
    /// Andersen's points-to analysis.
    PointsTo,
    /// Nodes that can be reached from ten.
    Reach,
    /// TPC-H's pricing summary.
    Q1,
    /// TPC-H's shipping priority, without its limit.
    Q3,
    /// TPC-H's local supplier volume.
    Q5,
    /// TPC-H's product type profit, by a number in place of a word of the part's name.
    Q9,
}

impl Work {
    /// The one that has this name.
    pub fn named(name: &str) -> Option<Work> {
        Some(match name {
            "closure" => Work::Closure,
            "triangles" => Work::Triangles,
            "counts" => Work::Counts,
            "same-generation" => Work::SameGeneration,
            "points-to" => Work::PointsTo,
            "reach" => Work::Reach,
            "q1" => Work::Q1,
            "q3" => Work::Q3,
            "q5" => Work::Q5,
            "q9" => Work::Q9,
            _ => return None,
        })
    }

    /// Its tables, in the order of the hand-written dataflow's inputs; the first is the one that changes.
    pub fn tables(self, size: u32, directory: &Path) -> Vec<Table> {
        let read = |names: &[&str]| names.iter().map(|name| read(directory, name)).collect();
        match self {
            // The same number of edges a node whatever the size, four.
            Work::Closure => vec![graph::random(size, 4.0 / f64::from(size))],
            Work::Triangles => vec![graph::skewed(size)],
            Work::Counts => vec![graph::keyed(size)],
            Work::SameGeneration => vec![graph::family(size)],
            Work::PointsTo => program::statements(size).into(),
            Work::Reach => vec![graph::sparse(size), graph::roots()],
            Work::Q1 => read(&["lineitem"]),
            Work::Q3 => read(&["lineitem", "orders", "customer"]),
            Work::Q5 => read(&["lineitem", "orders", "customer", "supplier", "nation"]),
            Work::Q9 => read(&["lineitem", "orders", "supplier", "part", "partsupp"]),
        }
    }
}

/// What is to be done and measured.
#[derive(Clone, Debug)]
pub struct Run {
    /// The computation.
    pub work: Work,
    /// Threads.
    pub workers: usize,
    /// Loaded at once.
    pub tables: Vec<Table>,
    /// Then made one after the other; they change the first table.
    pub batches: Vec<Batch>,
}
