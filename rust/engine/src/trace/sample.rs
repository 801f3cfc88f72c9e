//! A sample of a batch's keys, by which far ones are found.
//!
//! Keys of a long batch are far apart in memory: a search that halves what is left meets another cold line of it at each
//! step. So the first words of some keys stand together.

use std::ops::Range;

use dataflow_protocol::value::Word;

/// One key of so many is in the sample.
const STRIDE: usize = 32;

/// Fewer keys are found without a sample.
const MANY: usize = 32 * STRIDE;

/// The first word of every so manieth key of a batch; none of a short one.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample(Vec<Word>);

impl Sample {
    /// Of keys of `width` words in order.
    pub(super) fn of(keys: &[Word], width: usize) -> Sample {
        if width == 0 || keys.len() < MANY * width {
            return Sample::default();
        }
        let mut firsts = Vec::with_capacity((keys.len() / width).div_ceil(STRIDE));
        firsts.extend(keys.iter().step_by(width * STRIDE));
        Sample(firsts)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        8 * self.0.capacity()
    }

    /// Where, from `from` up to `end`, the first key stands that isn't less than one that begins with `first`; the key at
    /// `from` is less.
    #[inline]
    pub(super) fn narrow(&self, from: usize, end: usize, first: Word) -> Range<usize> {
        let next = from / STRIDE + 1;
        if next >= self.0.len() {
            return from + 1..end;
        }
        let begin = gallop(next, self.0.len(), |at| self.0[at] < first);
        let stop = gallop(begin, self.0.len(), |at| self.0[at] <= first);
        (from + 1).max((begin - 1) * STRIDE + 1)..end.min(stop * STRIDE)
    }
}

/// The first position from `from` up to `end` that is not `less`, which holds for a prefix.
#[inline]
pub(super) fn gallop(from: usize, end: usize, less: impl Fn(usize) -> bool) -> usize {
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
pub(super) fn bisect(range: Range<usize>, less: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if less(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
