//! Rows with a further column that runs through a range, a row for each value.

use dataflow_protocol::value::{Type, Word, from_float, from_number, to_float, to_number};
use differential_dataflow::AsCollection;

use super::Rows;
use super::linear::paced;
use crate::container::exchange::rows_per_container;
use crate::container::{EngineTime, Updates};
use crate::expr::Project;
use crate::meter::Meter;

/// Values that one row's range may have; the derivation from a row with more of them fails.
pub(crate) const MAX_RANGE: usize = 1 << 20;

/// Appends the values of a range to each row of `width` columns.
///
/// `bounds` gives the first value, the end (which isn't part of the range) and, if it has a third column, the step
/// between values, all of type `over`.
pub(crate) fn range<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    width: usize,
    over: Type,
    bounds: Project,
    meter: &Meter,
) -> Rows<'scope, T> {
    let begin = |rows: &mut Updates<T>, pieces: &mut Vec<Filling<T>>| {
        pieces.push(Filling { rows: std::mem::take(rows), begun: 0, values: Vec::new(), used: 0 });
    };
    let (full, mut limits) = (rows_per_container(width + 1), Vec::new());
    paced(rows.inner, "Range", meter, begin, move |filling, effort, emit| {
        let mut made = Updates::with_capacity(width + 1, full.min(*effort));
        let mut done = false;
        while *effort > 0 && !done {
            *effort -= 1;
            if filling.next(&mut made) {
                if made.len() >= full {
                    emit(&mut made);
                    made = Updates::with_capacity(width + 1, full);
                }
            } else if let Some(values) = filling.begin(&bounds, &mut limits) {
                if !limits.is_empty() && !fill(over, &limits, values) {
                    values.clear();
                    bounds.fail();
                }
            } else {
                done = true;
            }
        }
        if !made.is_empty() {
            emit(&mut made);
        }
        done
    })
    .as_collection()
}

/// Rows that get their values, and how far.
struct Filling<T: EngineTime> {
    rows: Updates<T>,
    /// Rows whose values have been made.
    begun: usize,
    /// Those of the last of them.
    values: Vec<Word>,
    used: usize,
}

impl<T: EngineTime> Filling<T> {
    /// Appends the row of the next value to `made`, if the row at hand has one.
    fn next(&mut self, made: &mut Updates<T>) -> bool {
        let Some(&value) = self.values.get(self.used) else { return false };
        let row = self.begun - 1;
        self.used += 1;
        made.row_words().extend_from_slice(self.rows.row(row));
        made.row_words().push(value);
        made.end_row(self.rows.time(row), self.rows.diff(row));
        true
    }

    /// Goes to the next row, if there is one: where its values are to be put, whose `limits` are given if it has some.
    fn begin(&mut self, bounds: &Project, limits: &mut Vec<Word>) -> Option<&mut Vec<Word>> {
        if self.begun == self.rows.len() {
            return None;
        }
        self.values.clear();
        self.used = 0;
        limits.clear();
        if !bounds.apply(self.rows.row(self.begun), limits) {
            limits.clear();
        }
        self.begun += 1;
        Some(&mut self.values)
    }
}

/// Appends the values from `limits[0]` on, before `limits[1]`; `false` if there are too many.
///
/// Without a step it is 1 or -1, whichever leads to the end. A step of 0 gives the first value alone.
fn fill(over: Type, limits: &[Word], values: &mut Vec<Word>) -> bool {
    let (first, end) = (limits[0], limits[1]);
    match over {
        Type::Float => {
            floats(to_float(first), to_float(end), limits.get(2).map(|&word| to_float(word)), values)
        }
        Type::Number => {
            let step = limits.get(2).map(|&word| i128::from(to_number(word)));
            integers(i128::from(to_number(first)), i128::from(to_number(end)), step, |value| {
                values.push(from_number(value as i64));
            })
        }
        _ => {
            let step = limits.get(2).map(|&word| i128::from(word));
            integers(i128::from(first), i128::from(end), step, |value| values.push(value as u64))
        }
    }
}

