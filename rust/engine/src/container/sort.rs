//! Sorting, consolidating and merging of updates.
//!
//! The order is that of the row's words, then of the time. Consolidated means sorted, with one update for each row
//! and time, none of difference 0.

use std::cmp::Ordering;

use dataflow_protocol::value::Word;

use super::column::{EngineTime, TimeColumn};
use super::updates::Updates;

/// Sorts and consolidates.
pub(crate) fn consolidate<T: EngineTime>(updates: &mut Updates<T>) {
    if updates.len() < 2 && (updates.is_empty() || updates.diff(0) != 0) {
        return;
    }
    let order = match updates.width() {
        0 => (0..updates.len() as u32).collect(),
        1 => order_of::<1, T>(updates),
        2 => order_of::<2, T>(updates),
        3 => order_of::<3, T>(updates),
        4 => order_of::<4, T>(updates),
        _ => wide_order(updates),
    };
    *updates = gather(updates, order);
}

/// The order of rows, equal ones by index: of narrow rows the words themselves are sorted, beside their index.
fn order_of<const N: usize, T: EngineTime>(updates: &Updates<T>) -> Vec<u32> {
    let (rows, _) = updates.words().as_chunks::<N>();
    let mut keyed: Vec<([Word; N], u32)> = rows.iter().copied().zip(0..).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, index)| index).collect()
}

fn wide_order<T: EngineTime>(updates: &Updates<T>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..updates.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| updates.row(a as usize).cmp(updates.row(b as usize)));
    order
}

/// Puts rows in the given order, equal ones by time, and adds up differences.
fn gather<T: EngineTime>(updates: &Updates<T>, order: Vec<u32>) -> Updates<T> {
    let mut sorted = Updates::with_capacity(updates.width(), updates.len());
    let mut times: Vec<(T, i64)> = Vec::new();
    let mut start = 0;
    while start < order.len() {
        let first = order[start] as usize;
        let row = updates.row(first);
        let mut end = start + 1;
        while end < order.len() && updates.row(order[end] as usize).iter().eq(row) {
            end += 1;
        }
        if end == start + 1 {
            if updates.diff(first) != 0 {
                sorted.push(row, updates.time(first), updates.diff(first));
            }
        } else {
            times.clear();
            times.extend(
                order[start..end].iter().map(|&i| (updates.time(i as usize), updates.diff(i as usize))),
            );
            push_times(&mut sorted, row, &mut times);
        }
        start = end;
    }
    sorted
}

/// Appends the updates of one row, times sorted and differences added up.
pub(crate) fn push_times<T: EngineTime>(target: &mut Updates<T>, row: &[Word], times: &mut Vec<(T, i64)>) {
    consolidate_times(times);
    for &(time, diff) in times.iter() {
        target.push(row, time, diff);
    }
}

/// Sorts times, adds up the differences of equal ones, drops those of difference 0.
pub(crate) fn consolidate_times<T: EngineTime>(times: &mut Vec<(T, i64)>) {
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

/// Merges two consolidated containers.
pub(crate) fn merge<T: EngineTime>(left: &Updates<T>, right: &Updates<T>) -> Updates<T> {
    let mut merged = Updates::with_capacity(left.width(), left.len() + right.len());
    let (mut l, mut r) = (0, 0);
    while l < left.len() && r < right.len() {
        let order = left.row(l).cmp(right.row(r)).then_with(|| left.time(l).cmp(&right.time(r)));
        match order {
            Ordering::Less => {
                merged.push(left.row(l), left.time(l), left.diff(l));
                l += 1;
            }
            Ordering::Greater => {
                merged.push(right.row(r), right.time(r), right.diff(r));
                r += 1;
            }
            Ordering::Equal => {
                let diff = left.diff(l) + right.diff(r);
                if diff != 0 {
                    merged.push(left.row(l), left.time(l), diff);
                }
                l += 1;
                r += 1;
            }
        }
    }
    merged.extend_from(left, l..left.len());
    merged.extend_from(right, r..right.len());
    merged
}

/// Splits a consolidated container into the updates whose time passes `ready`, and the others.
pub(crate) fn partition<T: EngineTime>(
    updates: Updates<T>,
    ready: impl Fn(&T) -> bool,
) -> (Updates<T>, Updates<T>) {
    let width = updates.width();
    match updates.times().uniform() {
        Some(time) if ready(&time) => return (updates, Updates::new(width)),
        Some(_) => return (Updates::new(width), updates),
        None if (0..updates.len()).all(|index| ready(&updates.time(index))) => {
            return (updates, Updates::new(width));
        }
        None => {}
    }
    let (mut yes, mut no) = (Updates::new(width), Updates::new(width));
    for index in 0..updates.len() {
        let time = updates.time(index);
        let side = if ready(&time) { &mut yes } else { &mut no };
        side.push(updates.row(index), time, updates.diff(index));
    }
    (yes, no)
}
