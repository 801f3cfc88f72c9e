//! Searches among what is in order.

use std::ops::Range;

/// The first position from `from` up to `end` that is not `less`, which holds for a prefix.
#[inline]
pub(crate) fn gallop(from: usize, end: usize, less: impl Fn(usize) -> bool) -> usize {
    if from >= end || !less(from) {
        return from;
    }
    let (mut low, mut step) = (from, 1);
    while low + step < end && less(low + step) {
        low += step;
        step <<= 1;
    }
    bisect(low + 1..end.min(low + step), less)
}

/// The first position in `range`, or its end, that is not `less`, which holds for a prefix.
#[inline]
pub(crate) fn bisect(range: Range<usize>, less: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if less(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
