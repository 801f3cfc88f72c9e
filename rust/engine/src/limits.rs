//! What a program may use, what it does use, and why it was ended.

use serde::{Deserialize, Serialize};

/// What one worker's share of a program has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Rows that its arrangements hold or that wait to be arranged, intermediate results included; what it reads of
    /// other programs, and what is transacted, isn't counted.
    pub rows: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// The iteration that a recursion is in; 0 if none is.
    pub iteration: u64,
    /// The recursive relation that got on last.
    pub relation: Option<String>,
    /// Why an operator has given up, if one has.
    pub failure: Option<Failure>,
}

/// Why an operator gives up, and its program with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// It panicked: which one, and with what message.
    Panicked(String),
    /// It has found as many rows of a relation on one worker as it can hold, and another one.
    Full(u64),
}
