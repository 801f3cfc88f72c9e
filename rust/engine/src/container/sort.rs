//! Sorting and consolidating of updates.
//!
//! The order is that of the row's words, then of the time. Consolidated means sorted, with one update for each row
//! and time, none of difference 0.

use dataflow_protocol::value::Word;

use super::column::EngineTime;
use super::updates::{Diff, Updates};

/// Sorts and consolidates.
pub(crate) fn consolidate<T: EngineTime>(updates: &mut Updates<T>) {
    if updates.len() < 2 && (updates.is_empty() || updates.diff(0) != 0) {
        return;
    }
    *updates = match updates.width() {
        1 => narrow::<1, T>(updates),
        2 => narrow::<2, T>(updates),
        3 => narrow::<3, T>(updates),
        4 => narrow::<4, T>(updates),
        _ => wide(updates),
    };
}

/// Of narrow rows the words themselves are sorted, beside their index.
fn narrow<const N: usize, T: EngineTime>(updates: &Updates<T>) -> Updates<T> {
    let (rows, _) = updates.words().as_chunks::<N>();
    let mut keyed: Vec<([Word; N], u32)> = rows.iter().copied().zip(0..).collect();
    keyed.sort_unstable();
    let mut sorted = Updates::with_capacity(N, updates.len());
    let mut times = Vec::new();
    for equal in keyed.chunk_by(|a, b| a.0 == b.0) {
        let (row, first) = &equal[0];
        if let [_] = equal {
            push_alone(&mut sorted, row, updates, *first);
        } else {
            push_equal(&mut sorted, row, updates, equal.iter().map(|&(_, index)| index), &mut times);
        }
    }
    sorted
}

fn wide<T: EngineTime>(updates: &Updates<T>) -> Updates<T> {
    let row = |index: u32| updates.row(index as usize);
    let mut order: Vec<u32> = (0..updates.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| row(a).cmp(row(b)));
    let mut sorted = Updates::with_capacity(updates.width(), updates.len());
    let mut times = Vec::new();
    for equal in order.chunk_by(|&a, &b| row(a) == row(b)) {
        if let [only] = *equal {
            push_alone(&mut sorted, row(only), updates, only);
        } else {
            push_equal(&mut sorted, row(equal[0]), updates, equal.iter().copied(), &mut times);
        }
    }
    sorted
}

/// Appends the update at `index`, whose row stands once.
#[inline]
fn push_alone<T: EngineTime>(sorted: &mut Updates<T>, row: &[Word], updates: &Updates<T>, index: u32) {
    let diff = updates.diff(index as usize);
    if diff != 0 {
        sorted.push(row, updates.time(index as usize), diff);
    }
}

/// Appends the updates at `indices`, all of one row: sorted by time, differences added up.
fn push_equal<T: EngineTime>(
    sorted: &mut Updates<T>,
    row: &[Word],
    updates: &Updates<T>,
    indices: impl Iterator<Item = u32>,
    times: &mut Vec<(T, Diff)>,
) {
    times.clear();
    times.extend(indices.map(|index| (updates.time(index as usize), updates.diff(index as usize))));
    consolidate_times(times);
    for &(time, diff) in times.iter() {
        sorted.push(row, time, diff);
    }
}

/// Sorts times, adds up the differences of equal ones, drops those of difference 0.
pub(crate) fn consolidate_times<T: EngineTime>(times: &mut Vec<(T, Diff)>) {
    if times.len() > 1 {
        times.sort_unstable_by_key(|&(time, _)| time);
        times.dedup_by(|next, kept| {
            let equal = next.0 == kept.0;
            if equal {
                kept.1 += next.1;
            }
            equal
        });
    }
    times.retain(|&(_, diff)| diff != 0);
}
