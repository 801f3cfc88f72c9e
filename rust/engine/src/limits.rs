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
    /// What went wrong in an operator, if something has.
    pub failure: Option<String>,
}
