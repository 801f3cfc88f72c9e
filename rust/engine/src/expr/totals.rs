//! The ends of running totals: what goes into their sums, and what comes out of them.
//!
//! A column is added up in two halves of 32 bits, each in a word of its own, so that no sum overflows before 2³² rows
//! and a mean is exact where a 64-bit sum would have wrapped.

use dataflow_protocol::plan::AggregateFunc;
use dataflow_protocol::value::{Type, Word, from_float, from_number};

/// One aggregate, read from running totals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Total {
    /// `count`, `sum` or `mean`.
    pub(crate) func: AggregateFunc,
    /// Of the column that was added up.
    pub(crate) ty: Type,
    /// Where the count stands in the row.
    pub(crate) count: usize,
    /// Where the sum of the upper halves stands; that of the lower ones follows.
    pub(crate) sum: usize,
}

impl Total {
    /// The aggregate's value; `None` where the group has no rows.
    pub(crate) fn eval(&self, row: &[Word]) -> Option<Word> {
        let count = row[self.count] as i64;
        if count <= 0 {
            return None;
        }
        match self.func {
            AggregateFunc::Sum => Some(from_integer(self.ty, self.sum(row, count))),
            AggregateFunc::Mean => Some(from_float(self.sum(row, count) as f64 / count as f64)),
            _ => Some(from_number(count)),
        }
    }

    fn sum(&self, row: &[Word], count: i64) -> i128 {
        let (upper, lower) = (row[self.sum] as i64, row[self.sum + 1] as i64);
        let encoded = (i128::from(upper) << 32) + i128::from(lower);
        // A number's word is the number plus 2⁶³.
        if self.ty == Type::Number { encoded - (i128::from(count) << 63) } else { encoded }
    }
}

/// The low 64 bits of an integer, as a value of `ty`.
pub(crate) fn from_integer(ty: Type, integer: i128) -> Word {
    if ty == Type::Number { from_number(integer as i64) } else { integer as u64 }
}