fn integers(first: i128, end: i128, step: Option<i128>, mut each: impl FnMut(i128)) -> bool {
    let step = step.unwrap_or(if first <= end { 1 } else { -1 });
    let distance = end - first;
    if distance == 0 || distance.signum() == -step.signum() {
        return true;
    }
    if step == 0 {
        each(first);
        return true;
    }
    let (distance, stride) = (distance.unsigned_abs(), step.unsigned_abs());
    let count = distance.div_ceil(stride);
    if count > MAX_RANGE as u128 {
        return false;
    }
    (0..count as i128).for_each(|place| each(first + place * step));
    true
}

/// Adds the step again and again, as the dialect has it, with the rounding that goes with it.
fn floats(first: f64, end: f64, step: Option<f64>, values: &mut Vec<Word>) -> bool {
    let step = step.unwrap_or(if first <= end { 1.0 } else { -1.0 });
    if step == 0.0 {
        if first != end {
            values.push(from_float(first));
        }
        return true;
    }
    let before_end = |value: f64| if step > 0.0 { value < end } else { value > end };
    let mut value = first;
    while before_end(value) {
        if values.len() == MAX_RANGE {
            return false;
        }
        values.push(from_float(value));
        value += step;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(limits: &[i64]) -> Option<Vec<i64>> {
        let limits: Vec<Word> = limits.iter().map(|&limit| from_number(limit)).collect();
        let mut values = Vec::new();
        fill(Type::Number, &limits, &mut values).then(|| values.into_iter().map(to_number).collect())
    }

    #[test]
    fn numbers_run_up_to_the_end_without_it() {
        assert_eq!(numbers(&[1, 4]), Some(vec![1, 2, 3]));
        assert_eq!(numbers(&[4, 1]), Some(vec![4, 3, 2]));
        assert_eq!(numbers(&[1, 6, 2]), Some(vec![1, 3, 5]));
        assert_eq!(numbers(&[6, 1, -2]), Some(vec![6, 4, 2]));
        assert_eq!(numbers(&[1, 6, -2]), Some(vec![]));
        assert_eq!(numbers(&[1, 6, 0]), Some(vec![1]));
        assert_eq!(numbers(&[6, 6, 0]), Some(vec![]));
        assert_eq!(numbers(&[6, 6, 1]), Some(vec![]));
    }

    #[test]
    fn ranges_at_the_edge_of_a_type_neither_wrap_nor_run_for_ever() {
        assert_eq!(numbers(&[i64::MAX - 1, i64::MAX]), Some(vec![i64::MAX - 1]));
        assert_eq!(numbers(&[i64::MIN, i64::MAX, i64::MAX]), Some(vec![i64::MIN, -1, i64::MAX - 1]));
        assert_eq!(numbers(&[0, MAX_RANGE as i64]).map(|values| values.len()), Some(MAX_RANGE));
        assert_eq!(numbers(&[0, MAX_RANGE as i64 + 1]), None);
        assert_eq!(numbers(&[i64::MIN, i64::MAX]), None);
    }

    #[test]
    fn floats_that_never_arrive_fail() {
        let filled = |limits: [f64; 3]| {
            let mut values = Vec::new();
            let limits = limits.map(from_float);
            fill(Type::Float, &limits, &mut values)
                .then(|| values.into_iter().map(to_float).collect::<Vec<_>>())
        };
        assert_eq!(filled([1.5, -1.0, -1.0]), Some(vec![1.5, 0.5, -0.5]));
        assert_eq!(filled([1e300, 2e300, 1.0]), None);
        assert_eq!(filled([f64::NAN, 1.0, 1.0]), Some(vec![]));
        assert_eq!(filled([0.0, f64::INFINITY, 1.0]), None);
        assert_eq!(filled([0.0, 1.0, f64::NAN]), Some(vec![]));
    }
}
