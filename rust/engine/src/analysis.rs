//! What a program's operators hold and have done, by the part of the plan that they belong to.

use serde::{Deserialize, Serialize};

/// What an operator belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// A node of the plan, by its index.
    Node(usize),
    /// A relation of the plan, by its index: what makes its rows distinct, keeps and delivers them.
    Relation(usize),
    /// What is transacted into a relation of the plan, by its index.
    Input(usize),
    /// None of these.
    Other,
}

/// One worker's share of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorFigures {
    /// Which.
    pub part: Part,
    /// Rows that its arrangements hold or that wait to be arranged.
    pub rows: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Changes it has passed on since it was built.
    pub changes: u64,
    /// Stretches of work it has done.
    pub runs: u64,
    /// Microseconds of these.
    pub micros: u64,
}

/// One worker's share of an arrangement that programs share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrangementFigures {
    /// The relation's name.
    pub relation: String,
    /// The columns by which it is arranged; none for the relation as it is kept.
    pub key: Option<Vec<usize>>,
    /// Its rows. Before batches have been merged a row may count more than once.
    pub rows: u64,
    /// Distinct values of the columns that it is arranged by, as far as batches have been merged.
    pub keys: u64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Microseconds spent on arranging it; what keeping a relation takes is the relation's.
    pub micros: u64,
}

/// One worker's share of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// Of its own operators.
    pub operators: Vec<OperatorFigures>,
    /// Of what it declares, and of the arrangements it reads.
    pub arrangements: Vec<ArrangementFigures>,
}
